"""Fetching a file from the mirror or its addresses: resumed after a drop, verified before it gets its name.

Whatever a server does (stalls, drops, wrong ranges, a wrong length, another file), no file of wrong content
gets the final name, and the time is bounded by `Patience`.
"""

import errno
import fcntl
import http.client
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

import requests
import urllib3
from tqdm import tqdm

from eqcollapse.errors import EqcollapseError

from .checksums import file_digest, gunzip
from .registry import RemoteFile


@dataclass(frozen=True)
class Patience:
    """How long to put up with a server. Times in seconds.

    A transfer is broken off when `read` seconds pass without a byte, or `window` seconds with fewer than
    `window` × `min_rate` bytes. After a drop it is resumed. An address is given up after `retries`
    resumptions in a row without `gain` bytes more than ever before, and after one if it cannot be reached at
    all. Between them it waits `backoff`, then twice that, and so on up to 30 s.
    """

    connect: float = 10.0
    read: float = 30.0
    window: float = 60.0
    min_rate: int = 4096
    retries: int = 4
    gain: int = 1 << 20
    backoff: float = 1.0


PATIENCE = Patience()
_CHUNK = 1 << 16
_LONGEST_WAIT = 30.0
_NO_CONNECTION = "no connection"
_WORTH_ANOTHER_TRY = {408, 425, 429, 500, 502, 503, 504}
_NETWORK_ERRORS = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    OSError,
)


class _TransferError(Exception):
    """The transfer ended early; another attempt may do better."""


class _AddressError(Exception):
    """No attempt will get the file from this address."""


def is_url(place: str) -> bool:
    """Whether `place` is an http(s) address rather than a path."""
    return place.startswith(("http://", "https://"))


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
            tried.append(f"{shown(url)}: {reason}")
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
            found = sha256(gunzip(path, file.content_bytes)).hexdigest()
        except EqcollapseError as error:
            return str(error)
        if found != file.content_sha256:
            return f"decompresses to the sha256 {found}, not {file.content_sha256}"
    return None


def shown(url: str) -> str:
    """`url` without a user's name, password or query, which belong in no message."""
    parts = urlsplit(url)
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
            _transfer(url, partial, file, patience)
            reason = None
        except _AddressError as error:
            return str(error)
        except _TransferError as error:
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
        if fruitless > (1 if reason == _NO_CONNECTION else patience.retries):
            return reason
        time.sleep(min(patience.backoff * 2 ** max(fruitless - 1, 0), _LONGEST_WAIT))


def _transfer(url: str, partial: Path, file: RemoteFile, patience: Patience) -> None:
    """One request, from where `partial` ends; returns when the server has sent all that it announced."""
    start = _size(partial)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        with requests.Session() as session:
            session.max_redirects = 5
            timeout = (patience.connect, patience.read)
            with session.get(url, headers=headers, stream=True, timeout=timeout) as response:
                start, total = _agreed(response, start, partial)
                _check_room(total, start, partial, file)
                _receive(response, partial, start, total, file, patience)
    except _NETWORK_ERRORS as error:
        if isinstance(error, OSError) and error.errno in (
            errno.ENOSPC,
            errno.EDQUOT,
            errno.EACCES,
            errno.EROFS,
        ):
            raise EqcollapseError(f"{partial}: cannot be written ({error.strerror})") from error
        if isinstance(error, (requests.exceptions.InvalidURL, requests.TooManyRedirects)):
            raise _AddressError(f"no usable address ({type(error).__name__})") from error
        raise _TransferError(_reason(error)) from error


def _agreed(response: requests.Response, start: int, partial: Path) -> tuple[int, int | None]:
    """From which byte on the server sends, and how many bytes the file has if it says so."""
    if response.status_code == 416:
        # Nothing lies beyond what we have, and that is not the file: from the beginning, then.
        partial.unlink(missing_ok=True)
        raise _TransferError("the server refused to resume (HTTP 416)")
    if response.status_code in _WORTH_ANOTHER_TRY:
        raise _TransferError(f"HTTP {response.status_code}")
    if response.status_code not in (200, 206):
        raise _AddressError(f"HTTP {response.status_code}")
    length = response.headers.get("Content-Length", "")
    announced = int(length) if length.isdecimal() else None
    if response.status_code == 200:
        return 0, announced
    if not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
        partial.unlink(missing_ok=True)
        raise _TransferError("the server sent another range than asked for")
    return start, None if announced is None else start + announced


def _check_room(total: int | None, start: int, partial: Path, file: RemoteFile) -> None:
    if total is None:
        return
    if total > file.max_bytes:
        raise _AddressError(f"{total} bytes, more than the {file.max_bytes} expected")
    free = shutil.disk_usage(partial.parent).free
    if total - start > free:
        raise EqcollapseError(f"{partial}: {total - start} bytes are needed on this disk, {free} are free")


def _receive(
    response: requests.Response,
    partial: Path,
    start: int,
    total: int | None,
    file: RemoteFile,
    patience: Patience,
) -> None:
    held = mark = start
    marked = time.monotonic()
    bar = tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=file.name, mininterval=1)
    with bar, open(partial, "r+b" if start else "wb") as output:
        output.seek(start)
        output.truncate()
        while chunk := response.raw.read1(_CHUNK, decode_content=False):
            output.write(chunk)
            held += len(chunk)
            bar.update(len(chunk))
            if held > file.max_bytes:
                output.truncate(0)
                raise _AddressError(f"sends more than the {file.max_bytes} bytes expected")
            if time.monotonic() - marked > patience.window:
                if held - mark < patience.window * patience.min_rate:
                    raise _TransferError(f"slower than {patience.min_rate} bytes/s")
                mark, marked = held, time.monotonic()
    if total is not None and held < total:
        raise _TransferError(f"ended after {held} of {total} bytes")


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


def _reason(error: Exception) -> str:
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate is not trusted"
    if isinstance(error, requests.ConnectTimeout) or _unreachable(error):
        return _NO_CONNECTION
    if isinstance(error, (requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError)):
        return "timed out"
    return f"the connection broke off ({type(error).__name__})"


def _unreachable(error: Exception) -> bool:
    """Whether no connection came about: requests keeps urllib3's reason in its own exception's arguments."""
    cause = getattr(error.args[0], "reason", None) if error.args else None
    return isinstance(cause, urllib3.exceptions.NewConnectionError)
