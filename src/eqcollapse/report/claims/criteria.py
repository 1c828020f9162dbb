"""The rule by which numbers decide on a claim: an interval over seeds against a threshold written down before."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from eqcollapse.report.intervals import mean_and_interval

SUPPORTED, CONTRADICTED, UNDECIDED = "supported", "contradicted", "undecided"


@dataclass(frozen=True)
class Rule:
    """What is measured, and which values of it support or contradict.

    With `sense` "below": the 95 % interval of the mean over seeds lies wholly below `supports`: supported; wholly
    above `contradicts` (no less than `supports`): contradicted; else undecided. With "above" the other way round.
    """

    statistic: str
    sense: str
    supports: float
    contradicts: float

    def verdict(self, low: float, high: float) -> str:
        """Return the verdict of the interval from `low` to `high`; without an interval (nan) there is none."""
        if math.isnan(low) or math.isnan(high):
            return UNDECIDED
        if self.sense == "below":
            return SUPPORTED if high < self.supports else CONTRADICTED if low > self.contradicts else UNDECIDED
        return SUPPORTED if low > self.supports else CONTRADICTED if high < self.contradicts else UNDECIDED

    def __str__(self) -> str:
        other = "above" if self.sense == "below" else "below"
        return f"supported {self.sense} {self.supports:g}, contradicted {other} {self.contradicts:g}"


@dataclass(frozen=True)
class Criterion:
    """A rule and what was measured for it: mean over `seeds` seeds and its 95 % interval (nan: fewer than two)."""

    rule: Rule
    mean: float
    low: float
    high: float
    seeds: int

    @property
    def verdict(self) -> str:
        """What this criterion alone says."""
        return self.rule.verdict(self.low, self.high)


def measured(rule: Rule, values: pd.Series) -> Criterion:
    """Hold `rule` against `values`, one number a seed (a mean over the settings that the claim covers)."""
    values = values.dropna()
    if values.empty:
        return Criterion(rule, math.nan, math.nan, math.nan, 0)
    mean, half = mean_and_interval(values)
    return Criterion(rule, mean, mean - half, mean + half, len(values))


def combined(criteria: Iterable[Criterion]) -> str:
    """Return a claim's verdict: contradicted by one criterion, supported by all of them, else undecided."""
    verdicts = [criterion.verdict for criterion in criteria]
    if CONTRADICTED in verdicts:
        return CONTRADICTED
    return SUPPORTED if verdicts and set(verdicts) == {SUPPORTED} else UNDECIDED
