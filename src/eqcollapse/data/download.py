"""Fetching a file from the mirror or its addresses: resumed after a drop, verified before it gets its name.

Whatever a server does (stalls, drops, wrong ranges, a wrong length, another file), no file of wrong content
gets the final name, and the time is bounded by `Patience`.
"""

import fcntl
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from eqcollapse.runtime.errors import EqcollapseError

from .checksums import check_name, file_digest, gunzip
from .registry import RemoteFile
from .transfer import NO_CONNECTION, AddressError, Patience, TransferError, transfer

PATIENCE = Patience()
_LONGEST_WAIT = 30.0


def is_url(place: str) -> bool:
    """Whether `place` is an http(s) address rather than a path."""
    return place.startswith(("http://", "https://"))


def file_name(url: str) -> str:
    """The name of the file that `url` leads to, "" if it is no address; EqcollapseError if no file may have it."""
    try:
        name = unquote(urlsplit(url).path).rpartition("/")[2]
    except ValueError:
        return ""
    check_name(name, without_password(url))
    return name


def fetch(file: RemoteFile, *, dataset: str, mirror: str | None, cache: Path, patience: Patience = PATIENCE) -> Path:
    """The path of a verified copy of `file`: in the mirror's folder, or else in `cache`/`dataset`.

    In a mirror (a folder or an address) `dataset`/name is looked at before name. Raises EqcollapseError, with
    every place that was tried and why it did not serve, when none does.
    """
    tried = []
    for path in _mirror_paths(file, dataset, mirror):
        reason = mismatch(path, file) if path.is_file() else "no such file"
        if reason is None:
            return path
        tried.append(f"{path}: {reason}")
    kept = cache / dataset / file.name
    kept.parent.mkdir(parents=True, exist_ok=True)
    with _only_one(kept):
        if kept.is_file() and mismatch(kept, file) is None:
            return kept
        partial = kept.with_name(kept.name + ".partial")
        for url in _urls(file, dataset, mirror):
            reason = _download(url, partial, file, patience)
            if reason is None:
                _keep(partial, kept)
                return kept
            tried.append(f"{without_password(url)}: {reason}")
    raise EqcollapseError(
        f"{file.name} of {dataset}: not to be had; tried {'; '.join(tried) or 'no other place'}. "
        f"Put {file.name} into a folder and name that folder as `mirror` in params.yaml"
    )


def mismatch(path: Path, file: RemoteFile) -> str | None:
    """Why the bytes at `path` are not those of `file`, or None if every pinned checksum holds."""
    if path.stat().st_size > file.max_bytes:
        return f"{path.stat().st_size} bytes, more than the {file.max_bytes} expected"
    for algorithm, pinned in (("md5", file.md5), ("sha256", file.sha256)):
        if pinned and (found := file_digest(path, algorithm)) != pinned:
            return f"has the {algorithm} {found}, not {pinned}"
    if file.content_sha256:
        try:
            found = sha256(gunzip(path, file.content_bytes or file.max_bytes)).hexdigest()
        except EqcollapseError as error:
            return str(error)
        if found != file.content_sha256:
            return f"decompresses to the sha256 {found}, not {file.content_sha256}"
    return None


def without_password(url: str) -> str:
    """`url` without a user's name, password or query, which belong in no message; nothing of what is no address."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "what is no address"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _mirror_paths(file: RemoteFile, dataset: str, mirror: str | None) -> list[Path]:
    if mirror is None or is_url(mirror):
        return []
    folder = Path(mirror)
    if not folder.is_dir():
        raise EqcollapseError(f"mirror = {mirror}: neither a folder nor an http(s) address")
    return [folder / dataset / file.name, folder / file.name]


def _urls(file: RemoteFile, dataset: str, mirror: str | None) -> list[str]:
    if mirror is None or not is_url(mirror):
        return list(file.urls)
    base = mirror.rstrip("/")
    return [f"{base}/{quote(dataset)}/{quote(file.name)}", f"{base}/{quote(file.name)}", *file.urls]


def _download(url: str, partial: Path, file: RemoteFile, patience: Patience) -> str | None:
    """Fill `partial` from `url` until it is `file`; else the reason why this address does not serve."""
    fruitless, most, restarted = 0, _size(partial), False
    while True:
        try:
            transfer(url, partial, file, patience)
            reason = None
        except AddressError as error:
            return str(error)
        except TransferError as error:
            reason = str(error)
        # Also after a drop: a server may have stated too great a length for a file that is all there.
        wrong = mismatch(partial, file) if _size(partial) else "sent nothing"
        if wrong is None:
            return None
        if reason is None:
            # All was sent and it is not the file: resumed or sent wrongly, so once more from the beginning.
            partial.unlink(missing_ok=True)
            if restarted:
                return wrong
            restarted, reason = True, wrong
        if _size(partial) >= most + patience.gain:
            fruitless, most = 0, _size(partial)
        else:
            fruitless += 1
        if fruitless > (1 if reason == NO_CONNECTION else patience.retries):
            return reason
        time.sleep(min(patience.backoff * 2 ** max(fruitless - 1, 0), _LONGEST_WAIT))


@contextmanager
def _only_one(kept: Path) -> Iterator[None]:
    """Hold a lock beside `kept`, so that of several processes one downloads and the others find the file."""
    with open(kept.with_name(f".{kept.name}.lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another process that fetches {kept.name}", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _keep(partial: Path, kept: Path) -> None:
    with open(partial, "rb") as file:
        os.fsync(file.fileno())
    os.replace(partial, kept)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
