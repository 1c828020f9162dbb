"""Passes as named tensors, and back: what moments are stored as, and how other tensors are told from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from eqcollapse.collapse.streaming import FirstPass, SecondPass

Tensors = dict[str, Tensor]

INTEGERS, FLOATS = torch.int64, torch.float64


def tensors_of(first: FirstPass, second: SecondPass | None) -> Tensors:
    """Return the named tensors of both passes, as docs of `Moments.tensors` list them."""
    tensors = {"counts": first.counts, "means": first.means, "traces": first.traces}
    if second is not None:
        row, column = _triangle(second.basis.shape[1])
        tensors |= {
            name: getattr(second, field) for name, field in FIELDS.items() if getattr(second, field) is not None
        }
        tensors["scatter"] = second.scatter[:, row, column]
    return tensors


def passes_of(tensors: Tensors) -> tuple[FirstPass, SecondPass | None]:
    """Return the passes that `tensors_of` was given, in memory of their own; ValueError, with the name of the tensor,
    if they cannot have been.
    """
    check_tensors(tensors)
    counts, means, traces = (tensors[name].clone() for name in FIRST)
    centres = means.masked_fill(counts[:, None] == 0, 0.0)
    first = FirstPass(counts, centres, torch.zeros_like(means), traces)
    if "basis" not in tensors:
        return first, None
    fields = {field: tensors[name].clone() for name, field in FIELDS.items() if name in tensors}
    rank = tensors["basis"].shape[1]
    row, column = _triangle(rank)
    scatter = fields["scatter"].new_zeros(len(fields["scatter"]), rank, rank)
    scatter[:, row, column] = fields["scatter"]
    scatter[:, column, row] = fields["scatter"]
    return first, SecondPass(**(fields | {"scatter": scatter}))


def _triangle(rank: int) -> tuple[Tensor, Tensor]:
    row, column = torch.triu_indices(rank, rank)
    return row, column


FIRST = ("counts", "means", "traces")
SECOND = ("basis", "shift", "scatter", "second_counts", "second_traces", "centre_correct")
POOLED = ("spread",)
DECIDED = ("agreeing", "correct", "fingerprint")

FIELDS = {name: name for name in (*SECOND, *POOLED, *DECIDED)} | {"second_counts": "counts", "second_traces": "squares"}
"""The second pass's fields by the names of their tensors."""


@dataclass(frozen=True)
class TensorKind:
    """What a stored tensor is: its dtype, its shape in letters (K, d; r directions; P scatters, of t numbers each), and
    what is said where its values cannot be, by a function that finds such a place.
    """

    dtype: torch.dtype
    shape: tuple[str, ...]
    wrong: str = ""
    finds: Callable[[Tensor, Tensors], Tensor] = lambda values, tensors: torch.zeros(())


def _negative(values: Tensor, tensors: Tensors) -> Tensor:
    return values < 0


def _no_part(values: Tensor, tensors: Tensors) -> Tensor:
    return (values < 0) | (values > tensors["second_counts"])


def _odd_means(values: Tensor, tensors: Tensors) -> Tensor:
    """Features that are not finite are so in both; those whose squares overflow have a finite mean."""
    return ~values.isfinite().all(1) & tensors["traces"].isfinite() & (tensors["counts"] > 0)


def _odd_traces(values: Tensor, tensors: Tensors) -> Tensor:
    return (values < 0) | (values.isnan() & tensors["means"].isfinite().all(1))


def _odd_second_traces(values: Tensor, tensors: Tensors) -> Tensor:
    told = tensors["shift"].isfinite().all(1) & (tensors["shift"].shape[1] > 0)
    return (values < 0) | (values.isnan() & told)


def _infinite(values: Tensor, tensors: Tensors) -> Tensor:
    return ~values.isfinite()


def _odd_shift(values: Tensor, tensors: Tensors) -> Tensor:
    return ~values.isfinite() & tensors["second_traces"].isfinite()[:, None]


def _odd_spread(values: Tensor, tensors: Tensors) -> Tensor:
    return (values < 0) | _odd_shift(values, tensors)


def _odd_scatter(values: Tensor, tensors: Tensors) -> Tensor:
    row, column = _triangle(tensors["basis"].shape[1])
    traces = tensors["second_traces"]
    finite = (traces.sum(0, keepdim=True) if "spread" in tensors else traces).isfinite()
    return (~values.isfinite() & finite[:, None]) | ((values < 0) & (row == column))


KINDS = {
    "counts": TensorKind(INTEGERS, ("K",), "negative", _negative),
    "means": TensorKind(FLOATS, ("K", "d"), "not finite where traces is", _odd_means),
    "traces": TensorKind(FLOATS, ("K",), "negative, or nan where means is finite", _odd_traces),
    "basis": TensorKind(FLOATS, ("d", "r"), "not finite", _infinite),
    "shift": TensorKind(FLOATS, ("K", "r"), "not finite where second_traces is", _odd_shift),
    "scatter": TensorKind(
        FLOATS, ("P", "t"), "negative on a diagonal, or not finite where second_traces is", _odd_scatter
    ),
    "second_counts": TensorKind(INTEGERS, ("K",), "negative", _negative),
    "second_traces": TensorKind(FLOATS, ("K",), "negative, or nan where shift is finite", _odd_second_traces),
    "centre_correct": TensorKind(INTEGERS, ("K",), "not between 0 and second_counts", _no_part),
    "spread": TensorKind(FLOATS, ("K", "r"), "negative, or not finite where second_traces is", _odd_spread),
    "agreeing": TensorKind(INTEGERS, ("K",), "not between 0 and second_counts", _no_part),
    "correct": TensorKind(INTEGERS, ("K",), "not between 0 and second_counts", _no_part),
    "fingerprint": TensorKind(FLOATS, ("K", "3")),
}


def check_tensors(tensors: Tensors) -> None:
    """Raise ValueError, with the name of the tensor, for tensors that no moments are stored as.

    What only the features can tell, such as another sign of all means, is not seen.
    """
    _check_names(set(tensors))
    sizes = _sizes(tensors)
    for name, tensor in tensors.items():
        kind = KINDS[name]
        expected = tuple(sizes[letter] for letter in kind.shape)
        if tensor.dtype != kind.dtype or tuple(tensor.shape) != expected:
            beside = " and ".join(
                f"{_by(tensors[other].shape)} {other}" for other in ("means", "basis") if other in tensors
            )
            raise ValueError(
                f"{name} must be {_by(expected)} {kind.dtype}, not {_by(tensor.shape)} {tensor.dtype}, beside {beside}"
            )
    for name, tensor in tensors.items():
        if bool(KINDS[name].finds(tensor, tensors).any()):
            raise ValueError(f"{name} holds numbers that are {KINDS[name].wrong}")


def _check_names(names: set[str]) -> None:
    required = {*FIRST}
    for group in (SECOND, POOLED, DECIDED):
        if names & {*group}:
            required |= {*SECOND, *group}
    missing, unknown = sorted(required - names), sorted(names - KINDS.keys())
    if missing or unknown:
        raise ValueError(f"missing tensors {missing}, unknown tensors {unknown}")


def _sizes(tensors: Tensors) -> dict[str, int]:
    means = tensors["means"]
    if means.ndim != 2 or 0 in means.shape:
        raise ValueError(f"means must be K×d, not of shape {_by(means.shape)}")
    sizes = {"K": means.shape[0], "d": means.shape[1], "3": 3}
    if "basis" in tensors:
        basis = tensors["basis"]
        if basis.ndim != 2 or basis.shape[1] > min(sizes["K"] - 1, sizes["d"]):
            raise ValueError(f"basis must be d×r, r < K, not {_by(basis.shape)}, beside {_by(means.shape)} means")
        rank = basis.shape[1]
        sizes |= {"r": rank, "t": rank * (rank + 1) // 2, "P": 1 if "spread" in tensors else sizes["K"]}
    return sizes


def _by(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "()"
