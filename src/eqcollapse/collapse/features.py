"""Features from a file: read, checked, measured; safetensors or npz, neither of which can run code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike, sysconf
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from eqcollapse.collapse.arrays import from_array
from eqcollapse.collapse.metrics import Metrics, class_metrics, collapse_metrics
from eqcollapse.collapse.moments import Moments, check_not_transposed

FilePath = str | PathLike[str]

_TABLES, _SQUARES = 6, 3
"""Of float64, K×d and K×K, that are held at a time: for each class, with samples or without."""

PARTS = ("train", "test")
"""Of a run's own features.safetensors."""

_MAGIC = b"\x93NUMPY"


def read_tensors(path: FilePath) -> dict[str, Tensor]:
    """Return the named tensors of a .safetensors, .npz or .npy file (whose one array is named "array").

    ValueError if it is none of them, is damaged, or holds Python objects; FileNotFoundError if
    there is no such file.
    """
    path = Path(path)
    if path.suffix not in READERS:
        raise ValueError(f"{path} must end in {', '.join(READERS)}")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        return READERS[path.suffix](path)
    except MemoryError:
        raise
    except Exception as error:  # whatever the readers of others' formats make of what is damaged, or hostile
        raise ValueError(f"{path} cannot be read: {str(error) or type(error).__name__}") from error


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    return {name: _countable(name, tensor) for name, tensor in load_file(path).items()}


def _countable(name: str, tensor: Tensor) -> Tensor:
    """Return `tensor` as a type that torch can count and compute with."""
    if tensor.is_complex():
        raise ValueError(f"{name} holds {tensor.dtype}, not numbers")
    if tensor.dtype in (torch.uint16, torch.uint32, torch.uint64):
        return from_array(name, tensor.numpy())
    if tensor.is_floating_point() and tensor.element_size() == 1:
        return tensor.float()
    return tensor


def _read_numpy(path: Path) -> dict[str, Tensor]:
    with np.load(path, allow_pickle=False) as archive:
        unpacked = sum(member.file_size for member in archive.zip.infolist())
        if unpacked > _half_of_memory():
            raise ValueError(f"it unpacks to {unpacked} bytes, more than half of this machine's memory")
        return {name: from_array(name, archive[name]) for name in archive.files}


def _read_array(path: Path) -> dict[str, Tensor]:
    with open(path, "rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise ValueError("it is not an array of numpy's; an archive of them ends in .npz")
    return {"array": from_array("array", np.load(path, allow_pickle=False))}


def _half_of_memory() -> int:
    return sysconf("SC_PAGE_SIZE") * sysconf("SC_PHYS_PAGES") // 2


READERS = {".safetensors": _read_safetensors, ".npz": _read_numpy, ".npy": _read_array}


def pick(tensors: dict[str, Tensor], name: str, path: FilePath) -> Tensor:
    """Return the tensor `name`, or the only one there is; ValueError, with the names there are, if
    neither exists.
    """
    if name in tensors:
        return tensors[name]
    if len(tensors) == 1:
        return next(iter(tensors.values()))
    raise ValueError(f"{path} has no tensor {name!r}; it has {', '.join(sorted(tensors)) or 'none'}")


@dataclass(frozen=True)
class Measured:
    """What `measure` found: the moments, the metrics, and the numbers of each class."""

    moments: Moments
    metrics: Metrics
    classes: dict[str, Tensor]


def measure(
    path: FilePath,
    *,
    labels: FilePath | None = None,
    part: str | None = None,
    weight: FilePath | None = None,
    bias: FilePath | None = None,
    num_classes: int | None = None,
    majority: Sequence[int] | None = None,
    **options: Any,
) -> Measured:
    """Return what there is to measure of the features in a file.

    `path` holds "features" (N×d), and "labels" (N integers) unless `labels` names another file;
    "weight" (K×d) and "bias" (K) are taken from there too if present, or from the files `weight`
    and `bias`. The classes are the rows of the weight, or else `num_classes`, or else one more than
    the largest label. A .npy holds features alone; of a run's own features.safetensors, `part` ("train"
    unless given, or "test") is measured. `majority` and `options` go to `collapse_metrics`. ValueError or
    FileNotFoundError, with the file's name, on whatever is wrong.
    """
    tensors = _of_part(read_tensors(path), part, path)
    if Path(path).suffix == ".npy":
        if labels is None:
            raise ValueError(f"{path} has features alone: give their labels with --labels FILE")
        tensors = {"features": tensors["array"]}
    if "features" not in tensors:
        raise ValueError(f"{path} has no tensor 'features'; it has {', '.join(sorted(tensors)) or 'none'}")
    features = tensors["features"]
    classes = _labels(tensors, labels, path)
    W = tensors.get("weight") if weight is None else pick(read_tensors(weight), "weight", weight)
    b = tensors.get("bias") if bias is None else pick(read_tensors(bias), "bias", bias)
    if W is not None and features.ndim == 2:
        check_not_transposed(W, features.shape[-1])
    K = _num_classes(num_classes, W, classes)
    _check_room(K, features)
    moments = Moments.of(features, classes, K, W, b)
    metrics = collapse_metrics(moments, W, b, majority, **options)
    of_class: dict[str, Any] = {name: options[name] for name in ("mean", "between", "center_weight") if name in options}
    return Measured(moments, metrics, class_metrics(moments, W, b, **of_class))


def _labels(tensors: dict[str, Tensor], other: FilePath | None, path: FilePath) -> Tensor:
    if other is not None:
        return pick(read_tensors(other), "labels", other)
    if "labels" not in tensors:
        raise ValueError(f"{path} has no tensor 'labels'; it has {', '.join(sorted(tensors))}")
    return tensors["labels"]


def _of_part(tensors: dict[str, Tensor], part: str | None, path: FilePath) -> dict[str, Tensor]:
    """Return the tensors of one part of a run's own features, whose names are "train/features" and so on."""
    if part is None and ("features" in tensors or "train/features" not in tensors):
        return tensors
    prefix = f"{part or PARTS[0]}/"
    chosen = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    if not chosen:
        raise ValueError(f"{path} has no part {part!r}, since it is not a run's own features: leave --part out")
    return chosen


def _num_classes(given: int | None, weight: Tensor | None, labels: Tensor) -> int:
    if weight is not None and weight.ndim == 2:
        if given not in (None, len(weight)):
            raise ValueError(f"{given} classes do not go with a weight of {len(weight)} rows")
        return len(weight)
    if given is not None:
        return given
    if labels.is_floating_point() or labels.ndim != 1:
        raise ValueError(f"labels must be N integers, not {labels.dtype} of shape {tuple(labels.shape)}")
    if not len(labels):
        raise ValueError("there are no samples")
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0:
        raise ValueError(f"labels run from {lowest} to {highest}: they must be class numbers 0..K-1")
    return highest + 1


def _check_room(num_classes: int, features: Tensor) -> None:
    """Refuse what would fill the memory: labels that are no class numbers ask for as many classes as the largest."""
    dim = features.shape[-1] if features.ndim else 0
    needed = 8 * num_classes * (_TABLES * dim + _SQUARES * num_classes)
    if needed > _half_of_memory():
        raise ValueError(
            f"{num_classes} classes in {dim} dimensions take {needed} bytes, more than half of this machine's memory:"
            " labels must be class numbers 0..K-1"
        )
