"""The chain behind one file: jobs, settings, data, code and image, and the commands that rebuild it."""

import json
import os
import shlex
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from eqcollapse.provenance.audit import ROOTS
from eqcollapse.provenance.commits import Sources, at_head, head, log, sources
from eqcollapse.provenance.hashing import content
from eqcollapse.provenance.reading import Record, is_record, read, record_paths, undigested
from eqcollapse.provenance.staleness import differences
from eqcollapse.runtime.errors import EqcollapseError
from eqcollapse.study.fingerprint import code_digest
from eqcollapse.study.grid import STAGES, Study, snapshot_epochs
from eqcollapse.study.params import Params, parse

LONGEST = 100_000
"""Characters of a command line that any Linux takes."""
_SECTIONS = ("network", "equilibrium", "train", "snapshots")


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
            raise EqcollapseError(f"{self.file}: no record speaks of it: name a file under {' or '.join(ROOTS)}/")
        self._defaults = _Defaults()

    def upstream(self, record: Record) -> list[Record]:
        """Return the records of the jobs that wrote what `record` read, each once, in order."""
        writers: dict[str, Record] = {}
        for path in record.inputs:
            if path not in self._writer:
                raise EqcollapseError(f"{path}: {record.path} read it, but no record says who wrote it: run snakemake")
            writers[self._writer[path].path] = self._writer[path]
        return list(writers.values())

    def jobs(self) -> list[Record]:
        """Return all records behind the file, each after those that it reads from."""
        ordered: dict[str, Record] = {}

        def visit(record: Record) -> None:
            if record.path not in ordered:
                for source in self.upstream(record):
                    visit(source)
                ordered[record.path] = record

        visit(self._writer[self.file])
        return list(ordered.values())

    def tree(self) -> str:
        """Return the chain as a tree for people, with the commands that rebuild it."""
        record = self._writer[self.file]
        stated = record.outputs[self.file]["sha256"]
        lines = [self.file, f"sha256 {stated} ({_held(self.file, stated)})", *self._branch(record, "", set())]
        return "\n".join([*lines, "", "To rebuild it, in a clone of this repository:", "", self.script()])

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
        words = _typed(record)
        stage, device = record.content["stage"], record.content["run"].get("device")
        if stage == "train" and device:
            words.append(f"--device {'cpu' if device == 'cpu' else 'cuda'}")
        if stage == "data":
            words.append(self._defaults.where(record.content["spec"]["name"]))
        return " ".join(word for word in words if word)

    def _branch(self, record: Record, margin: str, seen: set[str]) -> Iterator[str]:
        body = record.content
        known = record.path in seen
        seen.add(record.path)
        yield f"{margin}└─ {body['stage']}: {undigested(body['outputs'][0]['path'])}{' (see above)' if known else ''}"
        if known:
            return
        inner = f"{margin}   "
        for words in self._facts(record):
            yield f"{inner}│ {words}"
        for source in self.upstream(record):
            yield from self._branch(source, inner, seen)

    def _facts(self, record: Record) -> Iterator[str]:
        body, place = record.content, record.content["environment"]
        code = body["code"]
        yield f"digest {body['digest']}; code {code['digest'][:12]}, commit {(code['commit'] or 'none')[:12]}"
        yield from (f"differs from the default: {change}" for change in self._defaults.changes(body))
        if body["stage"] == "data":
            yield f"source: {body['spec']['source']}" + _sources(body)
        if "seed" in body["spec"]:
            yield f"seed {body['spec']['seed']}"
        if body["run"]:
            yield "run: " + ", ".join(f"{key} {value}" for key, value in sorted(body["run"].items()))
        image = f"image {place['image']['sha256'][:12]}" if place["image"] else "no container"
        yield f"Python {place['python']}, torch {place['packages'].get('torch')}, {place['cpu']}, {image}"


class _Defaults:
    """The settings as committed (params.yaml at HEAD, or as it lies here where there is no git)."""

    def __init__(self) -> None:
        text = at_head("params.yaml") or (Path("params.yaml").read_bytes() if Path("params.yaml").exists() else b"")
        self._params: Params | None = _parsed(text)
        here = _parsed(Path("params.yaml").read_bytes()) if Path("params.yaml").exists() else None
        self._here = Study(here) if here else None
        jobs = Study(self._params) if self._params else ()
        self._specs = {f"{job.stage} {undigested(job.outputs[0])}": job.spec for job in jobs}

    def where(self, dataset: str) -> str:
        """Return the options that say where the bytes of `dataset` lie, as today's params.yaml has them."""
        known = self._here and dataset in self._here.params.datasets
        return self._here.where(dataset) if known else ""

    def changes(self, body: dict[str, Any]) -> Iterator[str]:
        """Yield each setting of a record in which it differs from the default, as `key: default -> value`."""
        if self._params is None:
            return
        spec = body["spec"]
        if body["stage"] == "train":
            yield from differences(self._sections(spec), {key: spec[key] for key in _SECTIONS if key in spec})
            return
        name = f"{body['stage']} {undigested(body['outputs'][0]['path'])}"
        if name in self._specs:
            yield from differences(self._specs[name], spec)
        else:
            yield "there is no such job in the default study"

    def _sections(self, spec: dict[str, Any]) -> dict[str, Any]:
        base = {key: getattr(self._params, key).model_dump() for key in _SECTIONS if key in spec}
        chosen = base["snapshots"]
        chosen["epochs"] = snapshot_epochs(chosen["epochs"], chosen.pop("count"), spec["train"]["epochs"])
        return base


def _commit_of(record: Record, known: Sources) -> str | None:
    """Return the commit that has the code of `record`; None where that is the code of today.

    Raises EqcollapseError where no commit has it: what ran was never committed as it was.
    """
    module, code = STAGES[record.content["stage"]], record.content["code"]
    if code["digest"] == code_digest(module):
        return None
    for commit in dict.fromkeys([code["commit"] or "", *log()]):
        if known.digest(commit, partial(code_digest, module)) == code["digest"]:
            return commit
    raise EqcollapseError(f"{record.path}: no commit here has the code {code['digest'][:12]} that made its outputs")


def _typed(record: Record) -> list[str]:
    """Return the words of the recorded command for a shell; what no command line can hold comes by a pipe."""
    words = [shlex.quote(word) for word in record.content["command"]]
    names = [shlex.quote(path) for path in record.inputs]
    if len(" ".join(words)) < LONGEST:
        return words
    before, after = words[: words.index("--inputs") + 1], words[words.index("--outputs") :]
    return ["printf '%s\\n'", *names, "|", *before, "-", *after]


def _parsed(text: bytes) -> Params | None:
    try:
        return parse(yaml.safe_load(text))
    except (EqcollapseError, yaml.YAMLError):
        return None


def _held(path: str, stated: str) -> str:
    if not os.path.isfile(path):
        return "not here"
    return "as recorded" if content(path).sha256 == stated else "ALTERED"


def _sources(body: dict[str, Any]) -> str:
    """Return the checksums of the source files, which a data set carries in its header, where it is here."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(body["outputs"][0]["path"], framework="numpy") as file:
            header = json.loads(next(iter(file.metadata().values())))
        sources = header["sources"]
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration):
        return ""
    return "".join(f"; {name} sha256 {digest[:16]}" for name, digest in sorted(sources.items()))
