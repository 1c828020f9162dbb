"""How the next iterate is chosen: Picard, Anderson, Broyden.

A method sees every evaluation through `observe(z, fz)`, which returns the residual f(z) - z, and then says
through `propose()` where to evaluate next. States are (B, D): one flattened sample a row, and no row ever
looks at another. It neither counts, nor tests convergence, nor keeps the best iterate: those are `solve`'s.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from .solver_config import SolverConfig
from .workspace import Workspace


class Method(Protocol):
    """What `solve` asks of a method."""

    def observe(self, z: Tensor, fz: Tensor) -> Tensor: ...

    def propose(self) -> Tensor: ...

    def close(self, workspace: Workspace) -> None: ...


class Picard:
    """z <- f(z): linear convergence at the rate of f's contraction, no memory."""

    def __init__(self, z0: Tensor, config: SolverConfig, workspace: Workspace) -> None:
        self._image = z0

    def observe(self, z: Tensor, fz: Tensor) -> Tensor:
        """Take f(z) (B, D); return the residual (B, D)."""
        residual = fz - z
        self._image = fz.clone()  # f may write its next result where this one is, as a captured CUDA graph does
        return residual

    def propose(self) -> Tensor:
        """Return f(z)."""
        return self._image

    def close(self, workspace: Workspace) -> None:
        """Nothing was lent."""


class Anderson:
    """Anderson acceleration, type II, without damping (Walker & Ni 2011, algorithm AA).

    z <- sum_i a_i f(z_i) over the last m iterates, where a minimises ||sum_i a_i r_i|| under sum a = 1. Ring
    buffers are made once; an evaluation adds one row to the Gram matrix of residuals, whose m×m system is
    solved in float64.
    """

    def __init__(self, z0: Tensor, config: SolverConfig, workspace: Workspace) -> None:
        batch, dim = z0.shape
        window = min(config.memory, config.max_iter)
        self._ridge = config.ridge
        self._window = window
        self._count = 0
        self._images = workspace.take((batch, window, dim), like=z0)
        self._residuals = workspace.take((batch, window, dim), like=z0)
        self._gram = torch.zeros(batch, window, window, dtype=torch.float64, device=z0.device)

    def observe(self, z: Tensor, fz: Tensor) -> Tensor:
        """Take f(z) (B, D) into the ring; return the residual (B, D), a view of it."""
        slot = self._count % self._window
        self._count += 1
        self._images[:, slot] = fz
        return torch.sub(fz, z, out=self._residuals[:, slot])

    def propose(self) -> Tensor:
        """Return the images mixed with the weights that make the mixed residual smallest."""
        slot, filled = (self._count - 1) % self._window, min(self._count, self._window)
        row = _products(self._residuals[:, slot], self._residuals[:, :filled])
        self._gram[:, slot, :filled] = row
        self._gram[:, :filled, slot] = row
        weights = mixing_weights(self._gram[:, :filled, :filled], self._ridge)
        # contiguous, or bmm falls back to one product a sample (the weights inherit the diagonal's strides)
        weights = weights.to(self._images.dtype, memory_format=torch.contiguous_format)
        return _combination(weights, self._images[:, :filled])

    def close(self, workspace: Workspace) -> None:
        """Give the rings back."""
        workspace.give(self._images)
        workspace.give(self._residuals)


def mixing_weights(gram: Tensor, ridge: float) -> Tensor:
    """Minimise a^T (G + ridge diag G) a under sum a = 1, for Gram matrices G (B, n, n) of residuals.

    Scaling G to a unit diagonal first makes the weights free of the residuals' scale: with an absolute ridge
    they become uniform, and Anderson an average, as soon as ||r||^2 falls below it. Returns (B, n), float64;
    a row that cannot be solved (collinear residuals, ridge 0) is uniform.
    """
    tiny = torch.finfo(gram.dtype).tiny
    inverse = gram.diagonal(dim1=-2, dim2=-1).clamp_min(tiny).rsqrt()  # one over the residuals' norms
    normal = gram * inverse.unsqueeze(-1) * inverse.unsqueeze(-2)
    normal.diagonal(dim1=-2, dim2=-1).add_(ridge)
    scale = inverse / inverse.amax(-1, keepdim=True)
    weights = torch.linalg.solve_ex(normal, scale)[0] * scale
    return (weights / weights.sum(-1, keepdim=True)).nan_to_num(nan=1 / gram.shape[-1])


class Broyden:
    """Broyden's good method on g(z) = f(z) - z, from J^-1 = -I (Broyden 1965; Bai et al. 2019, appendix).

    The inverse Jacobian is -I + U^T V with one row of U and V an evaluation. No line search: each step costs
    one evaluation of f. Two products with the rows kept so far make it slower a step than Anderson, and it
    holds 2 (max_iter - 1) states; it converges where Picard and Anderson do not.
    """

    def __init__(self, z0: Tensor, config: SolverConfig, workspace: Workspace) -> None:
        batch, dim = z0.shape
        updates = max(config.max_iter - 1, 1)
        self._left = z0.new_empty(batch, updates, dim)  # too large to keep between solves
        self._right = z0.new_empty(batch, updates, dim)
        self._rank = -1  # the first evaluation gives no secant
        self._z = self._residual = self._step = z0

    def observe(self, z: Tensor, fz: Tensor) -> Tensor:
        """Take f(z) (B, D); return the residual (B, D)."""
        self._previous, self._residual, self._z = self._residual, fz - z, z
        self._rank += 1
        return self._residual

    def propose(self) -> Tensor:
        """Return z - J^-1 g(z), after the rank-one update for the last step."""
        if self._rank == 0:
            self._step = self._residual
        else:
            self._step = -self._update(self._rank - 1)
        return self._z + self._step

    def close(self, workspace: Workspace) -> None:
        """Nothing was lent."""

    def _update(self, rank: int) -> Tensor:
        """Add row `rank` to U and V; return J^-1 g with the new J^-1.

        The last step was s = -J^-1 g_old, so J^-1 (g - g_old) = w + s with w = J^-1 g, and Broyden's
        u = (s - J^-1 dg) / (v^T dg), v = J^-T s, is -w / (v^T dg).
        """
        left, right = self._left[:, :rank], self._right[:, :rank]
        direction = _low_rank(left, right, self._residual)
        v = _low_rank(right, left, self._step)
        denominator = ((self._residual - self._previous) * v).sum(-1, keepdim=True)
        u = torch.where(denominator != 0, -direction / denominator, 0.0)
        self._left[:, rank] = u
        self._right[:, rank] = v
        return direction + u * (v * self._residual).sum(-1, keepdim=True)


def _low_rank(left: Tensor, right: Tensor, vector: Tensor) -> Tensor:
    """(-I + left^T right) vector, for rows left, right (B, n, D) and vectors (B, D)."""
    return _combination(_products(vector, right), left) - vector


def _products(vector: Tensor, rows: Tensor) -> Tensor:
    """<vector, rows_i>: (B, D), (B, n, D) -> (B, n)."""
    # a row times a matrix: as a matrix times a column, torch's bmm takes ten times longer
    return torch.bmm(vector.unsqueeze(1), rows.mT).squeeze(1)


def _combination(coefficients: Tensor, rows: Tensor) -> Tensor:
    """sum_i coefficients_i rows_i: (B, n), (B, n, D) -> (B, D)."""
    return torch.bmm(coefficients.unsqueeze(1), rows).squeeze(1)


SOLVERS: dict[str, Callable[[Tensor, SolverConfig, Workspace], Method]] = {
    "picard": Picard,
    "anderson": Anderson,
    "broyden": Broyden,
}
