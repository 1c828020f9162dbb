"""What to do after an epoch in which too few samples reached their equilibrium."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from .exceptions import ConfigError, NotConverged
from .module import Equilibrium
from .solver_config import METHODS


@dataclass(frozen=True)
class ConvergencePolicy:
    """When an epoch's convergence is too poor, and what follows.

    Attributes:
        share: the least share of converged samples, of forward and of adjoint solves, that passes in silence.
        action: `"warn"`; `"stop"`: raise NotConverged; `"switch"`: warn, and go on with `method`.
        method: what `"switch"` switches to.

    Raises:
        ConfigError: a value out of its range.
    """

    share: float = 0.99
    action: str = "warn"
    method: str = "broyden"

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise ConfigError(f"convergence action {self.action!r}: expected one of {', '.join(ACTIONS)}")
        if not 0 <= self.share <= 1:
            raise ConfigError(f"convergence share {self.share!r}: expected a number from 0 to 1")
        if self.method not in METHODS:
            raise ConfigError(f"convergence method {self.method!r}: expected one of {', '.join(METHODS)}")

    def apply(self, equilibrium: Equilibrium, summary: Mapping[str, float]) -> str | None:
        """Judge an epoch's `equilibrium.statistics.summary()`.

        Returns:
            What was wrong and what was done about it, as one line; None where enough samples converged.

        Raises:
            NotConverged: under `"stop"`.
        """
        poor = {key: summary[key] for key in SHARES if summary.get(key, 1.0) < self.share}
        if not poor:
            return None
        shares = ", ".join(f"{key} {value:.3f}" for key, value in poor.items())
        return ACTIONS[self.action](self, equilibrium, f"{shares}, below {self.share:g}")


SHARES = ("solver_converged", "adjoint_converged")


def _warn(policy: ConvergencePolicy, equilibrium: Equilibrium, problem: str) -> str:
    message = f"{problem}: the features are not equilibria (raise max_iter, or use a contractive layer)"
    warnings.warn(message, RuntimeWarning, stacklevel=3)
    return message


def _stop(policy: ConvergencePolicy, equilibrium: Equilibrium, problem: str) -> str:
    raise NotConverged(f"{problem}: stopped, as asked (raise max_iter, or use a contractive layer)")


def _switch(policy: ConvergencePolicy, equilibrium: Equilibrium, problem: str) -> str:
    solvers = equilibrium.forward_solver, equilibrium.backward_solver
    if all(solver.method == policy.method for solver in solvers):
        return _warn(policy, equilibrium, problem)
    equilibrium.forward_solver, equilibrium.backward_solver = (
        replace(solver, method=policy.method) for solver in solvers
    )
    message = f"{problem}: from here on the solver is {policy.method}"
    warnings.warn(message, RuntimeWarning, stacklevel=3)
    return message


ACTIONS: dict[str, Callable[[ConvergencePolicy, Equilibrium, str], str]] = {
    "warn": _warn,
    "stop": _stop,
    "switch": _switch,
}
