"""How many files and bytes an image folder or archive has: enough to see, at no cost, that it has changed since.

Imports no numpy: planning asks, too.
"""

import json
import os
import struct
from pathlib import Path

from eqcollapse.runtime.errors import EqcollapseError

from .checksums import visible_files

MOST_FILES = 100_000
"""Of a data set with more, planning looks at nothing: a walk would take seconds."""
HEADER = "eqcollapse.dataset"
"""The key of a data set's metadata in the header of its safetensors file."""
_LONGEST = 1 << 26


def extent(path: str | Path) -> dict[str, int]:
    """Return {"files": ..., "bytes": ...} of an archive, or of the visible files of a folder."""
    path = Path(path)
    names = [path] if path.is_file() else [path / name for name in visible_files(path)]
    return {"files": len(names), "bytes": sum(os.stat(name).st_size for name in names)}


def change(path: str | Path, dataset_file: str | Path) -> str | None:
    """Return what differs between `path` and what `dataset_file` was made from; None if nothing is seen to.

    A file that was replaced by one of the same size is not seen; `content_sha256` would see it.
    """
    made_from = _recorded(dataset_file)
    if not made_from or made_from["files"] > MOST_FILES or not os.path.exists(path):
        return None
    try:
        there = extent(path)
    except (OSError, EqcollapseError) as error:
        return str(error)
    if there == made_from:
        return None
    return f"{_said(there)}, and had {_said(made_from)} when its sha256 was taken"


def _said(extent: dict[str, int]) -> str:
    return f"{extent['files']} files of {extent['bytes']} bytes"


def _recorded(dataset_file: str | Path) -> dict[str, int] | None:
    try:
        with open(dataset_file, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(min(length, _LONGEST)))
        return json.loads(header["__metadata__"][HEADER])["stored"]["extent"]
    except (OSError, ValueError, KeyError, struct.error):
        return None
