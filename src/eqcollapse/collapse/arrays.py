"""Numbers that people hand over, or that a file holds, as tensors that torch can count and compute with."""

from typing import TypeVar, overload

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

Value = TypeVar("Value")


def present(name: str, value: Value | None) -> Value:
    """Return `value`; ValueError, with its `name`, where there is none."""
    if value is None:
        raise ValueError(f"there is no {name}")
    return value


@overload
def as_tensor(name: str, values: Tensor | ArrayLike) -> Tensor: ...


@overload
def as_tensor(name: str, values: Tensor | ArrayLike | None) -> Tensor | None: ...


def as_tensor(name: str, values: Tensor | ArrayLike | None) -> Tensor | None:
    """Return `values` (a tensor, an array, nested lists or None) as a tensor; ValueError for anything else."""
    if values is None or isinstance(values, Tensor):
        return values
    try:
        array = np.array(values)  # a copy: torch takes no read-only memory
    except (TypeError, ValueError, RuntimeError):
        array = None
    if array is None or array.dtype.kind not in "iuf":
        raise ValueError(f"{name} must be numbers in a tensor, an array or lists, not {type(values).__name__}")
    return from_array(name, array)


def from_array(name: str, array: np.ndarray | bytes) -> Tensor:
    """Return a numpy array of numbers as a tensor; ValueError, with its `name`, for anything else."""
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{name} is not an array")
    # torch has no unsigned types of more than 8 bits to count with, and no foreign byte orders.
    if array.dtype.kind in "ui":
        if array.dtype.kind == "u" and array.size and array.max() > np.iinfo(np.int64).max:
            raise ValueError(f"{name} holds numbers of {2**63} and more")
        array = array.astype(np.int64)
    elif array.dtype.kind == "f":
        array = array.astype(array.dtype.newbyteorder("="))
    else:
        raise ValueError(f"{name} holds {array.dtype}, not numbers")
    return torch.from_numpy(np.ascontiguousarray(array))
