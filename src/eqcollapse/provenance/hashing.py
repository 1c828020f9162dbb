"""Every file under some folders, read once: its size, sha256, and the md5 that DVC knows it by."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Content:
    """What a file holds: size in bytes, sha256 and md5."""

    bytes: int
    sha256: str
    md5: str


def walk(roots: Iterable[str]) -> dict[str, int]:
    """Return the size of every file under `roots`, by path; a link to a folder counts as a file of size 0."""
    return {path: size for root in roots if os.path.isdir(root) for path, size in _files(root)}


def _files(folder: str) -> Iterator[tuple[str, int]]:
    waiting = [folder]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                else:
                    yield entry.path, entry.stat().st_size if entry.is_file() else 0


def contents(sizes: Mapping[str, int]) -> dict[str, Content]:
    """Return the content of every file of `sizes` that can be read, the largest first, some at a time."""
    paths = sorted((path for path in sizes if os.path.isfile(path)), key=lambda path: (-sizes[path], path))
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # hashlib frees Python's lock while it hashes
        return dict(zip(paths, pool.map(content, paths), strict=True))


def content(path: str | Path) -> Content:
    """Return the content of one file."""
    sha256, md5, size = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
    with open(path, "rb", buffering=0) as stream:
        while chunk := stream.read(_CHUNK):
            sha256.update(chunk)
            md5.update(chunk)
            size += len(chunk)
    return Content(size, sha256.hexdigest(), md5.hexdigest())
