"""Writing so that a killed process leaves no half file under a final name."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eqcollapse.errors import EqcollapseError


@contextmanager
def replacing(path: str | Path, needed: int | None = None) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success sync it and rename it to `path`, else remove it.

    Raises EqcollapseError where the disk is full; `needed` is what the file takes, in bytes, where that is known.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
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


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
