"""What the fault suite shares: its size and seed, bounds of memory and time, and a tree's state before and after."""

import hashlib
import os
import random
import resource
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

REDUCED = os.environ.get("EQCOLLAPSE_FAULTS", "full") == "reduced"
SEED = int(os.environ.get("EQCOLLAPSE_FAULTS_SEED") or (0 if REDUCED else random.SystemRandom().randrange(10**6)))
"""Of all draws; another one each time in full, the same one in CI. It is printed, and can be given."""


full_only = pytest.mark.skipif(REDUCED, reason="minutes: in the full suite (make faults)")
"""Marks what takes minutes: CI runs the rest."""


def size(full: Any, reduced: Any) -> Any:
    """Return how much of something to do."""
    return reduced if REDUCED else full


def draws(name: str) -> random.Random:
    """Return the random numbers of the test `name`."""
    print(f"EQCOLLAPSE_FAULTS_SEED={SEED}")
    return random.Random(f"{SEED} {name}")


@contextmanager
def bounded(*, seconds: int, memory: int = 1 << 30) -> Iterator[None]:
    """Fail when the block takes longer, and let it have only so many bytes of memory more than there are now."""
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)

    def late(number: int, frame: object) -> None:
        raise AssertionError(f"took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    resource.setrlimit(resource.RLIMIT_AS, (held + memory, hard))
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def tree(folder: Path) -> dict[str, str]:
    """Return the sha256 of every file under `folder`, by path."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def jobs(process: subprocess.Popen) -> list[int]:
    """Return the jobs that `process` has under way."""
    found = []
    for pid in descendants(process.pid):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0].endswith(b"python") and b"eqcollapse" in words[:4]:
            found.append(pid)
    return found


def descendants(pid: int) -> list[int]:
    """Return all processes that `pid` started and that they started."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
            parents.setdefault(parent, []).append(int(entry.name))
    found, waiting = [], [pid]
    while waiting:
        children = parents.get(waiting.pop(), [])
        found += children
        waiting += children
    return found
