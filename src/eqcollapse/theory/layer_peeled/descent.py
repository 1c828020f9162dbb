"""The layer-peeled models of paper A by projected gradient descent: explicit H = W_EX H0, linear DEQ z* = W_DQ z* + H0.

Cross-entropy through a classifier W without bias, H0 free, under (1/K) sum_k ||w_k||^2 <= E_W and
(1/K) sum_k ||h_k||^2 <= E_H for the features that W reads. Cross-entropy is convex in a sample's features, so
that the samples of a class may as well sit on their mean (Jensen): one column a class, weighted n_k / N, is
the whole problem, and any real R = n_A / n_B can be asked for.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from eqcollapse.collapse.frames import seli
from eqcollapse.runtime.errors import EqcollapseError
from eqcollapse.theory.distances import centred, distance, duality_error, frame_error
from eqcollapse.theory.layer_peeled.optimum import VANISHED_RATIO, peeled_optimum

MOMENTUM = 0.95
"""Of the descent (heavy ball), once it is past its WARM_UP."""

WARM_UP = 0.1
"""Share of the iterations without momentum: the first ones still sort out the scales of the layer and of H0, and with
momentum would overshoot into layers so large that the rest crawls.
"""

CHECK_EVERY = 100
"""Iterations between two looks for a diverged run."""


@dataclass(frozen=True)
class Imbalance:
    """One run: KA majority classes, R = n_A / n_B, and the seed of its start."""

    majority: int
    ratio: float
    seed: int


@dataclass(frozen=True)
class Peeled:
    """The end of B runs. loss, optimum (the exact minimum): B.

    weight: B x K x d; features: B x d x K, what the classifier reads; layer: B x d x d, W_EX or W_DQ.
    """

    loss: Tensor
    optimum: Tensor
    weight: Tensor
    features: Tensor
    layer: Tensor


@dataclass(frozen=True)
class PeeledModel:
    """Features = operator(layer) @ H0, and the way back.

    operator: W_EX or W_DQ -> B x d x d.
    pull_back: (operator, H0, features, dL/dfeatures) -> (dL/dlayer, dL/dH0).
    """

    operator: Callable[[Tensor], Tensor]
    pull_back: Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def _product_rule(operator: Tensor, free: Tensor, features: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """H = W_EX H0."""
    return gradient @ free.mT, operator.mT @ gradient


def _resolvent(layer: Tensor) -> Tensor:
    """(I - W_DQ)^-1, which solves z* = W_DQ z* + H0 exactly; a singular one turns up as a diverged run."""
    return torch.linalg.inv_ex(torch.eye(layer.shape[-1], dtype=layer.dtype) - layer)[0]


def _implicit(operator: Tensor, free: Tensor, features: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Implicit function theorem: u = (I - W_DQ)^-T dL/dz*, dL/dW_DQ = u z*^T, dL/dH0 = u."""
    adjoint = operator.mT @ gradient
    return adjoint @ features.mT, adjoint


MODELS = {"explicit": PeeledModel(lambda layer: layer, _product_rule), "deq": PeeledModel(_resolvent, _implicit)}


def minimise_peeled(
    model: str,
    cells: Sequence[Imbalance],
    *,
    num_classes: int,
    dim: int,
    bound_weight: float,
    bound_features: float,
    iterations: int,
    step: float,
    start: float,
    name: str = "minimise_peeled",
    progress: Callable[[int], None] | None = None,
) -> Peeled:
    """Run projected gradient descent with momentum on all `cells` at once, in float64.

    W and H0 start normal, on their bounds; W_EX or W_DQ starts as `start` / sqrt(d) x standard normal.
    Projecting the features scales H0, in which they are linear. The step taken is `step` / (min(E, 1) K max_k
    n_k / N) with E = sqrt(E_W E_H): gradients grow with the bounds and with the share of the largest classes.
    Momentum is for small bounds: near the R of minority collapse what pulls the minority classifiers together is
    some 1e-4 of the gradient, and would take plain descent more than 1e5 iterations.
    Raises EqcollapseError where a run diverges, and for what `peeled_optimum` refuses.
    """
    bound = (bound_weight * bound_features) ** 0.5
    minima = {key: peeled_optimum(num_classes, *key, bound).loss for key in {(c.majority, c.ratio) for c in cells}}
    targets, shares = torch.eye(num_classes, dtype=torch.float64), _shares(cells, num_classes)
    radius_weight, radius_features = (
        (num_classes * bound_weight) ** 0.5,
        (num_classes * bound_features) ** 0.5,
    )
    weight, layer, free = _start(cells, num_classes, dim, start)
    weight, free = _onto(weight, radius_weight), _onto(free, radius_features)
    rate = step / min(bound, 1) / (num_classes * shares.amax(2, keepdim=True))
    velocities = [torch.zeros_like(variable) for variable in (weight, layer, free)]
    for iteration in range(iterations):
        operator, free, features = _forward(MODELS[model], layer, free, radius_features)
        error = (torch.softmax(weight @ features, 1) - targets) * shares
        sideways = _tangent(weight.mT @ error, features)
        to_layer, to_free = MODELS[model].pull_back(operator, free, features, sideways)
        gradients = (_tangent(error @ features.mT, weight), to_layer, to_free)
        momentum = MOMENTUM if iteration >= WARM_UP * iterations else 0.0
        for velocity, gradient in zip(velocities, gradients, strict=True):
            velocity.mul_(momentum).sub_(rate * gradient)
        weight = _onto(weight + velocities[0], radius_weight)
        layer, free = layer + velocities[1], free + velocities[2]
        if iteration % CHECK_EVERY == 0:
            _check_finite(weight, name, iteration, step)
            if progress:
                progress(iteration)
    _, free, features = _forward(MODELS[model], layer, free, radius_features)
    _check_finite(weight + features.sum(), name, iterations, step)
    logits = weight @ features
    losses = torch.logsumexp(logits, 1) - logits.diagonal(dim1=1, dim2=2)
    losses = (losses * shares[:, 0]).sum(1)
    if not bool((losses < math.log(num_classes) * (1 + 1e-9)).all()):  # the loss of logits that say nothing
        raise _diverged(name, iterations, step)
    exact = torch.tensor([minima[c.majority, c.ratio] for c in cells], dtype=torch.float64)
    return Peeled(losses, exact, weight, features, layer)


def geometry(result: Peeled, cells: Sequence[Imbalance]) -> dict[str, Tensor]:
    """Measure the end of the runs, each value B.

    minority_cosine: mean cosine between two minority classifiers (rows of W as they are; 1: minority
    collapse, nan: they have vanished); norm_ratio: mean norm of minority over majority classifiers; nc2, nc3:
    paper A's, distance of W W^T and of W M to the simplex ETF; etf_features: of the centred class means' Gram
    matrix; seli_weight,
    seli_features: distance of W W^T and M^T M to the SELI geometry; self_duality: of W from M^T, each centred and of
    unit norm (nc3_duality of the networks);
    layer_norm: the spectral norm of W_EX or W_DQ (below 1, the DEQ's plain iteration converges).
    """
    weight, features = result.weight, result.features
    means = centred(features)
    cosine, ratio = _minority(weight, cells)
    seli_weight, seli_means = _seli_targets(cells, weight.shape[1])
    return {
        "minority_cosine": cosine,
        "norm_ratio": ratio,
        "nc2": frame_error(weight @ weight.mT, "simplex"),
        "nc3": frame_error(weight @ means, "simplex"),
        "etf_features": frame_error(means.mT @ means, "simplex"),
        "seli_weight": distance(weight @ weight.mT, seli_weight),
        "seli_features": distance(features.mT @ features, seli_means),
        "self_duality": duality_error(centred(weight.mT).mT, means),
        "layer_norm": torch.linalg.matrix_norm(result.layer, 2),
    }


def _start(cells: Sequence[Imbalance], num_classes: int, dim: int, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    shapes = ((num_classes, dim), (dim, dim), (dim, num_classes))
    draws = {}
    for seed in {cell.seed for cell in cells}:
        generator = np.random.default_rng(seed)
        draws[seed] = [torch.from_numpy(generator.standard_normal(shape)) for shape in shapes]
    weight, layer, free = (torch.stack([draws[cell.seed][i] for cell in cells]) for i in range(3))
    return weight, layer * (scale / dim**0.5), free


def _shares(cells: Sequence[Imbalance], num_classes: int) -> Tensor:
    """n_k / N, B x 1 x K."""
    sizes = torch.stack([_sizes(cell, num_classes) for cell in cells])
    return (sizes / sizes.sum(1, keepdim=True))[:, None]


def _sizes(cell: Imbalance, num_classes: int) -> Tensor:
    sizes = torch.ones(num_classes, dtype=torch.float64)
    sizes[: cell.majority] = cell.ratio
    return sizes


def _forward(model: PeeledModel, layer: Tensor, free: Tensor, radius: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return the operator, and H0 and the features, scaled so that the features lie on their sphere."""
    operator = model.operator(layer)
    features = operator @ free
    scale = _scale(features, radius)
    return operator, free * scale, features * scale


def _scale(matrix: Tensor, radius: float) -> Tensor:
    return (radius / torch.linalg.matrix_norm(matrix))[:, None, None]


def _onto(matrix: Tensor, radius: float) -> Tensor:
    """Project onto the Frobenius sphere: both bounds are active at the minimum."""
    return matrix * _scale(matrix, radius)


def _tangent(gradient: Tensor, on_sphere: Tensor) -> Tensor:
    """Drop the part of a gradient along what stays on its sphere, W or the features.

    Left in that of the features, it would feed W_EX or W_DQ step by step while the projection takes it from H0 alone:
    the layer would grow without end, its strong directions most, and the descent would no longer descend.
    """
    along = (gradient * on_sphere).sum((1, 2)) / on_sphere.square().sum((1, 2))
    return gradient - along[:, None, None] * on_sphere


def _check_finite(weight: Tensor, name: str, iteration: int, step: float) -> None:
    if not bool(torch.isfinite(weight.sum())):
        raise _diverged(name, iteration, step)


def _diverged(name: str, iteration: int, step: float) -> EqcollapseError:
    return EqcollapseError(
        f"{name}: projected gradient descent diverged by iteration {iteration} (step {step:g}); "
        "take a smaller `step`, or a smaller `start`"
    )


def _minority(weight: Tensor, cells: Sequence[Imbalance]) -> tuple[Tensor, Tensor]:
    cosines, ratios = [], []
    for rows, cell in zip(weight, cells, strict=True):
        norms = rows.norm(dim=1)
        ratio = norms[cell.majority :].mean() / norms[: cell.majority].mean()
        unit = rows[cell.majority :] / norms[cell.majority :, None]
        size = len(unit)
        cosine = ((unit @ unit.T).sum() - size) / (size * (size - 1))
        cosines.append(cosine if ratio > VANISHED_RATIO else torch.full_like(cosine, torch.nan))
        ratios.append(ratio)
    return torch.stack(cosines), torch.stack(ratios)


def _seli_targets(cells: Sequence[Imbalance], num_classes: int) -> tuple[Tensor, Tensor]:
    pairs = [seli(_sizes(cell, num_classes)) for cell in cells]
    weights, means = zip(*pairs, strict=True)
    return torch.stack(weights), torch.stack(means)
