"""Where one file comes from: the answer on a page, or the whole chain as a tree."""

import json
import os
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from eqcollapse.provenance.chain import Chain, cells_of, study_of
from eqcollapse.provenance.commits import at_head
from eqcollapse.provenance.hashing import content
from eqcollapse.provenance.reading import Record, undigested
from eqcollapse.provenance.staleness import differences
from eqcollapse.study.grid import snapshot_epochs
from eqcollapse.study.options import completed
from eqcollapse.study.params import Params

MOST = 30
"""Lines of a list that the answer prints; `tree` has all."""
_SECTIONS = ("network", "equilibrium", "train", "snapshots")


def answer(chain: Chain) -> str:
    """Return what people ask of a file: its data, settings, code and image, how to rebuild it, the cells it shows."""
    shows = cells_of(chain.record.content["spec"])
    everything = chain.jobs()
    jobs = chain.jobs(lambda record: record.content["stage"] != "train" or shows is None or shows(record))
    defaults = _Defaults()
    cells = [record for record in jobs if record.content["stage"] == "train"]
    trained = sum(record.content["stage"] == "train" for record in everything)
    lines = [*_heading(chain), ""]
    lines += _entry("data", (_data(record) for record in jobs if record.content["stage"] == "data"))
    lines += _entry("settings", defaults.summary(jobs))
    lines += _entry("code", _code(everything))
    lines += _entry("made by", _environments(everything))
    lines += _entry("rebuild", _rebuild(chain, defaults, everything))
    if cells:
        of = f"the {len(cells)} that it shows, of {trained} behind it" if len(cells) < trained else f"{len(cells)}"
        lines += ["", f"cells ({of}):", *_cut([f"  {_place(record)}" for record in cells])]
    others = [_place(record) for record in jobs if record.content["stage"] not in ("train", "data")][:-1]
    if others:
        lines += ["", "also read:", *_cut([f"  {path}" for path in others])]
    return "\n".join([*lines, "", "The whole chain, each job with its settings and command: --all"])


def tree(chain: Chain) -> str:
    """Return the whole chain as a tree, with the commands that rebuild the file."""
    lines = [*_heading(chain), *_branch(chain, chain.record, _Defaults(), "", set())]
    return "\n".join([*lines, "", "To rebuild it, in a clone of this repository:", "", chain.script()])


def _heading(chain: Chain) -> list[str]:
    stated = chain.record.outputs[chain.file]["sha256"]
    return [chain.file, f"sha256 {stated} ({_held(chain.file, stated)})"]


def _entry(name: str, lines: Iterable[str]) -> list[str]:
    """Return an entry of the answer: its name, and a line or more beside it."""
    return [f"{name if not number else '':<10}{line}" for number, line in enumerate(_cut(list(lines)))]


def _cut(lines: list[str]) -> list[str]:
    return lines if len(lines) <= MOST else [*lines[:MOST], f"  and {len(lines) - MOST} more"]


def _place(record: Record) -> str:
    """Return the folder or file of a job's outputs, with its digest."""
    path = record.content["outputs"][0]["path"]
    folder = os.path.dirname(path)
    return folder if "@" in folder else path


def _data(record: Record) -> str:
    return f"{_place(record)}, source {record.content['spec']['source']}{_sources(record.content)}"


def _code(jobs: list[Record]) -> Iterator[str]:
    commits = Counter(record.content["code"]["commit"] or "none" for record in jobs)
    for commit, number in commits.most_common():
        yield f"commit {commit}" + (f" ({number} of {len(jobs)} jobs)" if len(commits) > 1 else "")


def _environments(jobs: list[Record]) -> Iterator[str]:
    places = Counter(_environment(record) for record in jobs)
    for place, number in places.most_common():
        yield place + (f" ({number} of {len(jobs)} jobs)" if len(places) > 1 else "")


def _environment(record: Record) -> str:
    place = record.content["environment"]
    image = f"image {place['image']['sha256'][:12]}" if place["image"] else "no container"
    return f"Python {place['python']}, torch {place['packages'].get('torch')}, {place['cpu']}, {image}"


def _rebuild(chain: Chain, defaults: "_Defaults", jobs: list[Record]) -> Iterator[str]:
    """Yield the command that rebuilds the file in a clone: Snakemake's, where what is committed asks for this file."""
    file = shlex.quote(chain.file)
    if defaults.ask_for(chain.record):
        yield f"snakemake --cores all {file}    # in a clone of HEAD"
        return
    yield f"python -m eqcollapse explain --commands {file} > rebuild.sh    # here, then in a clone: sh rebuild.sh"
    yield f"({len(jobs)} commands: params.yaml and the code at HEAD do not ask for this file as it is)"


def _branch(chain: Chain, record: Record, defaults: "_Defaults", margin: str, seen: set[str]) -> Iterator[str]:
    known = record.path in seen
    seen.add(record.path)
    yield f"{margin}└─ {record.content['stage']}: {_place(record)}{' (see above)' if known else ''}"
    if known:
        return
    inner = f"{margin}   "
    for words in _facts(record, defaults):
        yield f"{inner}│ {words}"
    for source in chain.upstream(record):
        yield from _branch(chain, source, defaults, inner, seen)


def _facts(record: Record, defaults: "_Defaults") -> Iterator[str]:
    body = record.content
    code = body["code"]
    yield f"digest {body['digest']}; code {code['digest'][:12]}, commit {(code['commit'] or 'none')[:12]}"
    yield from (f"differs from the default: {change}" for change in defaults.changes(body))
    if body["stage"] == "data":
        yield f"source: {body['spec']['source']}" + _sources(body)
    if "seed" in body["spec"]:
        yield f"seed {body['spec']['seed']}"
    if body["run"]:
        yield "run: " + ", ".join(f"{key} {value}" for key, value in sorted(body["run"].items()))
    yield _environment(record)


class _Defaults:
    """The settings as committed (params.yaml at HEAD, or as it lies here where there is no git)."""

    def __init__(self) -> None:
        text = at_head("params.yaml") or (Path("params.yaml").read_bytes() if Path("params.yaml").exists() else b"")
        self._study = study_of(text)
        self._jobs = {f"{job.stage} {undigested(job.outputs[0])}": job for job in self._study or ()}

    def ask_for(self, record: Record) -> bool:
        """Whether today's code with the committed settings makes just what `record` speaks of."""
        job = self._jobs.get(record.name)
        return job is not None and job.digest == record.content["digest"]

    def summary(self, jobs: list[Record]) -> Iterator[str]:
        """Yield in what the settings of `jobs` differ from the committed ones; each difference once, and of whom."""
        if self._study is None:
            yield "there is no params.yaml here to compare them with"
            return
        owners: dict[str, dict[str, None]] = {}
        for record in jobs:
            for change in self.changes(record.content):
                owners.setdefault(change, {})[_owner(record)] = None
        if not owners:
            yield "those of params.yaml as committed"
            return
        yield "those of params.yaml as committed, but"
        for change, names in owners.items():
            few = list(names)[:3]
            more = f" and {len(names) - len(few)} more" if len(names) > len(few) else ""
            yield f"  {', '.join(few)}{more}: {change}"

    def changes(self, body: dict[str, Any]) -> Iterator[str]:
        """Yield each setting of a record in which it differs from the default, as `key: default -> value`."""
        if self._study is None:
            return
        spec = body["spec"]
        if body["stage"] == "train":
            yield from differences(
                _sections(self._study.params, spec), {key: spec[key] for key in _SECTIONS if spec.get(key)}
            )
            yield from (f"own code: {file} {digest}" for file, digest in spec.get("own", {}).items())
            return
        job = self._jobs.get(f"{body['stage']} {undigested(body['outputs'][0]['path'])}")
        if job:
            yield from differences(job.settings, spec)
        else:
            yield "there is no such job in the default study"


def _sections(params: Params, spec: dict[str, Any]) -> dict[str, Any]:
    base = completed({key: getattr(params, key).model_dump() for key in _SECTIONS if spec.get(key)})
    chosen = base["snapshots"]
    chosen["epochs"] = snapshot_epochs(chosen["epochs"], chosen.pop("count"), spec["train"]["epochs"])
    return base


def _owner(record: Record) -> str:
    """Return whose a setting is: of a model, whatever its cells, or of a file without its digest."""
    spec = record.content["spec"]
    return f"model {spec['model']}" if record.content["stage"] == "train" else undigested(_place(record)).rstrip("@")


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
