"""Whether the equilibrium matters: a trained DEQ's test accuracy without its solver, and with a solve to 1e-8."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from eqcollapse.equilibrium import Equilibrium
from eqcollapse.networks.classifier import Classifier
from eqcollapse.networks.folding import folded
from eqcollapse.training.evaluation import accuracies, batch_size, counts_by_class, is_right
from eqcollapse.training.trainer import Cell

TOL = 1e-8
COARSE = 1e-5
"""What float32 reaches with ease. Its solution is where the solve in float64, six times dearer, starts."""
MAX_ITER = 200
"""Of the solve to `TOL`: Anderson's method meets it in some 20 evaluations on a contraction with bound 0.9."""


def solver_accuracy(cell: Cell) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Return the test accuracies of the DEQ of `cell` under two other forward passes, and which test images `skipped`
    and `solved` got right; nothing for an explicit network.

    `skipped_accuracy`: the solver is skipped, z = f(0, x), one application of the layer.
    `solved_accuracy`: z* is solved in float64 to a relative residual of 1e-8 by Anderson's method;
    `solved_converged` is the share of samples that got there in `MAX_ITER` evaluations.
    Both also `..._majority` and `..._minority`, where some classes are the majority.
    """
    if not cell.equilibria:
        return {}, {}
    network = deepcopy(cell.network).eval()
    parts = {name: part for name, part in network.named_modules() if isinstance(part, Equilibrium)}
    with skipped(list(parts.values())):
        answers = {"skipped": _right(cell, network)}
    exact = [Exact(part) for part in parts.values()]
    for name, solved in zip(parts, exact, strict=True):
        network.set_submodule(name, solved)
    answers["solved"] = _right(cell, network)
    row = {f"{way}_{name}": value for way, right in answers.items() for name, value in _accuracies(cell, right).items()}
    return row | {"solved_converged": min(solved.converged for solved in exact)}, answers


class Exact(nn.Module):
    """An equilibrium, solved to `TOL` in float64; takes and returns what the `Equilibrium` of the network does."""

    def __init__(self, part: Equilibrium) -> None:
        super().__init__()
        self.coarse, self.fine = deepcopy(part), deepcopy(part).double()
        for solve, tol in ((self.coarse, COARSE), (self.fine, TOL)):
            solve.gradient = "implicit"  # an unrolled one would take its steps, however far they lead
            solve.forward_solver = replace(
                solve.forward_solver, method="anderson", criterion="relative", tol=tol, max_iter=MAX_ITER
            )
            solve.statistics.reset()

    @property
    def converged(self) -> float:
        """The share of samples that reached `TOL`."""
        return self.fine.statistics.summary()["solver_converged"]

    def forward(self, x: Tensor) -> Tensor:
        """Return z* for x (B, ...), in the precision of x."""
        start = self.coarse(x).double().nan_to_num(0.0, 0.0, 0.0)  # a layer without an equilibrium may diverge
        return self.fine(x.double(), start).to(x.dtype)


@contextmanager
def skipped(parts: list[Equilibrium]) -> Iterator[None]:
    """Have each equilibrium return f(0, x) in place of z*."""
    hooks = [part.register_forward_hook(_first_application) for part in parts]
    solvers = [part.forward_solver for part in parts]
    for part, solver in zip(parts, solvers, strict=True):
        part.forward_solver = replace(solver, max_iter=1)  # whose result is thrown away
    try:
        yield
    finally:
        for part, solver, hook in zip(parts, solvers, hooks, strict=True):
            part.forward_solver = solver
            hook.remove()


def _first_application(module: Any, inputs: tuple[Any, ...], z: Tensor) -> Tensor:
    return module.layer_at(inputs[0])(torch.zeros_like(z))


@torch.no_grad()
def _right(cell: Cell, network: Classifier) -> Tensor:
    network = folded(network)
    batches = cell.test.ordered(batch_size(network, cell.test))
    return torch.cat([is_right(network, network.features(images), labels) for images, labels in batches])


def _accuracies(cell: Cell, right: Tensor) -> dict[str, float]:
    counts = counts_by_class(right, cell.test.labels, cell.network.linear.out_features)
    return accuracies(counts.cpu(), cell.majority)
