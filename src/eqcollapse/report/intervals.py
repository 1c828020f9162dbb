"""Means over seeds with their uncertainty: intervals, p-values and Holm's correction of them."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.05
"""What an interval leaves outside, and the error that a family of tests may make: 5 %."""


@dataclass(frozen=True)
class Estimate:
    """A mean, its standard error and the degrees of freedom behind that; nan where one value says nothing of error."""

    mean: float
    error: float
    freedom: float

    @property
    def half(self) -> float:
        """Half the width of the 95 % interval (Student's t); nan without an error."""
        return float(stats.t.ppf(1 - LEVEL / 2, self.freedom) * self.error)

    def p_above(self, bound: float) -> float:
        """Return the two-sided p-value of `mean > bound`, 1 where the mean is not above it; 1 without an error."""
        if math.isnan(self.error) or not self.mean > bound:
            return 1.0
        return 0.0 if self.error == 0 else float(2 * stats.t.sf((self.mean - bound) / self.error, self.freedom))

    def p_below(self, bound: float) -> float:
        """Return the two-sided p-value of `mean < bound`, as `p_above`."""
        return Estimate(-self.mean, self.error, self.freedom).p_above(-bound)

    def p_apart(self, bound: float) -> float:
        """Return the two-sided p-value of `mean != bound`; 1 without an error."""
        return min(self.p_above(bound), self.p_below(bound))


def estimate(values: Iterable[float]) -> Estimate:
    """Return the mean of independent `values`, one a seed, with its standard error; nan if one of them is."""
    values = np.asarray(values, dtype=float)
    if len(values) == 0:
        return Estimate(math.nan, math.nan, math.nan)
    if len(values) == 1:
        return Estimate(float(values[0]), math.nan, math.nan)
    return Estimate(float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values))), len(values) - 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values of one family corrected by Holm (1979), in the order given.

    The smallest of m counts m times, the next m - 1 times, ..., none less than one before it. Whatever depends on what,
    the chance that a true hypothesis of the family is rejected at a level is at most that level.
    """
    corrected = [1.0] * len(p_values)
    least = 0.0
    for rank, position in enumerate(sorted(range(len(p_values)), key=lambda each: p_values[each])):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[position]))
        corrected[position] = least
    return corrected


def with_interval(mean: float, half: float, signed: bool = False) -> str:
    """Return `mean ± half` to two digits, as tables show it; the mean alone where there is no interval (nan)."""
    text = f"{mean:+.2f}" if signed else f"{mean:.2f}"
    return text if math.isnan(half) else f"{text} ± {half:.2f}"


def p_text(value: float) -> str:
    """Return a p-value to two digits, as tables show it; nothing where there is none (nan)."""
    return "" if math.isnan(value) else "< 0.0001" if value < 1e-4 else f"{value:.2g}"
