"""NC1 and its relatives: within-class variability against the distance of the class means."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from eqcollapse.collapse.streaming import EPSILON

ROUNDING = 4.0
"""Singular values of the centred means below this many roundings of the means themselves are no
directions.
"""


@dataclass(frozen=True)
class Between:
    """The between-class covariance S_B = sum_k v_k (m_k - c)(m_k - c)^T of k classes by its non-zero
    eigenvalues.

    `eigenvalues` (rank), largest first; `whitening` (r×rank), with columns q_j / sqrt(eigenvalue_j) in
    the coordinates the means came in, so that S_B^+ = `whitening` `whitening`^T; `expected`, the rank of
    k means in general position; `trace` Tr S_B.
    """

    eigenvalues: Tensor
    whitening: Tensor
    expected: int

    @property
    def rank(self) -> int:
        """The rank that Tr(S_W S_B^+) is taken over."""
        return len(self.eigenvalues)

    @property
    def eigenvalue_ratio(self) -> float:
        """Smallest to largest non-zero eigenvalue; nan without any."""
        return float(self.eigenvalues[-1] / self.eigenvalues[0]) if self.rank else float("nan")


def between_classes(means: Tensor, weights: Tensor, rounding: float) -> Between:
    """Return S_B of the centred `means` (k×r) with `weights` v (k, sum 1).

    `rounding` is the float64 rounding error of the means as a Frobenius norm: eigenvalues that it
    explains are zero. The singular values are cut, not the eigenvalues, and never at a share of the
    largest: minority means collapse towards each other by orders of magnitude, and a relative cut would
    drop exactly what is to be measured.
    """
    root = weights.sqrt()
    _, values, rows = torch.linalg.svd(root[:, None] * means, full_matrices=False)
    expected = max(0, min(len(means) - 1, means.shape[1]))
    kept = int((values[:expected] > ROUNDING * rounding * float(root.max())).sum())
    return Between(values[:kept].square(), rows[:kept].T / values[:kept], expected)


def whitened_trace(scatter: Tensor, between: Between) -> Tensor:
    """Return Tr(S S_B^+) for `scatter` S (...×r×r), shape ...: sum_j q_j^T S q_j / eigenvalue_j.

    Never negative, though S of exactly collapsed features may be so by its rounding.
    """
    return torch.einsum("...ij,il,jl->...", scatter, between.whitening, between.whitening).clamp(min=0.0)


def rounding_of(means: Tensor) -> float:
    """Return the Frobenius norm of the float64 rounding errors of `means` (k×d)."""
    return EPSILON * float(torch.linalg.norm(means))


def pairwise_cdnv(means: Tensor, variances: Tensor) -> Tensor:
    """Return (v_i + v_j) / (2 ||m_i - m_j||^2) of the class means as they are (k×d) and `variances` v (k): k×k, nan
    on the diagonal.

    Class-distance normalised variance: Galanti, György & Hutter 2022. Equal means give inf (nan without
    variance), as do means that differ by their own rounding alone. A class far away costs the other pairs no
    digits: nothing is centred on what is not of the pair.
    """
    norms = torch.linalg.norm(means, dim=1)
    distances = torch.cdist(means, means, compute_mode="donot_use_mm_for_euclid_dist")
    distances = distances.masked_fill(distances <= ROUNDING * EPSILON * torch.hypot(norms[:, None], norms), 0.0)
    return ((variances[:, None] + variances[None, :]) / (2 * distances.square())).fill_diagonal_(torch.nan)
