"""Readers of the canonical data sets: idx files, CIFAR's binary records, scikit-learn's digits. Plain numpy.

Each returns ({"train": (images, labels), "test": ...}, sources): images uint8 N×C×H×W, labels int64 N, and
the SHA-256 of what was read by its name. For idx files that is of the decompressed bytes, so that a mirror
that compressed them anew gives the same data set to the byte.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from eqcollapse.runtime.errors import EqcollapseError

from .archives import members
from .checksums import file_digest, gunzip
from .registry import IDX_HEADER, CanonicalSet, RemoteFile

Fetch = Callable[[RemoteFile], Path]
ArraysBySplit = dict[str, tuple[np.ndarray, np.ndarray]]

_CIFAR_FILES: dict[str, dict[str, tuple[str, ...]]] = {
    "cifar-10-binary.tar.gz": {
        "train": tuple(f"cifar-10-batches-bin/data_batch_{batch}.bin" for batch in range(1, 6)),
        "test": ("cifar-10-batches-bin/test_batch.bin",),
    },
    "cifar-100-binary.tar.gz": {
        "train": ("cifar-100-binary/train.bin",),
        "test": ("cifar-100-binary/test.bin",),
    },
}
_DIGITS_TEST_PER_CLASS = 30
_DIGITS_SHA256 = "65e5b4619795efb40c1082f4c350c049e4ad552200d369b6ae99e21eef5e72c5"


def read_idx(canonical: CanonicalSet, fetch: Fetch) -> tuple[ArraysBySplit, dict[str, str]]:
    """MNIST's four idx files: a big-endian header (magic number, sizes), then the bytes."""
    content = {}
    for role, file in canonical.files.items():
        content[role] = gunzip(fetch(file), file.content_bytes or file.max_bytes)
    names = {role: file.name.removesuffix(".gz") for role, file in canonical.files.items()}
    splits = {}
    for split, count in canonical.counts.items():
        images = _idx(content[f"{split} images"], names[f"{split} images"], (count, *canonical.shape[1:]))
        labels = _idx(content[f"{split} labels"], names[f"{split} labels"], (count,))
        splits[split] = images[:, None], _labels(labels, canonical, names[f"{split} labels"])
    return splits, {names[role]: hashlib.sha256(data).hexdigest() for role, data in content.items()}


def read_cifar(canonical: CanonicalSet, fetch: Fetch) -> tuple[ArraysBySplit, dict[str, str]]:
    """CIFAR binary: records of a label (CIFAR-100: coarse, then fine) and 3072 bytes, channel by channel."""
    file = canonical.files["archive"]
    path = fetch(file)
    wanted = _CIFAR_FILES[file.name]
    content = {name: data for name, data in members(path) if name in {*wanted["train"], *wanted["test"]}}
    splits = {}
    for split, names in wanted.items():
        if missing := [name for name in names if name not in content]:
            raise EqcollapseError(f"{file.name}: has no file {missing[0]}")
        label_bytes = 2 if len(canonical.classes) == 100 else 1
        record = label_bytes + int(np.prod(canonical.shape))
        data = b"".join(content.pop(name) for name in names)
        if len(data) != canonical.counts[split] * record:
            raise EqcollapseError(f"{names[0]} in {file.name}: not {canonical.counts[split]} records of {record} bytes")
        records = np.frombuffer(data, dtype=np.uint8).reshape(-1, record)
        labels = _labels(records[:, label_bytes - 1], canonical, names[0])
        splits[split] = records[:, label_bytes:].reshape(-1, *canonical.shape), labels
    return splits, {file.name: file_digest(path, "sha256")}


def read_digits(canonical: CanonicalSet, fetch: Fetch) -> tuple[ArraysBySplit, dict[str, str]]:
    """scikit-learn's 1,797 handwritten digits, values 0..16 as round(v * 255 / 16).

    They have no canonical test set. Here the last 30 samples of each class, in scikit-learn's order, are the
    test set (300), all others the training set (1,497).
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    levels, labels = digits.images.astype(np.uint8), digits.target.astype(np.int64)
    digest = hashlib.sha256(levels.tobytes() + labels.astype("<i8").tobytes()).hexdigest()
    if digest != _DIGITS_SHA256 or not np.array_equal(levels, digits.images):
        raise EqcollapseError(f"scikit-learn's digits have the sha256 {digest}, not {_DIGITS_SHA256}: another version?")
    images = np.rint(levels * (255 / 16)).astype(np.uint8)[:, None]
    from_end = np.zeros(len(labels), dtype=np.int64)
    for label in range(len(canonical.classes)):
        (where,) = np.nonzero(labels == label)
        from_end[where] = np.arange(len(where))[::-1]
    test = from_end < _DIGITS_TEST_PER_CLASS
    splits = {"train": (images[~test], labels[~test]), "test": (images[test], labels[test])}
    return splits, {"sklearn.datasets.load_digits": digest}


READERS = {
    "digits": read_digits,
    "mnist": read_idx,
    "fashion_mnist": read_idx,
    "cifar10": read_cifar,
    "cifar100": read_cifar,
}


def _idx(content: bytes, name: str, shape: tuple[int, ...]) -> np.ndarray:
    header = np.frombuffer(content[: 4 + 4 * len(shape)], dtype=">u4").tolist()
    size = IDX_HEADER["images" if len(shape) == 3 else "labels"] + int(np.prod(shape))
    if header != [0x0800 + len(shape), *shape] or len(content) != size:
        raise EqcollapseError(f"{name}: not an idx file of {shape} bytes")
    return np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


def _labels(labels: np.ndarray, canonical: CanonicalSet, name: str) -> np.ndarray:
    if labels.max() >= len(canonical.classes):
        raise EqcollapseError(f"{name}: label {labels.max()}, but there are {len(canonical.classes)} classes")
    return labels.astype(np.int64)
