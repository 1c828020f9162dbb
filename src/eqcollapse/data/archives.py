"""The files of a folder, tar or zip as (name, bytes), one at a time in memory; none is extracted to disk.

The caller checks an archive's hash first; what is refused here is what a hash cannot tell: names that climb
out or are absolute, links, devices, sparse files, duplicates, encryption, damage, and more bytes than
`Limits` allows. Every refusal is an EqcollapseError that names the file inside the archive.
"""

import gzip
import hashlib
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import zstandard

from eqcollapse.runtime.errors import EqcollapseError

from .checksums import check_name, content_sha256, digest_of_tree, file_digests


@dataclass(frozen=True)
class Limits:
    """How much an archive may hold; the bytes in all, a floor plus a multiple of the archive's own."""

    file_bytes: int = 1 << 28
    files: int = 5_000_000
    total_floor: int = 1 << 30
    total_ratio: int = 100

    def total_bytes(self, archive: Path) -> int:
        """The most bytes that `archive` may decompress to."""
        return self.total_floor + self.total_ratio * archive.stat().st_size


LIMITS = Limits()
# Between two tar members: a header, a long name or pax records, padding of a record.
_TAR_SLACK = 1 << 20
_ZSTD_WINDOW = 1 << 27
_ZIP_UTF8 = 1 << 11
_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zstandard.ZstdError,
    zlib.error,
    EOFError,
    OSError,
    ValueError,
)


def members(path: Path, limits: Limits = LIMITS) -> Iterator[tuple[str, bytes]]:
    """The visible files of the archive `path` as (name with `/`, content), in the archive's order."""
    reader = next((reader for suffix, reader in FORMATS.items() if path.name.lower().endswith(suffix)), None)
    if reader is None:
        raise EqcollapseError(f"{path.name}: not one of the archives {', '.join(FORMATS)}")
    seen: set[str] = set()
    name = "the beginning"
    try:
        for raw_name, content in reader(path, limits):
            name = _clean(raw_name, path.name)
            if name in seen:
                raise EqcollapseError(f"{name} in {path.name}: occurs twice")
            seen.add(name)
            if len(seen) > limits.files:
                raise EqcollapseError(f"{name} in {path.name}: more than {limits.files} files")
            if not _hidden(name):
                yield name, content
    except (*_DAMAGE, NotImplementedError, RuntimeError) as error:
        raise EqcollapseError(f"{path.name}: truncated or damaged after {name} ({_line(error)})") from error


def hashed_members(path: Path) -> tuple[str, Iterator[tuple[str, bytes]]]:
    """Return the sha256 of the folder or archive `path`, as `checksums.content_sha256`, and its visible files."""
    if path.is_dir():
        digests = file_digests(path)
        return digest_of_tree(digests), folder_members(path, digests)
    return content_sha256(path), members(path)


def folder_members(folder: Path, digests: dict[str, str], limits: Limits = LIMITS) -> Iterator[tuple[str, bytes]]:
    """The files that `digests` names (see `checksums.file_digests`), each checked again as it is read."""
    for name, digest in digests.items():
        path = folder / name
        _check_size(path.stat().st_size, name, folder, limits)
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != digest:
            raise EqcollapseError(f"{name} in {folder}: changed while it was read")
        yield name, content


def _tar_members(path: Path, limits: Limits) -> Iterator[tuple[str, bytes]]:
    with open(path, "rb") as file, _decompressed(path, file) as plain:
        bounded = _Bounded(plain, path.name, limits.total_bytes(path))
        with tarfile.open(fileobj=cast(BinaryIO, bounded), mode="r|") as archive:
            for member in archive:
                if member.isdir():
                    check_name(member.name, path.name)
                elif not member.isreg() or member.issparse():
                    raise EqcollapseError(f"{member.name!a} in {path.name}: a link, device or sparse file is refused")
                else:
                    check_name(member.name, path.name)
                    _check_size(member.size, member.name, path.name, limits)
                    bounded.allow(member.size)
                    content = archive.extractfile(member)
                    yield member.name, content.read() if content else b""
                bounded.allow(0)
            bounded.finish(archive.offset)


def _zip_members(path: Path, limits: Limits) -> Iterator[tuple[str, bytes]]:
    left = limits.total_bytes(path)
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            name = _zip_name(member, path.name)
            check_name(name, path.name)
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise EqcollapseError(f"{name} in {path.name}: a link or device is refused")
            if member.is_dir():
                continue
            if member.flag_bits & 1:
                raise EqcollapseError(f"{name} in {path.name}: is encrypted")
            _check_size(member.file_size, name, path.name, limits)
            left -= member.file_size
            if left < 0:
                raise _too_much(path.name)
            yield name, _unzipped(archive, member, f"{name} in {path.name}")


def _zip_name(member: zipfile.ZipInfo, container: str) -> str:
    """The name of a member; without the flag for UTF-8 its encoding is not stated, and what is no UTF-8 is refused.

    macOS and Linux pack UTF-8 without the flag, which zipfile takes for code page 437: other class names.
    """
    if member.flag_bits & _ZIP_UTF8:
        return member.orig_filename
    stored = member.orig_filename.encode("cp437")
    try:
        return stored.decode()
    except UnicodeDecodeError:
        raise EqcollapseError(
            f"{stored!r} in {container}: a name that is not UTF-8; pack the folder again with UTF-8 names"
        ) from None


def _unzipped(archive: zipfile.ZipFile, member: zipfile.ZipInfo, inside: str) -> bytes:
    try:
        with archive.open(member) as file:
            content = file.read(member.file_size + 1)
    except (*_DAMAGE, NotImplementedError, RuntimeError) as error:
        raise EqcollapseError(f"{inside}: damaged ({_line(error)})") from error
    if len(content) != member.file_size:
        raise EqcollapseError(f"{inside}: not of the size that the archive states")
    return content


FORMATS = {
    ".tar": _tar_members,
    ".tar.gz": _tar_members,
    ".tgz": _tar_members,
    ".tar.zst": _tar_members,
    ".zip": _zip_members,
}


@contextmanager
def _decompressed(path: Path, file: BinaryIO) -> Iterator[BinaryIO]:
    name = path.name.lower()
    if name.endswith(".tar"):
        yield file
    elif name.endswith(".tar.zst"):
        decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
        with decompressor.stream_reader(file, read_across_frames=True) as plain:
            yield plain
    else:
        with gzip.GzipFile(fileobj=file) as plain:
            yield cast(BinaryIO, plain)


class _Bounded:
    """A tar stream that ends in an error when more is read than what `allow` permits.

    tarfile reads long names and pax records into memory whatever size their header states; this bounds them.
    """

    def __init__(self, file: BinaryIO, name: str, total: int):
        self._file, self._name, self._total = file, name, total
        self._allowed = _TAR_SLACK
        self._position = self._end = 0

    def allow(self, size: int) -> None:
        """Permit a member of `size` bytes and what stands before the next one."""
        self._allowed = size + _TAR_SLACK

    def read(self, size: int, /) -> bytes:
        chunk = self._file.read(size)
        self._allowed -= len(chunk)
        self._total -= len(chunk)
        if content := chunk.rstrip(b"\0"):
            self._end = self._position + len(content)
        self._position += len(chunk)
        if self._total < 0:
            raise _too_much(self._name)
        if self._allowed < 0:
            raise EqcollapseError(f"{self._name}: a header of more than {_TAR_SLACK} bytes is refused")
        return chunk

    def finish(self, end: int) -> None:
        """Read to the end, which verifies the compression's checksum; from `end` on two zero blocks or more.

        tarfile takes a damaged header for the end, and needs no end mark.
        """
        while self.read(65536):
            pass
        if self._end > end or self._position < end + 1024:
            raise EqcollapseError(f"{self._name}: truncated or damaged after byte {end} of its tar stream")


def _clean(name: str, container: str) -> str:
    """`name` without `.` parts and doubled slashes; refused if it climbs or is absolute."""
    check_name(name, container)
    cleaned = "/".join(piece for piece in name.split("/") if piece not in ("", "."))
    if not cleaned:
        raise EqcollapseError(f"{name!a} in {container}: not a file name")
    return cleaned


def _hidden(name: str) -> bool:
    return any(piece.startswith(".") for piece in name.split("/"))


def _check_size(size: int, name: str, container: object, limits: Limits) -> None:
    if not 0 <= size <= limits.file_bytes:
        raise EqcollapseError(f"{name} in {container}: {size} bytes; at most {limits.file_bytes} are allowed")


def _too_much(name: str) -> EqcollapseError:
    return EqcollapseError(f"{name}: decompresses to far more than its size allows (a bomb?)")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
