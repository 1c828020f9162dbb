"""Gradients of an equilibrium: implicit, one-step, unrolled.

At z* = f(z*, x, theta) the implicit function theorem gives, for a cotangent g = dL/dz*,

    dL/d(x, theta) = v^T df/d(x, theta)   with   v = g + (df/dz)^T v      (Bai et al. 2019, theorem 1),

so the backward pass is a second, linear equilibrium. One evaluation of f with a graph serves both its
products with (df/dz)^T and, at the end, df/d(x, theta).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .exceptions import DoubleBackwardError
from .solve import Map, Solution, fixed_point
from .solver_config import SolverConfig
from .workspace import Workspace

Observer = Callable[[Solution], None]


@dataclass(frozen=True)
class _Adjoint:
    """What the backward pass needs: f's image with its graph, the leaf that it starts from, the settings."""

    image: Tensor
    leaf: Tensor
    config: SolverConfig | None
    workspace: Workspace
    observe: Observer


def attach_implicit(f: Map, z: Tensor, config: SolverConfig, workspace: Workspace, observe: Observer) -> Tensor:
    """Return z (B, ...), an equilibrium of f, with the implicit gradient to all that f depends on.

    The adjoint starts from the cotangent and is solved to `config.tol`, under `"relative"` relative to the
    norm of each sample's cotangent: the gradient is linear in the loss. `observe` gets the adjoint's
    Solution.
    """
    return _attach(f, z, config, workspace, observe)


def attach_one_step(f: Map, z: Tensor) -> Tensor:
    """Return z with the gradient of one evaluation f(z), z held fixed (v = g: Fung et al. 2022, JFB)."""
    return _attach(f, z, None, Workspace(), lambda solution: None)


def _attach(f: Map, z: Tensor, config: SolverConfig | None, workspace: Workspace, observe: Observer) -> Tensor:
    leaf = z.detach().requires_grad_(config is not None)
    image = f(leaf).to(z.dtype)
    return _Implicit.apply(image, _Adjoint(image, leaf, config, workspace, observe))


class _Implicit(torch.autograd.Function):
    """Has the value of the leaf z*, and hands the adjoint v to f's image, whose graph does the rest."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, adjoint: _Adjoint) -> Tensor:
        ctx.adjoint = adjoint
        return adjoint.leaf.detach()

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None]:
        if torch.is_grad_enabled():  # true exactly under create_graph
            raise DoubleBackwardError(
                "an implicit gradient has no second derivative: take this one without create_graph, or use "
                'gradient="unrolled"'
            )
        adjoint = ctx.adjoint
        if adjoint.config is None:
            return cotangent, None
        solution = _solve_adjoint(adjoint, adjoint.config, cotangent)
        adjoint.observe(solution)
        return solution.z, None


def _solve_adjoint(adjoint: _Adjoint, config: SolverConfig, cotangent: Tensor) -> Solution:
    total = torch.empty_like(cotangent)  # no evaluation outlives the next: fresh pages each time cost a tenth

    def pull(v: Tensor) -> Tensor:
        (product,) = torch.autograd.grad(adjoint.image, adjoint.leaf, v, retain_graph=True, allow_unused=True)
        return cotangent if product is None else torch.add(product, cotangent, out=total)

    return fixed_point(pull, cotangent.clone(), config, adjoint.workspace, relative_to_start=True)


def unroll(f: Map, z0: Tensor, config: SolverConfig) -> tuple[Tensor, Solution]:
    """Return z after `config.max_iter` recorded steps z <- f(z): the gradient is that of exactly these steps.

    Of the config only max_iter, and for the measurement tol and criterion, count. The Solution beside it measures z
    by one evaluation more, without a graph: its `evaluations` is max_iter + 1.
    """
    z = z0
    for _ in range(config.max_iter):
        z = f(z).to(z0.dtype)
    measured = fixed_point(f, z, replace(config, method="picard", max_iter=1), Workspace())
    steps = torch.full_like(measured.steps, config.max_iter)
    return z, replace(measured, steps=steps, evaluations=config.max_iter + 1)
