"""Which runs are under way in this folder: nothing may be moved under them.

Two things say so. A lock of the kernel's on `GUARD`, which every Snakemake process holds from the parsing of the
Snakefile to its end, shared, and which one that moves files holds alone: it goes with the process, however that ends.
And Snakemake's own lock, which outlives a killed process, but is good on file systems on which the kernel's lock
does not reach the other hosts. So that the lock of a dead run can be told from that of a live one, a run notes who it
is before it can have Snakemake's lock.
"""

import atexit
import fcntl
import hashlib
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from eqcollapse.runtime.files import write_text

FOLDER = Path(".snakemake/eqcollapse")
GUARD = FOLDER / "guard"
LOCKS = Path(".snakemake/locks")
_KEYS = {"host", "machine", "boot", "processes", "pid", "started"}


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
            return


def locked() -> bool:
    """Return whether a run holds Snakemake's lock here, after dropping the locks of runs that are dead.

    Locks are dropped only if whoever noted itself here is dead. The caller is `alone`, and has not noted itself yet.
    """
    notes = _notes()
    locks = _locks()
    if locks and notes and all(_is_dead(note) for note in notes.values()):
        for lock in locks:
            lock.unlink(missing_ok=True)
        locks = []
    if not locks:
        for path, note in notes.items():
            if _is_dead(note):
                path.unlink(missing_ok=True)
    return bool(locks)


def note_owner() -> None:
    """Note this process as one that may come to hold Snakemake's lock; the note goes when the process ends well.

    The note has a name of its own: a dead process, or a live one elsewhere, may have had the same number.
    """
    mine = {**_here(), "pid": os.getpid(), "started": _started(os.getpid())}
    name = hashlib.sha256(json.dumps(mine).encode()).hexdigest()[:10]
    path = FOLDER / f"owner-{mine['host']}-{mine['pid']}-{name}.json"
    if not path.exists():
        write_text(path, json.dumps({**mine, "written": time.time()}))
        atexit.register(path.unlink, missing_ok=True)


def who_works() -> str:
    """Return who is running here, as far as the notes say."""
    notes = [note for note in _notes().values() if note and not _is_dead(note) and note["pid"] != os.getpid()]
    return ", ".join(f"process {note['pid']} on {note['host']}" for note in notes) or "another Snakemake"


def _locks() -> list[Path]:
    return sorted(LOCKS.glob("*.lock")) if LOCKS.is_dir() else []


def _notes() -> dict[Path, dict[str, Any] | None]:
    """Return the notes of all runs, None for one that cannot be read."""
    return {path: _read(path) for path in sorted(FOLDER.glob("owner-*.json"))}


def _read(path: Path) -> dict[str, Any] | None:
    try:
        note = json.loads(path.read_text())
        return {**note, "written": float(note.get("written", "inf"))} if note.keys() >= _KEYS else None
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def _is_dead(note: dict[str, Any] | None) -> bool:
    """Return whether the process of `note` is gone for sure: of a process elsewhere, nothing is sure."""
    here = _here()
    if note is None or (note["host"], note["machine"]) != (here["host"], here["machine"]):
        return False
    if note["boot"] != here["boot"]:
        known = bool(here["machine"] and here["boot"] and note["boot"])
        # This machine was started anew since. A note from after that is another machine's, of the same names.
        return known and note["written"] < _booted()
    return note["processes"] == here["processes"] and _started(note["pid"]) != note["started"]


def _here() -> dict[str, str]:
    """Return what tells this machine, this boot and this set of process numbers (of a container) from all others."""
    return {
        "host": socket.gethostname(),
        "machine": _said("/etc/machine-id"),
        "boot": _said("/proc/sys/kernel/random/boot_id"),
        "processes": _linked("/proc/self/ns/pid"),
    }


def _booted() -> float:
    """Return when this machine was started, in seconds since the epoch; 0, before every note, if it does not say."""
    for line in _said("/proc/stat").splitlines():
        if line.startswith("btime "):
            return float(line.split()[1])
    return 0.0


def _said(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _linked(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _started(pid: int) -> str | None:
    """Return when process `pid` started (clock ticks since boot), None if it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]
