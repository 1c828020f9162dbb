"""One job at a time makes a result: a job that outlived its killed Snakemake, and the one that the next run starts.

The lock is the kernel's, on a file by the name of the job's record, and goes with its process, however that ends. Where
a file system knows no locks, or they do not reach another host (or outlive it), both write side by side: whole files,
the same bytes.
"""

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

JOB_LOCKS = Path(".snakemake/eqcollapse/jobs")
PATIENCE = 600.0
"""Seconds to wait for a job of another host: of a host's death, a file server that keeps its locks may never hear."""


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
        _sign(stream, record)
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
        return processes.checked(json.loads(signature.partition(b"\n")[2])) or {}
    except (ValueError, RecursionError):
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
            if time.monotonic() > end and f" on {socket.gethostname()} is " not in _signed(stream):
                raise TimeoutError from None
            time.sleep(0.1)


def _is_at(stream: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(stream.fileno()), os.stat(path))
    except OSError:  # on a network's file system, a file that another host removed is a stale one
        return False


def _sign(stream: IO[str], record: str) -> None:
    mine = processes.note()
    signature = f"process {mine['pid']} on {mine['host']} is making what {record} tells of\n{json.dumps(mine)}"
    with suppress(OSError):  # a full disk, which a buffer would remember, and say again as it is closed
        stream.truncate(0)
        os.write(stream.fileno(), signature.encode())


def _signed(stream: IO[str]) -> str:
    stream.seek(0)
    return " ".join(stream.readline(1000).split()) or "another process is making the same"
