"""One job at a time makes a result: a job that outlived its killed Snakemake, and the one that the next run starts.

The lock is the kernel's, on a file by the name of the job's record, and goes with its process, however that ends. Where
a file system knows no locks, or they do not reach another host, both write side by side: whole files, the same bytes.
"""

import fcntl
import hashlib
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

FOLDER = Path(".snakemake/eqcollapse/jobs")


@contextmanager
def alone(record: str) -> Iterator[bool]:
    """Be the only process that makes what `record` tells of; yield whether another one was at it and had to end first.

    Says in a line of stderr whom it waits for.
    """
    path = FOLDER / hashlib.sha256(record.encode()).hexdigest()[:16]
    try:
        FOLDER.mkdir(parents=True, exist_ok=True)
        stream, waited = _locked(path, record)
    except OSError:  # nothing can be locked here
        yield False
        return
    with stream:
        _sign(stream, record)
        try:
            yield waited
        finally:
            path.unlink(missing_ok=True)


def under_way() -> list[str]:
    """Return who makes what here, in words; what dead processes left of their locks goes."""
    found = []
    for path in sorted(FOLDER.glob("*")):
        with suppress(OSError), open(path, "a+") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_at(stream, path):
                    path.unlink()
            except BlockingIOError:
                found.append(_signed(stream))
    return found


def _locked(path: Path, record: str) -> tuple[IO[str], bool]:
    """Return the open file at `path` with the lock on it, and whether that had to be waited for."""
    waited = False
    while True:
        stream = open(path, "a+")  # noqa: SIM115  (the caller closes it)
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waited = True
            print(f"{_signed(stream)}: waiting for its end", file=sys.stderr, flush=True)
            fcntl.flock(stream, fcntl.LOCK_EX)
        if _is_at(stream, path):
            return stream, waited
        stream.close()  # of one that has ended and taken its file away: another may have made a new one


def _is_at(stream: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(stream.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _sign(stream: IO[str], record: str) -> None:
    with suppress(OSError):  # a full disk
        stream.truncate(0)
        stream.write(f"process {os.getpid()} on {socket.gethostname()} is making what {record} tells of")
        stream.flush()


def _signed(stream: IO[str]) -> str:
    stream.seek(0)
    return " ".join(stream.read(1000).split()) or "another process is making the same"
