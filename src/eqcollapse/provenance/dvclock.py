"""dvc.yaml and dvc.lock against the files, the settings and each other; hashes are recomputed here, without DVC."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from eqcollapse.provenance import dvc_stages
from eqcollapse.provenance.commits import at_head
from eqcollapse.provenance.findings import Finding
from eqcollapse.provenance.hashing import Content, content, walk
from eqcollapse.runtime.errors import EqcollapseError
from eqcollapse.study.grid import Study

LOCK, STAGES = "dvc.lock", "dvc.yaml"
SCHEMA = "2.0"
REPRO = "run dvc repro"
HELD = ("hash", "md5", "size", "nfiles")
"""What DVC writes of a path."""


Blamed = tuple[Finding, tuple[str, ...]]
"""A finding, and the outs on which it bears."""


def check_lock(found: Mapping[str, Content], config: Mapping[str, Any]) -> tuple[list[Blamed], list[str]]:
    """Check dvc.lock against dvc.yaml, the files (`found`: their contents) and `config`, the study's settings.

    Return what is wrong, each with the outs on which it bears, and what could not be checked.
    """
    if not Path(LOCK).exists():
        if at_head(LOCK) is not None:
            remedy = f"git checkout {LOCK}, or {REPRO}"
            return [(Finding("dvc", LOCK, "as committed", "no such file", remedy), ("results/",))], []
        return [], [f"no {LOCK}: what DVC pins could not be checked (dvc repro writes it)"]
    try:
        if config != yaml.safe_load(Path("params.yaml").read_text()):
            return [], [f"{LOCK} speaks of params.yaml, and another study was audited: it was not checked"]
        lock = yaml.safe_load(Path(LOCK).read_text())
        stages = yaml.safe_load(Path(STAGES).read_text())["stages"]
        blamed = list(_check_stages(lock["stages"], stages, Hashes(found), config))
        if set(lock) != {"schema", "stages"} or lock["schema"] != SCHEMA:
            blamed.append(
                (_finding("schema", f"{SCHEMA!r}, and stages", _shown(_without(lock, "stages"))), ("results/",))
            )
        return blamed, []
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        fault = f"cannot be read ({type(error).__name__})"
        return [(Finding("dvc", LOCK, "what DVC writes, with dvc.yaml beside it", fault, REPRO), ("results/",))], []


def check_stages(study: Study) -> list[Finding]:
    """Check that dvc.yaml has every output of `study` under one stage's outs, and every input under its deps.

    That its params are right takes moving every key of params.yaml: tests/unit/provenance/test_dvc_stages.py does it.
    """
    if not Path(STAGES).exists():
        return []
    try:
        faults = dvc_stages.faults(study, dvc_stages.load(STAGES), {})
    except EqcollapseError as error:
        faults = [str(error)]
    return [Finding("dvc", STAGES, "the files of the jobs that it runs", fault.removeprefix("dvc.yaml: "),
                    "correct dvc.yaml") for fault in faults]  # fmt: skip


def outs() -> set[str]:
    """Return the outs of all stages of dvc.yaml; none where it is not there, or no such file."""
    try:
        return {out for stage in dvc_stages.load(STAGES) for out in stage.outs}
    except EqcollapseError:
        return set()


class Hashes:
    """DVC's hashes of files and folders, from contents that are known already where possible."""

    def __init__(self, found: Mapping[str, Content]):
        self._found = found
        self._ignored = _ignored()
        self._by_folder: dict[str, list[str]] = {}
        for path in found:
            for parent in Path(path).parents:
                self._by_folder.setdefault(str(parent), []).append(path)

    def entry(self, path: str) -> dict[str, Any] | None:
        """Return what DVC 3 writes of the file or folder at `path` (`HELD`); None if there is nothing."""
        path = path.rstrip("/")
        if os.path.isdir(path):
            return {"hash": "md5", **self._of_folder(path)}
        held = self._content(path)
        return {"hash": "md5", "md5": held.md5, "size": held.bytes} if held else None

    def _content(self, path: str) -> Content | None:
        if path in self._found:
            return self._found[path]
        return content(path) if os.path.isfile(path) else None

    def _of_folder(self, folder: str) -> dict[str, Any]:
        inside = self._by_folder.get(folder) or list(walk([folder]))
        held = {path: self._content(path) for path in inside if not self._ignored(path)}
        known = {os.path.relpath(path, folder): content for path, content in held.items() if content}
        listed = [{"md5": known[name].md5, "relpath": name} for name in sorted(known)]
        digest = hashlib.md5(json.dumps(listed, sort_keys=True).encode(), usedforsecurity=False).hexdigest()
        size = sum(content.bytes for content in known.values())
        return {"md5": f"{digest}.dir", "size": size, "nfiles": len(known)}


def _ignored() -> Callable[[str], bool]:
    """Return the test of .dvcignore, and of what DVC never looks at."""
    from pathspec import PathSpec

    lines = Path(".dvcignore").read_text().splitlines() if Path(".dvcignore").exists() else []
    return PathSpec.from_lines("gitwildmatch", [*lines, ".git", ".hg", ".dvc", ".gitignore"]).match_file


def _check_stages(lock: Mapping, stages: Mapping, hashes: Hashes, config: Mapping) -> Iterator[Blamed]:
    for name in {**stages, **lock}:
        if name not in lock or name not in stages:
            expected, found = ("an entry", "none") if name in stages else ("no entry", "an entry")
            yield _finding(name, f"{expected}, as in dvc.yaml", found), _outs(stages.get(name) or {})
        else:
            for finding in _check_stage(name, lock[name], stages[name], hashes, config):
                yield finding, _outs(stages[name])


def _check_stage(name: str, locked: Mapping, stage: Mapping, hashes: Hashes, config: Mapping) -> Iterator[Finding]:
    if locked.get("cmd") != stage.get("cmd"):
        yield _finding(f"{name}: cmd", str(stage.get("cmd")), str(locked.get("cmd")))
    for part in ("deps", "outs"):
        entries = {entry["path"]: entry for entry in locked.get(part, [])}
        wanted = _paths(stage, part)
        yield from _unlisted(f"{name}: {part}", wanted, set(entries))
        for path in sorted(wanted & set(entries)):
            now, pinned = hashes.entry(path), {key: entries[path].get(key) for key in HELD if key in entries[path]}
            if now != pinned:
                yield _finding(f"{name}: {part}: {path}", _shown(now) if now else "no such path", _shown(pinned))
        if len(entries) != len(locked.get(part, [])):
            yield _finding(f"{name}: {part}", "each path once", "one twice")
    yield from _unlisted(f"{name}: params", {"params.yaml"} & {*locked.get("params", {})}, {*locked.get("params", {})})
    params = locked.get("params", {}).get("params.yaml", {})
    entries = stage.get("params", [])
    wanted = {key for entry in entries for key in ([entry] if isinstance(entry, str) else config)}  # a file: all of it
    yield from _unlisted(f"{name}: params", wanted, set(params))
    for key in sorted(wanted & set(params)):
        now = _leaf(config, key)
        if now != params[key]:
            yield _finding(f"{name}: params: {key}", _shown(now), _shown(params[key]))


def _unlisted(where: str, wanted: set[str], listed: set[str]) -> Iterator[Finding]:
    for key in sorted(wanted ^ listed):
        expected, found = ("listed", "not there") if key in wanted else ("not listed", "there")
        yield _finding(f"{where}: {key}", f"{expected}, as in dvc.yaml", found)


def _finding(where: str, expected: str, found: str) -> Finding:
    return Finding("dvc", LOCK, f"{where}: {expected}", found, REPRO)


def _outs(stage: Mapping) -> tuple[str, ...]:
    return tuple(sorted(_paths(stage, "outs")))


def _paths(stage: Mapping, part: str) -> set[str]:
    """Return the paths of a stage's deps or outs (metrics and plots are outs too), with or without options."""
    names = ("outs", "metrics", "plots") if part == "outs" else (part,)
    entries = [entry for name in names for entry in stage.get(name, [])]
    return {next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries}


def _without(mapping: Mapping, key: str) -> dict:
    return {name: value for name, value in mapping.items() if name != key}


def _leaf(config: Any, key: str) -> Any:
    for name in key.split("."):
        config = config.get(name) if isinstance(config, Mapping) else None
    return config


def _shown(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return text if len(text) <= 120 else f"{text[:117]}..."
