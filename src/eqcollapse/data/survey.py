"""What a folder or archive of images has: enough to write a study for it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eqcollapse.runtime.errors import EqcollapseError

from .archives import FORMATS, folder_members, members
from .checksums import content_sha256, digest_of_tree, file_digests
from .imagefolder import read_imagefolder

_THUMBNAIL = 8
"""Side in pixels to which images are resized here: pixels are not looked at, and memory is saved."""


@dataclass(frozen=True)
class Survey:
    """An image folder: its sha256, class names by label, images a class in train and test, channels, sizes.

    `width` and `height` are the least and the most, in pixels.
    """

    sha256: str
    classes: tuple[str, ...]
    train: tuple[int, ...]
    test: tuple[int, ...]
    channels: int
    width: tuple[int, int]
    height: tuple[int, int]


def survey(path: Path) -> Survey:
    """Read every image of the folder or archive `path`. EqcollapseError, one line, for what is not in the layout."""
    if path.is_dir():
        digests = file_digests(path)
        sha256, files = digest_of_tree(digests), folder_members(path, digests)
    elif not path.exists():
        raise EqcollapseError(f"there is no {path}: name a folder or an archive of images")
    elif not path.name.lower().endswith(tuple(FORMATS)):
        raise EqcollapseError(f"{path}: must be a folder or one of {', '.join(FORMATS)}")
    else:
        sha256, files = content_sha256(path), members(path)
    splits, classes, stored = read_imagefolder(files, path.name, _THUMBNAIL)
    train, test = (
        tuple(np.bincount(labels, minlength=len(classes)).tolist())
        for labels in (splits[split][1] for split in ("train", "test"))
    )
    facts = [part.facts() for part in stored.values()]
    width, height = (
        (min(each[side][0] for each in facts), max(each[side][1] for each in facts)) for side in ("width", "height")
    )
    return Survey(sha256, classes, train, test, splits["train"][0].shape[1], width, height)
