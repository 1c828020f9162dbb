"""NC2 and NC3 on the K×K side: norms and angles of class means and classifiers, and their duality."""

import math

import torch
from torch import Tensor

from eqcollapse.collapse.frames import structure_error, unit_distance
from eqcollapse.collapse.streaming import EPSILON
from eqcollapse.collapse.variability import ROUNDING


def gram(rows: Tensor) -> Tensor:
    """Return the K×K inner products of `rows` (K×d)."""
    return rows @ rows.T


def cosines(rows: Tensor) -> Tensor:
    """Return the K×K cosines between `rows` (K×d); nan with a zero row."""
    return gram(rows / torch.linalg.norm(rows, dim=1, keepdim=True)).clamp(-1.0, 1.0)


def equinorm(rows: Tensor) -> float:
    """Return std_k ||x_k|| / mean_k ||x_k|| of `rows` (K×d): 0 at collapse. The standard deviation is
    that of K, not K - 1.

    Papyan, Han & Donoho 2020, figure 2.
    """
    norms = torch.linalg.norm(rows, dim=1)
    return float(norms.std(correction=0) / norms.mean())


def equiangle(rows: Tensor) -> float:
    """Return the mean of |cos(x_j, x_k) + 1/(K-1)| over pairs of `rows` (K×d): 0 at collapse to a simplex
    ETF.

    Papyan, Han & Donoho 2020, figure 4.
    """
    values = off_diagonal(cosines(rows))
    return float((values + 1 / (len(rows) - 1)).abs().mean())


def off_diagonal(square: Tensor) -> Tensor:
    """Return the K(K-1) entries of `square` (K×K) off its diagonal."""
    return square[~torch.eye(len(square), dtype=torch.bool)]


def product_error(weight: Tensor, means: Tensor, target: Tensor) -> float:
    """Return ||W M/||W M||_F - T||_F of `weight` W (K×d) and `means` M^T (K×d): NC3 in the form of Zhu et
    al. 2021.
    """
    product = weight @ means.T
    rounding = ROUNDING * EPSILON * torch.linalg.norm(weight) * torch.linalg.norm(means)
    if torch.linalg.norm(product) <= rounding:
        return math.nan
    return structure_error(product, target)


def duality_error(weight: Tensor, means: Tensor) -> float:
    """Return ||W/||W||_F - M^T/||M||_F||_F of `weight` (K×d) and `means` M^T (K×d): Papyan et al. 2020,
    not squared.
    """
    return float(unit_distance(weight, means))


def misalignment(weight: Tensor, means: Tensor) -> Tensor:
    """Return 1 - cos(w_k, m_k) for the rows of `weight` and `means` (K×d): shape K, 0 at self-duality."""
    return 1 - torch.nn.functional.cosine_similarity(weight, means, dim=1, eps=0.0)
