"""Writing so that a killed process leaves no half file under a final name."""

import errno
import glob
import hashlib
import os
import re
import shutil
import socket
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from eqcollapse.runtime.errors import EqcollapseError

LONGEST = 86400.0
"""Seconds after which what a process elsewhere has begun to write is taken for left: no file takes a day."""


@contextmanager
def replacing(path: str | Path, needed: int | None = None) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success sync it and rename it to `path`, else remove it.

    What killed processes left of the same file goes, too: nothing else would ever remove it.
    Raises EqcollapseError where the disk is full; `needed` is what the file takes, in bytes, where that is known.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{_place()}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_left(path)
        yield temporary
        os.chmod(temporary, 0o666 & ~_umask())  # safetensors' own is readable by its owner alone
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    except Exception as error:
        if not _is_full(error):
            raise
        written = temporary.stat().st_size if temporary.exists() else 0
        temporary.unlink(missing_ok=True)
        raise EqcollapseError(_full(path, f"{needed}" if needed else f"more than {written}")) from error
    finally:
        temporary.unlink(missing_ok=True)


def _remove_left(path: Path) -> None:
    """Remove the temporary files of `path` whose process is gone; one that may be written elsewhere, after a day."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        place, _, pid = left.name.removesuffix(".partial").removeprefix(f".{path.name}.").rpartition(".")
        try:
            gone = place == _place() and not _is_alive(int(pid))
            if gone or time.time() - left.stat().st_mtime > LONGEST:
                left.unlink(missing_ok=True)
        except (OSError, ValueError):
            continue


@cache
def _place() -> str:
    """Return what stands for this host and its set of process numbers (of a container), in eight digits."""
    try:
        numbers = os.readlink("/proc/self/ns/pid")
    except OSError:
        numbers = ""
    return hashlib.sha256(f"{socket.gethostname()} {numbers}".encode()).hexdigest()[:8]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        return True
    return True


def _umask() -> int:
    """Return the process's umask, which can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _is_full(error: BaseException | None) -> bool:
    """Whether a full disk is what led to `error`: torch says so in its context alone, safetensors in words."""
    if error is None:
        return False
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return "os error 28" in str(error) or _is_full(error.__cause__ or error.__context__)


def _full(path: Path, needed: str) -> str:
    folder = next(folder for folder in path.parents if folder.exists())
    free = shutil.disk_usage(folder).free
    return f"{path}: no room left on this disk: {needed} bytes are needed, {free} are free; make room, and run again"


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write `content` to `path` by way of `replacing`."""
    with replacing(path, needed=len(content)) as temporary:
        temporary.write_bytes(content)


def write_text(path: str | Path, content: str) -> None:
    """Write `content` as UTF-8 to `path` by way of `replacing`; line ends stay as they are."""
    write_bytes(path, content.encode())


def write_named(path: str | Path, content: str) -> None:
    """Write `content` as UTF-8 to an output that a person names, as Unix tools do.

    Links are followed. A pipe, a device or an open descriptor (/dev/stdout, /dev/fd/63) is written to; it is never
    replaced. An ordinary file is replaced as by `write_text`.
    """
    descriptor = _descriptor(path)
    if descriptor is not None:
        sys.stdout.flush()
        with open(os.dup(descriptor), "wb") as stream:
            stream.write(content.encode())
    elif _is_special(path):
        with open(path, "wb") as stream:
            stream.write(content.encode())
    else:
        write_text(os.path.realpath(path), content)


def _descriptor(path: str | Path) -> int | None:
    """Return the open descriptor that `path` stands for, or None: opened by its name, a file would be cut off."""
    name = {"/dev/stdout": "/dev/fd/1", "/dev/stderr": "/dev/fd/2"}.get(str(path), str(path))
    found = re.fullmatch(r"/(?:dev|proc/self)/fd/(\d{1,9})", name)
    return int(found[1]) if found else None


def _is_special(path: str | Path) -> bool:
    """Whether `path`, its links followed, is there and is neither an ordinary file nor a folder."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
