"""Points of the deep linear model with cross-entropy that lie below full collapse, found by a small search.

Full collapse need not be the minimum of such a model from two layers on (Garrod & Keating 2025). At equal prices the
loss of K classes in F factors is

    fit(A_F ... A_1) + price / 2 sum_f ||A_f||_F^2,   A_F K x r, A_1 r x K, the others r x r,

and a Problem's own lambdas only rescale the factors (Problem.penalty is the price), so that each value found is the
loss of a point of the model: features equal within a class, zeros beside r of the d dimensions, no bias.
"""

from functools import cache

import numpy as np
from scipy.optimize import minimize

WIDTHS = range(1, 7)
"""Widths r that are tried, as far as there are so many dimensions: what lies below full collapse is of low rank."""
STARTS = (0.5, 1.0, 2.0)
"""Scales of the normal starts, two of each for a width; divided by sqrt(r)."""

Factors = tuple[np.ndarray, ...]


@cache
def lowest_found(num_classes: int, num_factors: int, price: float, dim: int) -> tuple[float, Factors]:
    """Return the least loss that the search finds, and its factors A_F, ..., A_1. Its seed is fixed."""
    generator = np.random.default_rng(0)
    found = []
    for width in WIDTHS[: min(num_classes - 1, dim)]:
        inner = [(width, width)] * (num_factors - 2)
        shapes = [(num_classes, width), *inner, (width, num_classes)]
        size = sum(rows * columns for rows, columns in shapes)
        for scale in STARTS * 2:
            start = scale / width**0.5 * generator.standard_normal(size)
            end = minimize(
                _loss, start, (shapes, price), "L-BFGS-B", jac=True, options={"maxiter": 1000, "ftol": 1e-12}
            )
            found.append((float(end.fun), end.x, shapes))
    loss, point, shapes = min(found, key=lambda end: end[0])
    return loss, tuple(_split(point, shapes))


def _split(point: np.ndarray, shapes: list[tuple[int, int]]) -> list[np.ndarray]:
    ends = np.cumsum([rows * columns for rows, columns in shapes])[:-1]
    return [part.reshape(shape) for part, shape in zip(np.split(point, ends), shapes, strict=True)]


def _loss(point: np.ndarray, shapes: list[tuple[int, int]], price: float) -> tuple[float, np.ndarray]:
    """Return the loss at a point, and its gradient."""
    factors = _split(point, shapes)
    K = shapes[0][0]
    before = [np.eye(K)]
    for factor in factors:
        before.append(before[-1] @ factor)
    output = before[-1] - before[-1].max(0)
    exponentials = np.exp(output)
    sums = exponentials.sum(0)
    fit = (np.log(sums) - np.diag(output)).mean()
    error, gradients = (exponentials / sums - np.eye(K)) / K, []
    for left, factor in zip(reversed(before[:-1]), reversed(factors), strict=True):
        gradients.append((left.T @ error + price * factor).ravel())
        error = error @ factor.T
    return fit + price / 2 * point @ point, np.concatenate(gradients[::-1])
