"""Loss and collapse metrics of a batch of runs, float64, batched over the leading dimension.

NC2 and NC3 are those of Tirer & Bruna as eqcollapse.collapse has them (preset tirer2022): the distances and the frames
are its own, and the global mean is removed where the frame is the simplex ETF. NC1 is written out again, for a batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from eqcollapse.theory.distances import VANISHED, centred, duality_error, frame_error
from eqcollapse.theory.ufm.problem import Problem
from eqcollapse.theory.ufm.samples import Samples

RANK_CUT = 1e-3
"""A singular value counts towards the rank of the class means when it is above this share of the largest."""
ROUNDING = 1e-13
"""A singular value of centred class means below this share of their norm is what rounding has left of 0."""


@dataclass(frozen=True)
class Measurement:
    """One logged iteration: loss (B), and nc1, nc2, nc3, rank (B x L), one column a layer's features."""

    loss: Tensor
    nc1: Tensor
    nc2: Tensor
    nc3: Tensor
    rank: Tensor


def measure(
    problem: Problem, samples: Samples, activations: Sequence[Tensor], weights: Sequence[Tensor], loss: Tensor
) -> Measurement:
    """Measure the features that each W_l reads; `activations` are H and what follows, the output last."""
    rows = []
    for layer in range(problem.layers):
        means, deviations = samples.split(activations[layer])
        reader = _product(weights[layer:])
        rows.append(_of_layer(problem, means, deviations, reader))
    nc1, nc2, nc3, rank = (torch.stack(column, 1) for column in zip(*rows, strict=True))
    return Measurement(loss, nc1, nc2, nc3, rank)


def nc1(means: Tensor, deviations: Tensor, num_samples: int) -> Tensor:
    """Tr(S_W S_B^+) / K (0 at collapse), B, from class means B x d x K and D with S_W = D D^T / N.

    S_B is about the unweighted mean of the class means; what rounding leaves of directions in which these do not differ
    (dead ReLUs, say) counts as 0. nan where the class means have vanished, or do not differ at all: there is nothing
    then to hold the scatter against.
    """
    left, values, _ = torch.linalg.svd(centred(means), full_matrices=False)
    # Of the class means themselves: where they are all the same, what is left of them has no scale of its own.
    scale = torch.linalg.matrix_norm(means)[:, None]
    values = torch.where(values > ROUNDING * scale, values, torch.inf)
    traces = ((left.mT @ deviations) / values[:, :, None]).square().sum((1, 2)) / num_samples
    found = values[:, 0].isfinite() & (scale[:, 0] > VANISHED)
    return torch.where(found, traces, torch.nan)


def _of_layer(problem: Problem, means: Tensor, deviations: Tensor, reader: Tensor) -> tuple[Tensor, ...]:
    framed = means if problem.frame == "orthogonal" else _unless_rounding(centred(means), means)
    values = torch.linalg.svdvals(means)
    rank = (values > (RANK_CUT * values[:, :1]).clamp(min=VANISHED)).sum(1)
    return (
        nc1(means, deviations, problem.num_samples),
        frame_error(framed.mT @ framed, problem.frame),
        duality_error(reader, framed),
        rank,
    )


def _product(weights: Sequence[Tensor]) -> Tensor:
    """W_L ... W_l, B x K x d: what reads a layer's features; with ReLU, where all of them are active."""
    product = weights[-1]
    for weight in reversed(weights[:-1]):
        product = product @ weight
    return product


def _unless_rounding(middle: Tensor, means: Tensor) -> Tensor:
    """Return the centred class means `middle`, or nan where the `means` differ by rounding alone."""
    norm, scale = (torch.linalg.matrix_norm(matrix)[:, None, None] for matrix in (middle, means))
    return torch.where(norm > ROUNDING * scale, middle, torch.nan)
