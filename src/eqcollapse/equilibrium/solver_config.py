"""The settings of one solve: each default lives here and nowhere else."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from .exceptions import ConfigError

METHODS = ("picard", "anderson", "broyden")
"""The solvers, as solvers.SOLVERS names them."""
CRITERIA = ("relative", "absolute")


@dataclass(frozen=True)
class SolverConfig:
    """How a fixed point z = f(z) is looked for, and when it counts as found.

    Attributes:
        method: `"picard"` (z <- f(z)), `"anderson"` (type II, the default) or `"broyden"` (the robust
            fallback).
        tol: a sample has converged when its residual is at most this.
        criterion: `"relative"`: residual ||f(z) - z|| / ||f(z)||; `"absolute"`: ||f(z) - z||. 2-norms per
            sample.
        max_iter: the most evaluations of f.
        memory: Anderson's window m. (Broyden keeps all its updates.)
        ridge: Anderson's regularisation, relative to the squared norms of the residuals in its window. Under
            bfloat16 autocast 1e-4 is steadier: below the noise of f there is nothing to extrapolate.
        freeze: a sample that has converged stays as it is while others go on, so that no result depends on
            batch mates. Without it samples keep improving until the last has converged.
        check_every: the verdict is read on the host at every so many evaluations, and the scale of the state
            once a solve (on a GPU each look is a synchronisation); 0 never looks and always spends `max_iter`,
            as a captured CUDA graph must.

    Raises:
        ConfigError: a value out of its range.
    """

    method: str = "anderson"
    tol: float = 1e-3
    criterion: str = "relative"
    max_iter: int = 20
    memory: int = 5
    ridge: float = 1e-6
    freeze: bool = True
    check_every: int = 1

    def __post_init__(self) -> None:
        _require(self.method in METHODS, "method", self.method, f"one of {', '.join(METHODS)}")
        _require(self.criterion in CRITERIA, "criterion", self.criterion, f"one of {', '.join(CRITERIA)}")
        _require(_is_number(self.tol) and self.tol >= 0, "tol", self.tol, "a number >= 0")
        _require(_is_number(self.ridge) and self.ridge >= 0, "ridge", self.ridge, "a number >= 0")
        _require(_is_count(self.max_iter) and self.max_iter >= 1, "max_iter", self.max_iter, "an integer >= 1")
        _require(_is_count(self.memory) and self.memory >= 1, "memory", self.memory, "an integer >= 1")
        _require(_is_count(self.check_every), "check_every", self.check_every, "an integer >= 0")
        _require(isinstance(self.freeze, bool), "freeze", self.freeze, "true or false")

    @classmethod
    def from_dict(cls, options: Mapping[str, Any]) -> "SolverConfig":
        """Build a config from a mapping that it does not change; an unknown key is a ConfigError."""
        known = [field.name for field in fields(cls)]
        for key in options:
            if key not in known:
                raise ConfigError(f"unknown solver option {key!r}: choose from {', '.join(known)}")
        return cls(**options)


def _require(holds: bool, key: str, value: object, expected: str) -> None:
    if not holds:
        raise ConfigError(f"solver option {key} = {value!r}: expected {expected}")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
