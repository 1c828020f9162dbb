"""The one rule by which numbers decide on every claim, written down before the numbers.

1. A claim is a list of criteria. A criterion is a statistic with one number a seed, and two thresholds that are part
   of the code: beyond `supports` the claim holds, beyond `contradicts`, on the other side, it does not.
2. A run counts only where its classes are learnt: at one measured epoch at least `FITTED` of the training samples of
   each class in question are right. Runs that are not learnt have neither collapsed nor failed to: they count for
   neither side and are told. A DEQ's run counts only where its solver converged.
3. A number that does not exist (NaN) in a run's last measured epoch is a failure. No earlier epoch stands in for it.
   A criterion with a failure is not supported; where every seed failed it is contradicted. In a share of seeds a
   failure is a seed that did not get there.
4. Each criterion is tested towards both sides, at 2.5 % each (two-sided p-values, below 5 %): by Student's t over
   seeds, to which for accuracies the sampling of the test images is added (`intervals.crossed`), or, where it is a
   share of seeds that got somewhere, by the exact binomial test.
5. The p-values of a claim's criteria are corrected together by Holm's method, those for support in one family and those
   for contradiction in another: so the chance that a claim gets a verdict by chance is at most 2.5 % on either side,
   5 % in all, whatever depends on what.
6. One number contradicts without a test: a loss below a minimum that is claimed, by more than rounding. It is a
   counterexample.
7. A criterion is supported or contradicted where its corrected p-value is below 5 %, not learnt where no run of it was
   learnt, else undecided. A claim is contradicted by one of its criteria; else not learnt where one of them is; else
   supported by all of them; else undecided.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import stats

from eqcollapse.report.intervals import LEVEL, Estimate, crossed, estimate, holm

SUPPORTED, CONTRADICTED, UNDECIDED, NOT_LEARNT = "supported", "contradicted", "undecided", "not learnt"
FITTED = 0.95
"""The least share of the training samples of a class that are right at one measured epoch for it to be learnt."""
MOST = 0.5
"""Of seeds: the threshold of a share."""


@dataclass(frozen=True)
class Rule:
    """What is measured, and which values of it support or contradict.

    With `sense` "below": a mean below `supports` supports, one above `contradicts` (no less than `supports`)
    contradicts. With "above" the other way round.
    """

    statistic: str
    sense: str
    supports: float
    contradicts: float

    def p_values(self, found: Estimate) -> tuple[float, float]:
        """Return the two-sided p-values of `found` towards support and towards contradiction."""
        if self.sense == "below":
            return found.p_below(self.supports), found.p_above(self.contradicts)
        return found.p_above(self.supports), found.p_below(self.contradicts)

    def __str__(self) -> str:
        other = "above" if self.sense == "below" else "below"
        return f"supported {self.sense} {self.supports:g}, contradicted {other} {self.contradicts:g}"


@dataclass(frozen=True)
class Criterion:
    """A rule and what was measured for it.

    `mean` over `seeds` seeds and its 95 % interval `low` .. `high` (nan: none), not corrected; `p_values` towards
    support and contradiction, and the same `corrected` (here for a family of this one; see `corrected_together`).
    `failures` counts seeds without a number, `not_learnt` the runs that do not count, `counterexamples` seeds whose
    number alone contradicts.
    """

    rule: Rule
    mean: float
    low: float
    high: float
    seeds: int
    p_values: tuple[float, float]
    corrected: tuple[float, float]
    failures: int = 0
    not_learnt: int = 0
    counterexamples: int = 0

    @property
    def verdict(self) -> str:
        """What this criterion alone says."""
        if self.counterexamples or (self.failures and self.failures == self.seeds):
            return CONTRADICTED
        if self.seeds == 0 and self.not_learnt:
            return NOT_LEARNT
        supports, contradicts = self.corrected
        return SUPPORTED if supports < LEVEL else CONTRADICTED if contradicts < LEVEL else UNDECIDED


def measured(
    rule: Rule, values: pd.Series, not_learnt: int = 0, deviations: Sequence[np.ndarray] | None = None
) -> Criterion:
    """Hold `rule` against `values`, one number a seed (nan: a failure), by Student's t.

    For accuracies, `deviations` by seed and test image: see `intervals.crossed`.
    """
    failures = int(values.isna().sum())
    there = values.notna().to_numpy()
    found = estimate(values[there]) if deviations is None else crossed(values[there], [d[there] for d in deviations])
    p_values = rule.p_values(found)
    if failures:
        p_values = (1.0, p_values[1])
    low, high = found.mean - found.half, found.mean + found.half
    return Criterion(rule, found.mean, low, high, len(values), p_values, p_values, failures, not_learnt)


def share_of_seeds(
    statistic: str, values: pd.Series, reached: float, far: float, not_learnt: int = 0, counterexamples: int = 0
) -> Criterion:
    """Hold the share of `values`, one number a seed, that are below `reached` against half of the seeds (exact test).

    Towards support the seeds below `reached` count, towards contradiction those above `far`; what lies between has not
    got there and is not far from it. nan is a failure, and counts as far. The interval is Clopper and Pearson's.
    """
    rule = Rule(f"share of seeds with {statistic} below {reached:g} (above {far:g}: against)", "above", MOST, MOST)
    if not len(values):
        return Criterion(rule, math.nan, math.nan, math.nan, 0, (1.0, 1.0), (1.0, 1.0), 0, not_learnt)
    there, against = int((values < reached).sum()), int((~(values <= far)).sum())
    p_values = (_p_of_most(there, len(values)), _p_of_most(against, len(values)))
    interval = stats.binomtest(there, len(values)).proportion_ci(1 - LEVEL)
    failures = int(values.isna().sum())
    share = there / len(values)
    return Criterion(
        *(rule, share, float(interval.low), float(interval.high), len(values), p_values, p_values),
        failures=failures,
        not_learnt=not_learnt,
        counterexamples=counterexamples,
    )


def _p_of_most(count: int, total: int) -> float:
    """Return the two-sided p-value of more than half."""
    return min(1.0, 2 * float(stats.binomtest(count, total, MOST, "greater").pvalue))


def corrected_together(criteria: Iterable[Criterion]) -> tuple[Criterion, ...]:
    """Return the criteria of one claim with their p-values corrected by Holm's method, each side a family.

    A criterion without a run that counts is no hypothesis, and makes the others' test no harder.
    """
    criteria = tuple(criteria)
    tested = [each for each in criteria if each.seeds]
    sides = zip(*(holm([each.p_values[side] for each in tested]) for side in (0, 1)), strict=True)
    fixed = iter([replace(each, corrected=pair) for each, pair in zip(tested, sides, strict=True)])
    return tuple(next(fixed) if each.seeds else each for each in criteria)


def combined(criteria: Iterable[Criterion]) -> str:
    """Return a claim's verdict from those of its criteria (point 7 of the rule)."""
    verdicts = {criterion.verdict for criterion in criteria}
    for verdict in (CONTRADICTED, NOT_LEARNT):
        if verdict in verdicts:
            return verdict
    return SUPPORTED if verdicts == {SUPPORTED} else UNDECIDED
