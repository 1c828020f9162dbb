"""The records behind one file, back to its data, and the commands that rebuild it."""

import os
import shlex
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import yaml

from eqcollapse.provenance.audit import ROOTS
from eqcollapse.provenance.commits import Sources, head, log, sources
from eqcollapse.provenance.reading import Record, is_record, read, record_paths
from eqcollapse.runtime.errors import EqcollapseError
from eqcollapse.study.fingerprint import code_digest
from eqcollapse.study.grid import Study
from eqcollapse.study.params import parse
from eqcollapse.study.stages import STAGES

LONGEST = 100_000
"""Characters of a command line that any Linux takes."""


class Chain:
    """All records behind `file`, read from where they lie beside their outputs.

    Raises EqcollapseError if no record speaks of `file`, or one on the way back to the data is missing.
    """

    def __init__(self, file: str):
        self.file = os.path.relpath(file)
        records = [record for root in ROOTS for record in map(read, record_paths(root)) if record.usable]
        self._writer = {path: record for record in records for path in record.outputs}
        if is_record(self.file):
            self.file = next((r.content["outputs"][0]["path"] for r in records if r.path == self.file), self.file)
        if self.file not in self._writer:
            raise EqcollapseError(f"{self.file}: no record names it: give a file under {' or '.join(ROOTS)}/")

    @property
    def record(self) -> Record:
        """The record of the job that wrote the file."""
        return self._writer[self.file]

    def upstream(self, record: Record) -> list[Record]:
        """Return the records of the jobs that wrote what `record` read, each once, in order."""
        writers: dict[str, Record] = {}
        for path in record.inputs:
            if path not in self._writer:
                raise EqcollapseError(f"{path}: {record.path} read it, but no record says who wrote it: run snakemake")
            writers[self._writer[path].path] = self._writer[path]
        return list(writers.values())

    def jobs(self, follow: Callable[[Record], bool] = lambda record: True) -> list[Record]:
        """Return the records behind the file for which `follow` is true, each after those that it reads from."""
        ordered: dict[str, Record] = {}

        def visit(record: Record) -> None:
            if record.path not in ordered and follow(record):
                for source in self.upstream(record):
                    visit(source)
                ordered[record.path] = record

        visit(self.record)
        return list(ordered.values())

    def script(self) -> str:
        """Return the commands that rebuild the file in an empty clone, in order, as a shell script."""
        jobs = self.jobs()
        commits = sorted({record.content["code"]["commit"] or "(none)" for record in jobs})
        images = sorted({(r.content["environment"]["image"] or {}).get("sha256", "none") for r in jobs})
        lines = ["set -e", f"# code: commit {', '.join(commits)}; container image: {', '.join(images)}"]
        lines.append("export PYTHONPATH=src")
        return "\n".join([*lines, *self._commands(jobs)])

    def _commands(self, jobs: list[Record]) -> Iterator[str]:
        """Yield the command of each job, and where its code is not HEAD's, the way to the commit that it is of."""
        now = place = head()
        with sources() as known:
            for record in jobs:
                wanted = _commit_of(record, known) or now
                if wanted != place:
                    yield f"git checkout --quiet {wanted}"
                    place = wanted
                yield self._command(record)

    def _command(self, record: Record) -> str:
        words = typed(record)
        stage, device = record.content["stage"], record.content["run"].get("device")
        if stage == "train" and device:
            words.append(f"--device {'cpu' if device == 'cpu' else 'cuda'}")
        if stage == "data":
            words.append(self._where(record.content["spec"]["name"]))
        return " ".join(word for word in words if word)

    def _where(self, dataset: str) -> str:
        """Return the options that say where the bytes of `dataset` lie, as today's params.yaml has them."""
        here = self._here
        return here.where(dataset) if here and dataset in here.params.datasets else ""

    @cached_property
    def _here(self) -> Study | None:
        return study_of(Path("params.yaml").read_bytes()) if Path("params.yaml").exists() else None


def study_of(text: bytes) -> Study | None:
    """Return the study of `text`, a params file; None if it is none."""
    try:
        return Study(parse(yaml.safe_load(text)))
    except (EqcollapseError, yaml.YAMLError):
        return None


def typed(record: Record) -> list[str]:
    """Return the words of the recorded command for a shell; what no command line can hold comes by a pipe."""
    words = [shlex.quote(word) for word in record.content["command"]]
    names = [shlex.quote(path) for path in record.inputs]
    if len(" ".join(words)) < LONGEST:
        return words
    before, after = words[: words.index("--inputs") + 1], words[words.index("--outputs") :]
    return ["printf '%s\\n'", *names, "|", *before, "-", *after]


def cells_of(spec: dict[str, Any]) -> Callable[[Record], bool] | None:
    """Return the test of whether a table or figure with this `spec` shows a cell; None where it does not say.

    All figures read one table of all cells; `splits` (by data set), `models` and `seeds` say which they show.
    """
    splits, models, seeds = (spec.get(key) for key in ("splits", "models", "seeds"))
    if not (isinstance(splits, dict) and isinstance(models, list) and isinstance(seeds, list)):
        return None

    def shows(record: Record) -> bool:
        cell = record.content["spec"]
        return cell["split"] in splits.get(cell["dataset"], []) and cell["model"] in models and cell["seed"] in seeds

    return shows


def _commit_of(record: Record, known: Sources) -> str | None:
    """Return the commit that has the code of `record`; None where that is the code of today.

    Raises EqcollapseError where no commit has it: what ran was never committed as it was.
    """
    module, code = STAGES[record.content["stage"]].module, record.content["code"]
    if code["digest"] == code_digest(module):
        return None
    for commit in dict.fromkeys([code["commit"] or "", *log()]):
        if known.digest(commit, partial(code_digest, module)) == code["digest"]:
            return commit
    raise EqcollapseError(f"{record.path}: no commit here has the code {code['digest'][:12]} that made its outputs")
