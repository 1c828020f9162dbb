"""Image folders: `{train,test}/<class>/<image>`, at the top or below one folder, in a folder or an archive.

Classes are the folder names, the same in train and test, sorted with numbers as numbers (2 before 10); the images of a
class are sorted by file name, so an archive's own order does not count. If every file of both splits stores grey values
the data set has one channel, else three. Without a size to resize to, all images must have the same. Names that begin
with a dot are not looked at, nor are files above the splits (a README, a licence); anything else that is not in this
layout is refused.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from eqcollapse.runtime.errors import EqcollapseError

from .images import decode, stack
from .order import natural
from .stored import Stored

SPLITS = ("train", "test")
# The decoded images of one data set are held in memory: at most this share of it.
_MEMORY_SHARE = 0.5


@dataclass(frozen=True, order=True)
class Place:
    """Where a file stands: its class, its own name, the folder above the splits ("" if none), its split."""

    label: str
    file: str
    root: str
    split: str


def read_imagefolder(
    files: Iterable[tuple[str, bytes]], container: str, size: int | None
) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], tuple[str, ...], dict[str, Stored]]:
    """Decode (name, content) pairs to {"train": (images, labels), "test": ...}, the class names, and what is stored.

    Images are uint8 N×C×H×W, labels int64 N. Raises EqcollapseError naming the file that is wrong.
    """
    stored = {split: Stored() for split in SPLITS}
    decoded = _decoded(files, container, size, stored)
    classes = _classes(decoded, container)
    channels = 1 if all(image.ndim == 2 for split in decoded.values() for image in split.values()) else 3
    return {split: _arrays(decoded[split], classes, channels) for split in SPLITS}, classes, stored


def _decoded(
    files: Iterable, container: str, size: int | None, stored: dict[str, Stored]
) -> dict[str, dict[Place, np.ndarray]]:
    decoded: dict[str, dict[Place, np.ndarray]] = {split: {} for split in SPLITS}
    first, held = None, 0
    limit = int(_MEMORY_SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for name, content in tqdm(files, desc=Path(container).name, unit=" images", mininterval=1, disable=None):
        place = find_place(name, container)
        if place is None:
            continue
        inside = f"{name} in {container}"
        found = decode(content, inside, size)
        stored[place.split].add(found)
        image = found.pixels
        first = first or (place.root, image.shape[:2], name)
        if place.root != first[0]:
            raise EqcollapseError(f"{inside}: its splits stand elsewhere than those of {first[2]}")
        if image.shape[:2] != first[1]:
            height, width = image.shape[:2]
            raise EqcollapseError(
                f"{inside}: {width} x {height} pixels, but {first[2]} has {first[1][1]} x {first[1][0]}: "
                "set `size` to resize all images"
            )
        held += image.nbytes
        if held > limit:
            raise EqcollapseError(
                f"{inside}: the images decode to more than half of the memory ({limit} bytes): set `size`"
            )
        decoded[place.split][place] = image
    return decoded


def find_place(name: str, container: str) -> Place | None:
    """The place of a file in the layout, or None above the splits; EqcollapseError for any other name."""
    parts = name.split("/")
    for depth in (0, 1):
        if len(parts) == depth + 3 and parts[depth] in SPLITS:
            return Place(label=parts[-2], file=parts[-1], root="/".join(parts[:depth]), split=parts[depth])
    if len(parts) <= 2 and parts[0] not in SPLITS:
        return None
    raise EqcollapseError(f"{name} in {container}: not in the layout {{train,test}}/<class>/<image>")


def _classes(decoded: dict[str, dict[Place, np.ndarray]], container: str) -> tuple[str, ...]:
    found = {split: {place.label for place in decoded[split]} for split in SPLITS}
    for split, other in (SPLITS, SPLITS[::-1]):
        if not found[split]:
            raise EqcollapseError(f"{container}: no images in {split}/<class>/")
        if missing := sorted(found[other] - found[split]):
            raise EqcollapseError(f"{container}: class {missing[0]} has images in {other}/ but none in {split}/")
    return tuple(sorted(found["train"], key=natural))


def _arrays(decoded: dict[Place, np.ndarray], classes: tuple[str, ...], channels: int) -> tuple[np.ndarray, np.ndarray]:
    number = {name: label for label, name in enumerate(classes)}
    places = sorted(decoded, key=lambda place: (number[place.label], place))
    labels = np.array([number[place.label] for place in places], dtype=np.int64)
    return stack([decoded.pop(place) for place in places], channels), labels
