"""A job: what it makes, from what, by which spec, and the digest of all that this depends on."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from eqcollapse.runtime.section import Section

RUNS = "results/runs/"
"""The cells' folder; their logs lie by the same names under logs/train/."""


@dataclass(frozen=True)
class Job:
    """One job: a pure function from input files and a spec to output files.

    `path` is what the digest stands in (a file or a folder), or, for files with fixed names, the first output.
    `caption`: what a table or figure shows.
    """

    stage: str
    path: str
    digest: str
    spec: Section
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    record: str
    caption: str = ""

    @property
    def pinned(self) -> bool:
        """Whether the path itself carries the digest."""
        return f"@{self.digest}" in self.path

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The spec as plain values."""
        return self.spec.model_dump(mode="json")

    @cached_property
    def spec_json(self) -> str:
        """The spec as one line of JSON, for the command line."""
        return json.dumps(self.settings, sort_keys=True, separators=(",", ":"))

    @cached_property
    def files(self) -> tuple[str, ...]:
        """All that the job writes: outputs and record."""
        return (*self.outputs, self.record)


def planned(
    stage: str,
    spec: Section,
    code: Mapping[str, str],
    *,
    upstream: Sequence[Job] = (),
    inputs: Iterable[str] = (),
    path: str = "",
    files: Sequence[str] = ("{path}",),
) -> Job:
    """Return the job of `stage` that reads `inputs`, of the jobs `upstream`, and writes `files`; without a `path` the
    first of these is its path. `{digest}` in `path` and `{path}` in `files` are filled in.

    `code` has the digest of each stage's code.
    """
    digest = job_digest(stage, spec.model_dump(mode="json"), [job.digest for job in upstream], code[stage])
    path = (path or files[0]).format(digest=digest)
    outputs = tuple(file.format(path=path) for file in files)
    return Job(stage, path, digest, spec, tuple(inputs), outputs, record_path(outputs))


def job_digest(stage: str, spec: dict[str, Any], upstream: list[str], code: str) -> str:
    """Return the ten hexadecimal digits that stand for all that a job's outputs depend on."""
    content = json.dumps([stage, spec, upstream, code], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:10]


def record_path(outputs: tuple[str, ...]) -> str:
    """Return where the provenance record of a job with these outputs lies: in its folder, or beside its file."""
    first = outputs[0]
    folder, _, _ = first.rpartition("/")
    if "@" in folder:
        return f"{folder}/provenance.json"
    stem = first.rpartition(".")[0] if len(outputs) > 1 else first
    return f"{stem}.provenance.json"


def log_path(run: str, suffix: str) -> str:
    """Return where the log with this suffix lies of the cell whose folder is `run`; "" of a folder that is no cell's.

    `.log`: what its job says; `.csv`: its live history; `.tsv`: what it took.
    """
    return f"logs/train/{run.removeprefix(RUNS)}{suffix}" if run.startswith(RUNS) else ""
