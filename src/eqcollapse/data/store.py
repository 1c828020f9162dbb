"""A data set on disk: one safetensors file a split, the same bytes for the same content."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from eqcollapse.runtime.errors import EqcollapseError
from eqcollapse.runtime.files import replacing

from .extent import HEADER

Taken = TypeVar("Taken")


@dataclass(frozen=True)
class Dataset:
    """One split: images, uint8 N×C×H×W; labels, int64 N; class names by label; the data set's name.

    `sources` gives the SHA-256 of each source file by its name; `stored`, of an image folder, what its files store (see
    `stored.Stored.facts`) and its `extent`.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    name: str
    sources: dict[str, str] = field(default_factory=dict)
    stored: dict[str, Any] = field(default_factory=dict)


def write_dataset(path: str | Path, dataset: Dataset) -> None:
    """Write `dataset` atomically, as bytes that depend on its content alone; EqcollapseError if malformed."""
    with replacing(path, dataset.images.nbytes) as temporary:
        save_dataset(temporary, dataset)


def save_dataset(path: Path, dataset: Dataset) -> None:
    """`write_dataset` without the atomic replacement, for callers that replace several files at once."""
    _check(dataset)
    metadata = {"classes": list(dataset.classes), "name": dataset.name, "sources": dataset.sources}
    if dataset.stored:
        metadata["stored"] = dataset.stored
    # safetensors writes several metadata keys in an order that changes from run to run: one key holds them all.
    tensors = {"images": np.ascontiguousarray(dataset.images), "labels": dataset.labels}
    save_file(tensors, path, metadata={HEADER: json.dumps(metadata, sort_keys=True)})


def read_dataset(path: str | Path) -> Dataset:
    """Read what `write_dataset` wrote, as writable arrays, which `torch.from_numpy` takes without a copy.

    Raises EqcollapseError if `path` is not such a file.
    """
    return _read(path, lambda file: _dataset(file, file.get_tensor("images")))


def read_classes(path: str | Path) -> tuple[str, ...]:
    """The class names, by label, of a file of `write_dataset`, without reading its images."""
    return _read(path, lambda file: tuple(json.loads(file.metadata()[HEADER])["classes"]))


def read_labels(path: str | Path) -> np.ndarray:
    """The labels (int64, N) of a file of `write_dataset`, without reading its images."""
    return _read(path, lambda file: file.get_tensor("labels"))


def _read(path: str | Path, take: Callable[[Any], Taken]) -> Taken:
    try:
        with safe_open(path, framework="numpy") as file:
            return take(file)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise EqcollapseError(f"{path}: not a data set of the stage `data` ({error}); make it anew") from error


def _dataset(file: Any, images: np.ndarray) -> Dataset:
    metadata = json.loads(file.metadata()[HEADER])
    return Dataset(
        images=images,
        labels=file.get_tensor("labels"),
        classes=tuple(metadata["classes"]),
        name=metadata["name"],
        sources=metadata["sources"],
        stored=metadata.get("stored", {}),
    )


def _check(dataset: Dataset) -> None:
    images, labels = dataset.images, dataset.labels
    if images.dtype != np.uint8 or images.ndim != 4:
        raise EqcollapseError(f"{dataset.name}: images are {images.dtype} {images.shape}, not uint8 N×C×H×W")
    if labels.dtype != np.int64 or labels.shape != images.shape[:1]:
        raise EqcollapseError(f"{dataset.name}: labels are {labels.dtype} {labels.shape}, not int64 N")
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(dataset.classes):
        raise EqcollapseError(f"{dataset.name}: labels lie outside 0..{len(dataset.classes) - 1}")
