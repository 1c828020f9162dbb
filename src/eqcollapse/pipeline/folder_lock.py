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
import time
from pathlib import Path
from typing import Any

from eqcollapse.runtime import processes
from eqcollapse.runtime.files import write_text

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
            return


def locked() -> bool:
    """Return whether a run holds Snakemake's lock here, after dropping the locks of runs that are dead.

    Locks are dropped only if whoever noted itself here is dead. The caller is `alone`, and has not noted itself yet.
    """
    notes = _notes()
    locks = _locks()
    if locks and notes and all(processes.is_dead(note) for note in notes.values()):
        for lock in locks:
            lock.unlink(missing_ok=True)
        locks = []
    if not locks:
        for path, note in notes.items():
            if processes.is_dead(note):
                path.unlink(missing_ok=True)
    return bool(locks)


def note_owner(plan: str) -> None:
    """Note this process, whose run has the frozen `plan`, as one that may come to hold Snakemake's lock.

    The note goes when the process ends well. It has a name of its own: a dead process, or a live one elsewhere, may
    have had the same number.
    """
    mine = processes.note()
    content = json.dumps({**mine, "plan": plan})
    named = json.dumps({key: value for key, value in mine.items() if key != "written"})
    name = hashlib.sha256(named.encode()).hexdigest()[:10]
    path = FOLDER / f"owner-{mine['host']}-{mine['pid']}-{name}.json"
    if not path.exists():
        write_text(path, content)
        atexit.register(path.unlink, missing_ok=True)


def plans_under_way() -> list[str]:
    """Return the frozen plans of the runs here that are not dead for sure, the longest under way first; only looks."""
    notes = [note for note in _notes().values() if note and not processes.is_dead(note)]
    plans = [note.get("plan") for note in sorted(notes, key=lambda note: note["written"])]
    return [plan for plan in plans if isinstance(plan, str)]


def who_works() -> str:
    """Return who is running here, as far as the notes say."""
    notes = [note for note in _notes().values() if note and not processes.is_dead(note) and note["pid"] != os.getpid()]
    return ", ".join(f"process {note['pid']} on {note['host']}" for note in notes) or "another Snakemake"


def _locks() -> list[Path]:
    return sorted(LOCKS.glob("*.lock")) if LOCKS.is_dir() else []


def _notes() -> dict[Path, dict[str, Any] | None]:
    """Return the notes of all runs, None for one that cannot be read."""
    return {path: _read(path) for path in sorted(FOLDER.glob("owner-*.json"))}


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return processes.checked(json.loads(path.read_text()))
    except (OSError, ValueError, RecursionError):
        return None
