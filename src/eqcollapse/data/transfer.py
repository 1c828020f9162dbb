"""One request for a file: what a server may do, and when it is broken off.

Headers, the lengths of chunks and what follows the last one are read for as long as the server sends them, by
http.client and not here. So each read of the socket looks at the clock first, and the file's own bytes alone count
as progress.
"""

import errno
import functools
import http.client
import io
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from tqdm import tqdm

from eqcollapse.runtime.errors import EqcollapseError

from .registry import RemoteFile


@dataclass(frozen=True)
class Patience:
    """How long to put up with a server. Times in seconds.

    A transfer is broken off when `read` seconds pass without a byte, when the header of the file (after that of all
    redirections) is not there after `head` seconds, or when `window` seconds bring fewer than `window` × `min_rate`
    bytes of the file. After a drop it is resumed. An address is given up after `retries` resumptions in a row without
    `gain` bytes more than ever before, and after one if it cannot be reached at all. Between them it waits `backoff`,
    then twice that, and so on up to 30 s.
    """

    connect: float = 10.0
    read: float = 30.0
    head: float = 60.0
    window: float = 60.0
    min_rate: int = 4096
    retries: int = 4
    gain: int = 1 << 20
    backoff: float = 1.0


NO_CONNECTION = "no connection"
_CHUNK = 1 << 16
_MOST_REDIRECTIONS = 5
_LONGEST_NUMBER = 18
_WORTH_ANOTHER_TRY = {408, 425, 429, 500, 502, 503, 504}
_NETWORK_ERRORS = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    OSError,
)


class TransferError(Exception):
    """The transfer ended early; another attempt may do better."""


class AddressError(Exception):
    """No attempt will get the file from this address."""


def transfer(url: str, partial: Path, file: RemoteFile, patience: Patience) -> None:
    """Make one request, from where `partial` ends; return when the server has sent all that it announced."""
    start = partial.stat().st_size if partial.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    pace = _Pace(patience)
    try:
        with _Session(pace) as session, _answer(session, url, headers, patience) as response:
            start, total = _agreed(response, start, partial)
            _check_room(total, start, partial, file)
            _receive(response, partial, start, total, file, pace)
    except _NETWORK_ERRORS as error:
        if isinstance(error, OSError) and error.errno in (
            errno.ENOSPC,
            errno.EDQUOT,
            errno.EACCES,
            errno.EROFS,
        ):
            raise EqcollapseError(f"{partial}: cannot be written ({error.strerror})") from error
        raise TransferError(_reason(error)) from error


class _Pace:
    """The clock of a transfer, which `check`, before each read of the socket, breaks off when it is too slow."""

    def __init__(self, patience: Patience):
        self._patience = patience
        self._end = time.monotonic() + patience.head
        self._gained: int | None = None

    def begin(self) -> None:
        """Begin a window of the file's own bytes."""
        self._end = time.monotonic() + self._patience.window
        self._gained = 0

    def gain(self, count: int) -> None:
        """Count bytes of the file."""
        self._gained = (self._gained or 0) + count

    def check(self) -> None:
        """Raise TransferError if the time that there was has brought too little."""
        if time.monotonic() <= self._end:
            return
        if self._gained is None:
            raise TransferError(f"no whole header within {self._patience.head:g} s")
        if self._gained < self._patience.window * self._patience.min_rate:
            raise TransferError(f"slower than {self._patience.min_rate} bytes/s")
        self.begin()


class _WatchedSocket(io.RawIOBase):
    """What a server sends, read under the eyes of a `_Pace`."""

    def __init__(self, raw: io.RawIOBase, pace: _Pace):
        self._raw, self._pace = raw, pace

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._pace.check()
        return self._raw.readinto(buffer)

    def close(self) -> None:
        super().close()
        self._raw.close()


class _WatchedResponse(http.client.HTTPResponse):
    def __init__(self, pace: _Pace, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self.fp = io.BufferedReader(_WatchedSocket(self.fp.detach(), pace))


class _Adapter(requests.adapters.HTTPAdapter):
    """Connections, through a proxy or not, whose answers are read under the eyes of a `_Pace`."""

    def __init__(self, pace: _Pace):
        super().__init__()
        self._response = staticmethod(functools.partial(_WatchedResponse, pace))

    def get_connection_with_tls_context(self, *arguments: Any, **options: Any) -> urllib3.HTTPConnectionPool:
        pool: Any = super().get_connection_with_tls_context(*arguments, **options)
        kind = pool.ConnectionCls
        pool.ConnectionCls = type(kind.__name__, (kind,), {"response_class": self._response})
        return pool


class _Session(requests.Session):
    def __init__(self, pace: _Pace):
        super().__init__()
        for scheme in ("http://", "https://"):
            self.mount(scheme, _Adapter(pace))

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Follow none: requests would read the body of a redirection, which has no end if the server likes."""


def _answer(session: requests.Session, url: str, headers: dict[str, str], patience: Patience) -> requests.Response:
    """The answer of `url`, or of where it redirects to, with its body unread."""
    timeout = (patience.connect, patience.read)
    for _ in range(_MOST_REDIRECTIONS + 1):
        try:
            response = session.get(url, headers=headers, stream=True, timeout=timeout)
        except requests.exceptions.InvalidHeader:  # the server's: a ValueError like the next
            raise
        except ValueError as error:
            raise AddressError(f"no usable address ({type(error).__name__})") from error
        if not response.is_redirect:
            return response
        response.close()
        url = _redirected(url, response.headers["Location"])
    raise AddressError(f"more than {_MOST_REDIRECTIONS} redirections")


def _redirected(url: str, location: str) -> str:
    """The address that a Location header names; http.client has decoded it as Latin-1, whatever it is."""
    try:
        target = urljoin(url, location.encode("latin-1").decode())
        usable = urlsplit(target).scheme in ("http", "https")
    except ValueError:
        usable = False
    if not usable:
        raise AddressError("redirects to what is no http(s) address")
    return target


def _agreed(response: requests.Response, start: int, partial: Path) -> tuple[int, int | None]:
    """From which byte on the server sends, and how many bytes the file has if it says so."""
    if response.status_code == 416:
        # Nothing lies beyond what we have, and that is not the file: from the beginning, then.
        partial.unlink(missing_ok=True)
        raise TransferError("the server refused to resume (HTTP 416)")
    if response.status_code in _WORTH_ANOTHER_TRY:
        raise TransferError(f"HTTP {response.status_code}")
    if response.status_code not in (200, 206):
        raise AddressError(f"HTTP {response.status_code}")
    announced = _announced(response)
    if response.status_code == 200:
        return 0, announced
    if not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
        partial.unlink(missing_ok=True)
        raise TransferError("the server sent another range than asked for")
    return start, None if announced is None else start + announced


def _announced(response: requests.Response) -> int | None:
    """How many bytes the server says that it sends."""
    length = response.headers.get("Content-Length", "")
    if not length.isdecimal():
        return None
    if len(length) > _LONGEST_NUMBER:
        raise AddressError(f"states a length of {len(length)} digits")
    return int(length)


def _check_room(total: int | None, start: int, partial: Path, file: RemoteFile) -> None:
    if total is None:
        return
    if total > file.max_bytes:
        raise AddressError(f"{total} bytes, more than the {file.max_bytes} expected")
    free = shutil.disk_usage(partial.parent).free
    if total - start > free:
        raise EqcollapseError(f"{partial}: {total - start} bytes are needed on this disk, {free} are free")


def _receive(
    response: requests.Response,
    partial: Path,
    start: int,
    total: int | None,
    file: RemoteFile,
    pace: _Pace,
) -> None:
    held = start
    pace.begin()
    bar = tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=file.name, mininterval=1, disable=None)
    with bar, open(partial, "r+b" if start else "wb") as output:
        output.seek(start)
        output.truncate()
        while chunk := response.raw.read1(_CHUNK, decode_content=False):
            output.write(chunk)
            held += len(chunk)
            pace.gain(len(chunk))
            bar.update(len(chunk))
            if held > file.max_bytes:
                output.truncate(0)
                raise AddressError(f"sends more than the {file.max_bytes} bytes expected")
    if total is not None and held < total:
        raise TransferError(f"ended after {held} of {total} bytes")


def _reason(error: Exception) -> str:
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate is not trusted"
    if isinstance(error, requests.ConnectTimeout) or _unreachable(error):
        return NO_CONNECTION
    if isinstance(error, (requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError)):
        return "timed out"
    return f"the connection broke off ({type(error).__name__})"


def _unreachable(error: Exception) -> bool:
    """Whether no connection came about: requests keeps urllib3's reason in its own exception's arguments."""
    cause = getattr(error.args[0], "reason", None) if error.args else None
    return isinstance(cause, urllib3.exceptions.NewConnectionError)
