"""dvc.yaml and dvc.lock against the files, the settings and each other; hashes are recomputed here, without DVC."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from eqcollapse import versioning
from eqcollapse.errors import EqcollapseError
from eqcollapse.provenance.findings import Finding
from eqcollapse.provenance.hashing import Content, content, walk
from eqcollapse.study import Study

LOCK, STAGES = "dvc.lock", "dvc.yaml"
REPRO = "run dvc repro"


Blamed = tuple[Finding, tuple[str, ...]]
"""A finding, and the outs on which it bears."""


def check(found: Mapping[str, Content], config: Mapping[str, Any]) -> tuple[list[Blamed], list[str]]:
    """Check dvc.lock against dvc.yaml, the files (`found`: their contents) and `config`, the study's settings.

    Return what is wrong, each with the outs on which it bears, and what could not be checked.
    """
    if not Path(LOCK).exists():
        return [], [f"no {LOCK}: what DVC pins could not be checked (dvc repro writes it)"]
    try:
        if config != yaml.safe_load(Path("params.yaml").read_text()):
            return [], [f"{LOCK} speaks of params.yaml, and another study was audited: it was not checked"]
        lock = yaml.safe_load(Path(LOCK).read_text())["stages"]
        stages = yaml.safe_load(Path(STAGES).read_text())["stages"]
        return list(_check_stages(lock, stages, Hashes(found), config)), []
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        fault = f"cannot be read ({type(error).__name__})"
        return [(Finding("dvc", LOCK, "what DVC writes, with dvc.yaml beside it", fault, REPRO), ("results/",))], []


def check_stages(study: Study) -> list[Finding]:
    """Check that dvc.yaml has every output of `study` under one stage's outs, and every input under its deps.

    That its params are right takes moving every key of params.yaml, which tests/unit/test_versioning.py does.
    """
    if not Path(STAGES).exists():
        return []
    try:
        faults = versioning.faults(study, versioning.load(STAGES), {})
    except EqcollapseError as error:
        faults = [str(error)]
    return [Finding("dvc", STAGES, "the files of the jobs that it runs", fault.removeprefix("dvc.yaml: "),
                    "correct dvc.yaml") for fault in faults]  # fmt: skip


class Hashes:
    """DVC's hashes of files and folders, from contents that are known already where possible."""

    def __init__(self, found: Mapping[str, Content]):
        self._found = found
        self._ignored = _ignored()
        self._by_folder: dict[str, list[str]] = {}
        for path in found:
            for parent in Path(path).parents:
                self._by_folder.setdefault(str(parent), []).append(path)

    def md5(self, path: str) -> str | None:
        """Return what DVC 3 writes as the md5 of the file or folder at `path`; None if there is nothing."""
        path = path.rstrip("/")
        if os.path.isdir(path):
            return self._folder_md5(path)
        if path in self._found:
            return self._found[path].md5
        return content(path).md5 if os.path.exists(path) else None

    def _folder_md5(self, folder: str) -> str:
        inside = self._by_folder.get(folder) or list(walk([folder]))
        kept = [path for path in inside if not self._ignored(path)]
        listed = [{"md5": self.md5(path), "relpath": os.path.relpath(path, folder)} for path in kept]
        listed.sort(key=lambda entry: entry["relpath"])
        return hashlib.md5(json.dumps(listed, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"


def _ignored():
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
            now, pinned = hashes.md5(path), entries[path].get("md5")
            if now != pinned:
                yield _finding(f"{name}: {part}: {path}", f"md5 {now}" if now else "no such path", f"md5 {pinned}")
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


def _leaf(config: Any, key: str) -> Any:
    for name in key.split("."):
        config = config.get(name) if isinstance(config, Mapping) else None
    return config


def _shown(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return text if len(text) <= 120 else f"{text[:117]}..."
