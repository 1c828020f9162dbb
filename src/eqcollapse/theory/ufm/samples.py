"""Coordinates of the sample space in which a descent runs: all N columns, or K + d rotated ones.

For a linear model with squared error, H -> H Q with Q orthonormal (N x C) changes nothing as long as the
range of Q holds the rows of H, of Y and of 1^T: every gradient step commutes with it, and so do the loss, the
class means and the within-class scatter. Q = [class indicators / sqrt(n), basis of the start's within-class
deviations] is such a one and has K + d columns, however many samples there are.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Samples:
    """Targets Y (K x C) and the row of ones (1 x 1 x C) in a descent's coordinates, and the way out of them.

    split: features B x d x C -> class means B x d x K and deviations D, B x d x any, with S_W = D D^T / N.
    restore: a descent's state in these coordinates -> the state with features B x d x N.
    """

    targets: Tensor
    ones: Tensor
    split: Callable[[Tensor], tuple[Tensor, Tensor]]
    restore: Callable


def spelled_out(num_classes: int, per_class: int) -> Samples:
    """Return the coordinates in which each column is a sample, classes one after the other."""
    eye = torch.eye(num_classes, dtype=torch.float64)
    targets = eye.repeat_interleave(per_class, 1)
    ones = torch.ones(1, 1, targets.shape[1], dtype=torch.float64)

    def split(features: Tensor) -> tuple[Tensor, Tensor]:
        return _means_and_deviations(features, num_classes)

    return Samples(targets, ones, split, lambda state: state)


def rotated(features: Tensor, num_classes: int) -> tuple[Samples, Tensor]:
    """Return rotated coordinates that hold `features`, B x d x N, and the features in them, B x d x (K + d)."""
    per_class = features.shape[2] // num_classes
    root = per_class**0.5
    means, deviations = _means_and_deviations(features, num_classes)
    basis, triangle = torch.linalg.qr(deviations.mT)

    def split(columns: Tensor) -> tuple[Tensor, Tensor]:
        return columns[..., :num_classes] / root, columns[..., num_classes:]

    def restore(state: Any) -> Any:
        means, rest = split(state.features)
        return replace(state, features=means.repeat_interleave(per_class, 2) + rest @ basis.mT)

    padding = features.new_zeros(num_classes, triangle.shape[1])
    targets = torch.cat([root * torch.eye(num_classes, dtype=features.dtype), padding], 1)
    return Samples(targets, targets.sum(0)[None, None], split, restore), torch.cat([root * means, triangle.mT], 2)


def _means_and_deviations(features: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    grouped = features.unflatten(2, (num_classes, -1))
    means = grouped.mean(3)
    return means, (grouped - means[..., None]).flatten(2)
