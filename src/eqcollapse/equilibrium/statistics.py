"""What a model's solves did over an epoch."""

import torch
from torch import Tensor

from .solve import Solution


class Meter:
    """Sums over solves, kept on the solves' device: nothing is read back before `summary`."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._sums: Tensor | None = None  # steps, residual, converged: over samples
        self._worst: Tensor | None = None
        self._samples = self._solves = self._evaluations = 0

    def update(self, solution: Solution) -> None:
        """Count one solve in; an empty batch is none."""
        if not len(solution.residual):
            return
        columns = solution.steps, solution.residual, solution.converged
        sums = torch.stack([column.sum(dtype=torch.float64) for column in columns])
        worst = solution.residual.max()
        self._sums = sums if self._sums is None else self._sums + sums
        self._worst = worst if self._worst is None else torch.maximum(self._worst, worst)
        self._samples += len(solution.residual)
        self._solves += 1
        self._evaluations += solution.evaluations

    def summary(self) -> dict[str, float]:
        """Means over samples of steps, residual, converged (a share); the largest residual; evaluations.

        Empty where nothing was solved.
        """
        if self._sums is None or self._worst is None:
            return {}
        steps, residual, converged = (self._sums / self._samples).tolist()
        return {
            "steps": steps,
            "residual": residual,
            "residual_max": self._worst.item(),
            "converged": converged,
            "evaluations": self._evaluations / self._solves,
        }


class Statistics:
    """The meters of an Equilibrium: of its forward solves and of its adjoint solves."""

    def __init__(self) -> None:
        self._meters = {"solver": Meter(), "adjoint": Meter()}

    def reset(self) -> None:
        """Start a new epoch."""
        for meter in self._meters.values():
            meter.reset()

    def update(self, kind: str, solution: Solution) -> None:
        """Count a solve in, `kind` being `"solver"` or `"adjoint"`."""
        self._meters[kind].update(solution)

    def summary(self) -> dict[str, float]:
        """Since the last reset: `solver_steps`, `solver_residual`, `solver_residual_max`, `solver_converged`,
        `solver_evaluations`, and the same with `adjoint_`; the keys of a kind that did not solve are missing.
        """
        return {
            f"{kind}_{name}": value for kind, meter in self._meters.items() for name, value in meter.summary().items()
        }
