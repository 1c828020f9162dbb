"""One run at a time works in a folder, and one job at a time makes a result.

Of a result there may be two: a job that outlived its killed Snakemake, and the one that the next run starts. The locks
are the kernel's, on a file for the folder and one by the name of each job's record. They go with their process, however
that ends. Where a file system knows no locks, or they do not reach another host (or outlive it), two jobs write side by
side: whole files, the same bytes.
"""

import atexit
import fcntl
import hashlib
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from eqcollapse.runtime import processes
from eqcollapse.runtime.errors import EqcollapseError

RUN_LOCK = Path(".snakemake/eqcollapse/run")
JOB_LOCKS = Path(".snakemake/eqcollapse/jobs")
PATIENCE = 600.0
"""Seconds to wait for a job of another host: of a host's death, a file server that keeps its locks may never hear."""


_HELD: list[IO[str]] = []
"""The folder's lock, open for as long as this process lives."""


def hold_folder(plan: str = "") -> None:
    """Be the only run in this folder until this process ends; EqcollapseError where another one is under way.

    A run of another host, which these locks may not reach, is under way until it has ended well. `plan`, a line, is
    what `plan_under_way` returns meanwhile.
    """
    try:
        RUN_LOCK.parent.mkdir(parents=True, exist_ok=True)
        stream = open(RUN_LOCK, "a+", errors="replace")  # noqa: SIM115
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise EqcollapseError(f"{_signed(stream)}: wait for its end") from None
    except OSError:  # nothing can be locked here
        return
    if RUN_LOCK.stat().st_size and _is_elsewhere(stream):
        raise EqcollapseError(f"{_signed(stream)}: wait for its end (or, if it is dead, remove {RUN_LOCK})")
    _sign(stream, "running here", plan)
    _HELD.append(stream)
    atexit.register(release_folder)


def release_folder() -> None:
    """Let other runs work in this folder."""
    while _HELD:
        with _HELD.pop() as stream:
            stream.truncate(0)


def plan_under_way() -> str | None:
    """Return the plan of the run in this folder, unless that is dead for sure; None if there is none. Only looks."""
    try:
        _, note, plan = RUN_LOCK.read_text().split("\n", 2)
        return None if processes.is_dead(processes.checked(json.loads(note))) else plan or None
    except (OSError, ValueError, RecursionError):
        return None


@contextmanager
def alone(record: str) -> Iterator[bool]:
    """Be the only process that makes what `record` tells of; yield whether another one was at it and had to end first.

    Says in a line of stderr whom it waits for.
    """
    path = _path(record)
    try:
        JOB_LOCKS.mkdir(parents=True, exist_ok=True)
        stream, waited = _locked(path)
    except OSError:  # nothing can be locked here, or a dead host holds it
        yield False
        return
    with stream:
        _sign(stream, f"making what {record} tells of")
        try:
            yield waited
        finally:
            with suppress(OSError):  # what was made is made
                if _is_at(stream, path):
                    path.unlink()


def under_way() -> list[str]:
    """Return who makes what here, in words; what dead processes left of their locks goes."""
    found = []
    for path in sorted(JOB_LOCKS.glob("*")):
        with suppress(OSError), open(path, "a+", errors="replace") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_at(stream, path):
                    path.unlink()
            except BlockingIOError:
                found.append(_signed(stream))
    return found


def maker(record: str) -> dict[str, Any] | None:
    """Return the note of the process that makes, or made, what `record` tells of; {} if it left none that can be read,
    None if there is no lock. Only looks: a dead process leaves its lock's file.
    """
    try:
        signature = _path(record).read_bytes()
    except OSError:
        return None
    try:
        return processes.checked(json.loads(signature.split(b"\n")[1])) or {}
    except (IndexError, ValueError, RecursionError):
        return {}


def _path(record: str) -> Path:
    return JOB_LOCKS / hashlib.sha256(record.encode()).hexdigest()[:16]


def _locked(path: Path) -> tuple[IO[str], bool]:
    """Return the open file at `path` with the lock on it, and whether that had to be waited for."""
    waited = False
    while True:
        stream = open(path, "a+", errors="replace")  # noqa: SIM115  (the caller closes it)
        waited |= _lock(stream)
        if _is_at(stream, path):
            return stream, waited
        stream.close()  # of one that has ended and taken its file away: another may have made a new one


def _lock(stream: IO[str]) -> bool:
    """Lock `stream`, and return whether another had it; TimeoutError where a job of another host keeps it too long."""
    end = None
    while True:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return end is not None
        except BlockingIOError:
            if end is None:
                print(f"{_signed(stream)}: waiting for its end", file=sys.stderr, flush=True)
                end = time.monotonic() + PATIENCE
            if time.monotonic() > end and _is_elsewhere(stream):
                raise TimeoutError from None
            time.sleep(0.1)


def _is_at(stream: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(stream.fileno()), os.stat(path))
    except OSError:  # on a network's file system, a file that another host removed is a stale one
        return False


def _sign(stream: IO[str], doing: str, plan: str = "") -> None:
    mine = processes.note()
    signature = f"process {mine['pid']} on {mine['host']} is {doing}\n{json.dumps(mine)}\n{plan}"
    with suppress(OSError):  # a full disk, which a buffer would remember, and say again as it is closed
        stream.truncate(0)
        os.write(stream.fileno(), signature.encode())


def _signed(stream: IO[str]) -> str:
    stream.seek(0)
    return " ".join(stream.readline(1000).split()) or "another process is at the same"


def _is_elsewhere(stream: IO[str]) -> bool:
    """Return whether who signed `stream` is of another host."""
    return f" on {socket.gethostname()} is " not in _signed(stream)
