"""SHA-256 of files and folders: what `sha256` in params.yaml pins, checked before a file is opened."""

import gzip
import hashlib
import os
import re
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path

from eqcollapse.runtime.errors import EqcollapseError

_CHUNK = 1 << 20
# Backslashes, control characters, line separators, and the surrogates that stand for bytes that are no UTF-8.
_UNSPEAKABLE = re.compile("[\\\\\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def content_sha256(path: str | Path) -> str:
    """The hash to put under `sha256` in params.yaml: of a file's bytes, or `tree_sha256` of a folder.

    Raises EqcollapseError when there is nothing at `path`.
    """
    path = Path(path)
    if path.is_dir():
        return tree_sha256(path)
    if path.is_file():
        return file_digest(path, "sha256")
    raise EqcollapseError(f"{path}: there is no such file or folder")


def tree_sha256(folder: str | Path) -> str:
    """SHA-256 of the lines `<sha256>  ./<relative name>` of a folder's visible files, sorted by name (UTF-8).

    The same as, in that folder,
    `find . -type f -not -path '*/.*' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum`.
    Files and folders whose name begins with a dot count for nothing; links, sockets and devices are refused.
    """
    return digest_of_tree(file_digests(folder))


def file_digests(folder: str | Path) -> dict[str, str]:
    """The SHA-256 of each visible file below `folder` by its relative name, in the order of `tree_sha256`."""
    folder = Path(folder)
    names = sorted(visible_files(folder), key=str.encode)
    return {name: file_digest(folder / name, "sha256") for name in names}


def digest_of_tree(digests: dict[str, str]) -> str:
    """`tree_sha256` of a folder whose `file_digests` are known."""
    lines = "".join(f"{digest}  ./{name}\n" for name, digest in digests.items())
    return hashlib.sha256(lines.encode()).hexdigest()


def file_digest(path: Path, algorithm: str) -> str:
    """The hexadecimal digest of the bytes of `path`; `algorithm` is a name that hashlib knows."""
    digest = hashlib.new(algorithm, usedforsecurity=algorithm != "md5")
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def gunzip(path: Path, limit: int) -> bytes:
    """The decompressed bytes of a .gz file; EqcollapseError if damaged, or if there are more than `limit`."""
    try:
        with gzip.open(path, "rb") as file:
            content = file.read(limit + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise EqcollapseError(f"{path.name}: not a whole gzip file ({error})") from error
    if len(content) > limit:
        raise EqcollapseError(f"{path.name}: decompresses to more than the {limit} bytes that it should have")
    return content


def visible_files(folder: Path) -> Iterator[str]:
    """The relative names of the visible files below `folder`, at any depth, in no order."""
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        with os.scandir(folder / prefix) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                name = prefix + entry.name
                mode = entry.stat(follow_symlinks=False).st_mode
                if stat.S_ISDIR(mode):
                    waiting.append(name + "/")
                elif stat.S_ISREG(mode):
                    check_name(name, folder)
                    yield name
                else:
                    kind = "a link" if stat.S_ISLNK(mode) else "neither a file nor a folder"
                    raise EqcollapseError(f"{name} in {folder} is {kind}: put the file itself there")


def check_name(name: str, container: object) -> None:
    """Refuse a relative file name that climbs, is absolute, or holds what not every system can write."""
    wrong = None
    if name.startswith("/") or name[1:2] == ":":
        wrong = "an absolute path"
    elif ".." in name.split("/"):
        wrong = "a path that climbs out"
    elif _UNSPEAKABLE.search(name):
        wrong = "a name with a backslash, a control character or bytes that are not UTF-8"
    if wrong:
        raise EqcollapseError(f"{name!a} in {container}: {wrong} is refused")
