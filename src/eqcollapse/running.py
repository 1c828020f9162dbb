"""Which runs are under way in this folder: nothing may be moved under them.

Two things say so. A lock of the kernel's on `GUARD`, which every Snakemake process holds from the parsing of the
Snakefile to its end, shared, and which one that moves files holds alone: it goes with the process, however that ends.
And Snakemake's own lock, which outlives a killed process, but is good on file systems on which the kernel's lock
does not reach the other hosts. So that the lock of a dead run can be told from that of a live one, a run notes who it
is once it has Snakemake's lock.
"""

import fcntl
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from eqcollapse.atomic import write_text

FOLDER = Path(".snakemake/eqcollapse")
GUARD = FOLDER / "guard"
LOCKS = Path(".snakemake/locks")


class Guard:
    """The kernel's lock on this folder, held until the process ends."""

    def __init__(self) -> None:
        FOLDER.mkdir(parents=True, exist_ok=True)
        self._stream = open(GUARD, "a")  # noqa: SIM115  (open for as long as the process lives)

    def alone(self, patience: float = 3.0) -> bool:
        """Return whether no other process holds the lock, waiting up to `patience` seconds for that.

        Where the file system knows no locks, Snakemake's own lock has to do.
        """
        end = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                if time.monotonic() > end:
                    return False
                time.sleep(0.1)
            except OSError:
                return True

    def share(self) -> None:
        """Hold the lock together with others that move nothing."""
        try:
            fcntl.flock(self._stream, fcntl.LOCK_SH)
        except OSError:
            pass


def locked() -> bool:
    """Return whether a run holds Snakemake's lock here, after dropping the locks of runs that are dead.

    A lock is dropped only if every run that noted itself was on this host and is gone, and none of the locks is
    younger than the last note: that one is a run's which has not come to note itself yet. The caller is `alone`.
    """
    notes = _notes()
    locks = _locks()
    if locks and notes and all(_is_dead(note) for note in notes.values()):
        last = max(note.stat().st_mtime_ns for note in notes)
        if all(lock.stat().st_mtime_ns <= last for lock in locks):
            for lock in locks:
                lock.unlink(missing_ok=True)
            locks = []
    if not locks:  # the notes were read before: whoever wrote one of them has given its lock back
        for note in notes:
            note.unlink(missing_ok=True)
    return bool(locks)


def note_owner() -> None:
    """Note this process as a holder of Snakemake's lock; called from `onstart`, where the lock is held."""
    note = {"host": _host(), "pid": os.getpid(), "started": _started(os.getpid())}
    write_text(FOLDER / f"owner-{socket.gethostname()}-{os.getpid()}.json", json.dumps(note))


def described() -> str:
    """Return who is running here, as far as the notes say."""
    notes = [note for note in _notes().values() if note and not _is_dead(note)]
    return ", ".join(f"process {note['pid']} on {note['host'].split()[0]}" for note in notes) or "another Snakemake"


def _locks() -> list[Path]:
    return sorted(LOCKS.glob("*.lock")) if LOCKS.is_dir() else []


def _notes() -> dict[Path, dict[str, Any] | None]:
    """Return the notes of all runs, None for one that cannot be read."""
    return {path: _read(path) for path in sorted(FOLDER.glob("owner-*.json"))}


def _read(path: Path) -> dict[str, Any] | None:
    try:
        note = json.loads(path.read_text())
        return note if {"host", "pid", "started"} <= note.keys() else None
    except (OSError, ValueError, AttributeError):
        return None


def _is_dead(note: dict[str, Any] | None) -> bool:
    return note is not None and note["host"] == _host() and _started(note["pid"]) != note["started"]


def _host() -> str:
    """Return what tells this machine, in this boot and in this set of process numbers, from every other."""
    return " ".join([socket.gethostname(), _said("/proc/sys/kernel/random/boot_id"), _linked("/proc/self/ns/pid")])


def _said(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return "-"


def _linked(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return "-"


def _started(pid: int) -> str | None:
    """Return when process `pid` started (clock ticks since boot), None if it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]
