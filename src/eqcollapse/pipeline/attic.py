"""The attic: what params.yaml does not want now, listed by settings, size and age, and deleted on request."""

import json
import os
import re
import shutil
import time
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from eqcollapse.pipeline.sweep import ATTIC, RECORD, is_in_use
from eqcollapse.runtime.errors import EqcollapseError
from eqcollapse.study.mappings import leaves

_AGE = re.compile(r"(\d+(?:\.\d+)?)([hdw])")
_SECONDS = {"h": 3600.0, "d": 86400.0, "w": 604800.0}
_PINNED = re.compile(r"@[0-9a-f]{10}")


@dataclass(frozen=True)
class Item:
    """What lies aside of one job: its files in the attic, what they were made for, size in bytes, age in seconds."""

    name: str
    stage: str
    spec: dict[str, Any]
    files: tuple[Path, ...]
    size: int
    age: float

    def line(self) -> str:
        """Return the item as a line for people: size, age, name."""
        return f"{_size(self.size):>8}  {_duration(self.age):>4}  {self.stage:<9} {self.name}"


def report(patterns: list[str], *, older_than: str | None = None, delete: bool = False) -> str:
    """List what lies in the attic, or what of it `patterns` and `older_than` choose; delete that on request."""
    least = seconds(older_than) if older_than else 0.0
    every = items()
    told = distinguishing_settings(every)
    chosen = [item for item in every if item.age >= least and _matches(item.name, patterns)]
    if not chosen:
        return f"{ATTIC}: nothing{' of that kind' if every else ''} lies there"
    lines = [f"{item.line()}  {told[item.name]}".rstrip() for item in chosen]
    total = _size(sum(item.size for item in chosen))
    if delete:
        remove(chosen)
    return "\n".join([*lines, f"{len(chosen)} results, {total}{', deleted' if delete else ''}"])


def _matches(name: str, patterns: list[str]) -> bool:
    return not patterns or any(fnmatch(name, pattern) for pattern in patterns)


def items(now: float | None = None) -> list[Item]:
    """Return what lies in the attic, oldest first."""
    now = time.time() if now is None else now
    return sorted(
        (_item(name, files, now) for name, files in _units().items()), key=lambda item: (-item.age, item.name)
    )


def distinguishing_settings(found: list[Item]) -> dict[str, str]:
    """Return, by name, the settings by which items of one stage differ from each other: `train.lr=0.01`."""
    said = {}
    for stage in {item.stage for item in found}:
        flat = {item.name: _flat(item.spec) for item in found if item.stage == stage}
        keys = list(dict.fromkeys(key for values in flat.values() for key in values))
        moved = [key for key in keys if len({values.get(key) for values in flat.values()}) > 1]
        for name, values in flat.items():
            said[name] = " ".join(f"{key}={values[key]}" for key in moved if key in values)
    return said


def remove(chosen: list[Item]) -> None:
    """Delete items from the attic, with the folders that this leaves empty."""
    for item in chosen:
        for file in item.files:
            file.unlink()
        for folder in {file.parent for file in item.files}:
            _remove_empty(folder)


def seconds(text: str) -> float:
    """Return the seconds that `text` names: 12h, 30d, 2w."""
    match = _AGE.fullmatch(text)
    if not match:
        raise EqcollapseError(f"--older-than: {text!r} is not an age: write 12h, 30d or 2w")
    return float(match[1]) * _SECONDS[match[2]]


def _units() -> dict[str, list[Path]]:
    """Group the attic's files by the job that they are of."""
    units: dict[str, list[Path]] = {}
    for folder, folders, names in os.walk(ATTIC):
        links = [name for name in folders if Path(folder, name).is_symlink()]  # which stand for no files of the attic
        for name in (*names, *links):
            path = Path(folder, name)
            if is_in_use(path):
                continue
            units.setdefault(_unit(path.relative_to(ATTIC)), []).append(path)
    return units


def _unit(path: Path) -> str:
    """Return the name of what `path` belongs to: the part up to the digest, or digest and file name for the others."""
    first, *rest = path.parts
    if first.startswith("@"):
        stem = path.name.removesuffix(f".{RECORD}").partition(".")[0]
        return str(Path(*rest).parent / f"{stem}{first}")
    for position, part in enumerate(path.parts):
        if _PINNED.search(part):
            return str(Path(*path.parts[: position + 1])).removesuffix(f".{RECORD}")
    return str(path)


def _item(name: str, files: list[Path], now: float) -> Item:
    record = _record(files)
    states = [file.lstat() for file in files]  # a link may lead nowhere
    size = sum(state.st_size for state in states)
    age = now - max(state.st_mtime for state in states)
    return Item(name, record.get("stage", "?"), record.get("spec", {}), tuple(sorted(files)), size, max(age, 0.0))


def _record(files: list[Path]) -> dict[str, Any]:
    for file in files:
        if file.name.endswith(RECORD):
            try:
                record = json.loads(file.read_text())
                return record if isinstance(record.get("spec"), dict) else {}
            except (OSError, ValueError, AttributeError):
                return {}
    return {}


def _flat(spec: dict[str, Any]) -> dict[str, str]:
    return {".".join(path): json.dumps(value) for path, value in leaves(spec)}


def _remove_empty(folder: Path) -> None:
    while folder != ATTIC.parent and folder.is_dir() and not any(folder.iterdir()):
        shutil.rmtree(folder)
        folder = folder.parent


def _size(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _duration(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:.0f}h" if hours < 48 else f"{hours / 24:.0f}d"
