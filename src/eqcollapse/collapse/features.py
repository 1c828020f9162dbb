"""Features from a file: read, checked, measured; safetensors or npz, neither of which can run code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from eqcollapse.collapse.metrics import Metrics, class_metrics, collapse_metrics
from eqcollapse.collapse.moments import Moments

FilePath = str | PathLike[str]


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
    except (SafetensorError, BadZipFile, ValueError, TypeError, EOFError, OSError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def _read_numpy(path: Path) -> dict[str, Tensor]:
    with np.load(path, allow_pickle=False) as archive:
        return {name: _tensor(name, archive[name]) for name in archive.files}


def _read_array(path: Path) -> dict[str, Tensor]:
    return {"array": _tensor("array", np.load(path, allow_pickle=False))}


def _tensor(name: str, array: np.ndarray) -> Tensor:
    # torch has no unsigned types of more than 8 bits to count with, and no foreign byte orders.
    if array.dtype.kind in "ui":
        array = array.astype(np.int64)
    elif array.dtype.kind == "f":
        array = array.astype(array.dtype.newbyteorder("="))
    else:
        raise ValueError(f"{name} holds {array.dtype}, not numbers")
    return torch.from_numpy(np.ascontiguousarray(array))


READERS = {".safetensors": load_file, ".npz": _read_numpy, ".npy": _read_array}


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
    weight: FilePath | None = None,
    bias: FilePath | None = None,
    num_classes: int | None = None,
    majority: Sequence[int] | None = None,
    **options: object,
) -> Measured:
    """Return what there is to measure of the features in a file.

    `path` holds "features" (N×d), and "labels" (N integers) unless `labels` names another file;
    "weight" (K×d) and "bias" (K) are taken from there too if present, or from the files `weight`
    and `bias`. The classes are the rows of the weight, or else `num_classes`, or else one more than
    the largest label. `majority` and `options` go to `collapse_metrics`. ValueError or
    FileNotFoundError, with the file's name, on whatever is wrong.
    """
    tensors = read_tensors(path)
    if "features" not in tensors:
        raise ValueError(f"{path} has no tensor 'features'; it has {', '.join(sorted(tensors)) or 'none'}")
    features = tensors["features"]
    classes = _labels(tensors, labels, path)
    W = tensors.get("weight") if weight is None else pick(read_tensors(weight), "weight", weight)
    b = tensors.get("bias") if bias is None else pick(read_tensors(bias), "bias", bias)
    moments = Moments.of(features, classes, _num_classes(num_classes, W, classes), W, b)
    metrics = collapse_metrics(moments, W, b, majority, **options)
    of_class = {name: options[name] for name in ("mean", "between", "center_weight") if name in options}
    return Measured(moments, metrics, class_metrics(moments, W, b, **of_class))


def _labels(tensors: dict[str, Tensor], other: FilePath | None, path: FilePath) -> Tensor:
    if other is not None:
        return pick(read_tensors(other), "labels", other)
    if "labels" not in tensors:
        raise ValueError(f"{path} has no tensor 'labels'; it has {', '.join(sorted(tensors))}")
    return tensors["labels"]


def _num_classes(given: int | None, weight: Tensor | None, labels: Tensor) -> int:
    if weight is not None and weight.ndim == 2:
        if given not in (None, len(weight)):
            raise ValueError(f"{given} classes do not go with a weight of {len(weight)} rows")
        return len(weight)
    if given is not None:
        return given
    if not len(labels):
        raise ValueError("there are no samples")
    return int(labels.max()) + 1
