"""Means over seeds and test images with their uncertainty: intervals, p-values and Holm's correction of them."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import optimize, stats

LEVEL = 0.05
"""What an interval leaves outside, and the error that a family of tests may make: 5 %."""
LEAST = 1e-12
"""A p-value below this is 0."""


@dataclass(frozen=True)
class Estimate:
    """A mean, its standard error over seeds with the degrees of freedom behind that, and the one over test images.

    nan where one seed says nothing of error. `images` is 0 for what is not measured on a sample of images.
    """

    mean: float
    error: float
    freedom: float
    images: float = 0.0

    @property
    def half(self) -> float:
        """Half the width of the 95 % interval; nan without an error."""
        return self.half_at(LEVEL)

    def half_at(self, level: float) -> float:
        """Half the width of the interval that leaves `level` outside.

        The seeds' part, by Student's t, and the images' part, by the normal distribution (they are many), are added in
        quadrature. So the interval is Student's where the images say nothing, the normal one where seeds do not differ,
        and between them wider than Satterthwaite's, whose coverage with three seeds goes down to 92 %.
        """
        seeds = float(stats.t.isf(level / 2, self.freedom)) * self.error
        return math.hypot(seeds, float(stats.norm.isf(level / 2)) * self.images) if self.images else seeds

    def p_above(self, bound: float) -> float:
        """Return the two-sided p-value of `mean > bound`, 1 where the mean is not above it; 1 without an error.

        It is the level of the interval that ends at `bound`.
        """
        distance = self.mean - bound
        if math.isnan(self.error) or not distance > 0:
            return 1.0
        if self.images == 0:
            return 0.0 if self.error == 0 else float(2 * stats.t.sf(distance / self.error, self.freedom))
        if self.half_at(LEAST) < distance:
            return 0.0
        level = optimize.brentq(lambda power: self.half_at(math.exp(power)) - distance, math.log(LEAST), 0.0)
        return math.exp(level)

    def p_below(self, bound: float) -> float:
        """Return the two-sided p-value of `mean < bound`, as `p_above`."""
        return replace(self, mean=-self.mean).p_above(-bound)

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


def crossed(values: Iterable[float], deviations: Iterable[np.ndarray]) -> Estimate:
    """Return the mean of `values`, one a seed, where both the seeds and the test images are samples.

    All seeds are tested on the same images, so their spread does not show what other images would have changed. A right
    answer is taken as x = mean + seed + image + rest, with variances s, i and r; the mean over S seeds and n images has
    the variance s/S + i/n + r/(Sn). The seeds' spread estimates s/S + r/(Sn). The spread over images of what each moves
    on average over the seeds estimates i/n + r/(Sn), of which r/(Sn), as far as the seeds' part has it, is taken off.

    `deviations` has for each data set, whose images are independent of the others', an array S x n: by how much each
    image moves the value of each seed (`Answers.deviations`, in the unit of `values`).
    """
    found = estimate(values)
    if math.isnan(found.error):
        return found
    spread = rest = 0.0
    for moves in deviations:
        average = moves.mean(axis=0)
        spread += float((average**2).sum())
        rest += float(((moves - average) ** 2).sum()) / (found.freedom * (found.freedom + 1))
    return replace(found, images=math.sqrt(max(spread - min(rest, found.error**2), 0.0)))


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
