"""The rule of the verdicts, against scipy's tests, closed testing and simulated studies."""

import math
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from eqcollapse.report.claims.criteria import Rule, combined, corrected_together, measured, share_of_seeds
from eqcollapse.report.intervals import holm


def test_the_p_value_is_that_of_students_test():
    values = pd.Series([-1.2, -1.5, -1.1, -1.4])
    supports, contradicts = measured(Rule("x", "below", -1.0, 0.0), values).p_values
    assert supports == pytest.approx(stats.ttest_1samp(values, -1.0).pvalue)
    assert contradicts == 1
    supports, contradicts = measured(Rule("x", "above", 0.0, -1.0), values).p_values
    assert (supports, contradicts) == (1, pytest.approx(stats.ttest_1samp(values, -1.0).pvalue))


def test_one_seed_decides_nothing():
    rule = Rule("x", "below", 0.0, 0.0)
    assert measured(rule, pd.Series([-5.0])).verdict == "undecided"
    assert measured(rule, pd.Series([], dtype=float)).verdict == "undecided"
    assert share_of_seeds("x", pd.Series([1e-9]), 1e-3, 0.1).verdict == "undecided"
    assert combined([]) == "undecided"


def test_between_the_two_thresholds_is_undecided():
    rule = Rule("x", "below", -1.0, 0.0)
    assert [measured(rule, pd.Series([x, x + 0.01])).verdict for x in (-2.0, -0.5, 1.0)] == [
        "supported",
        "undecided",
        "contradicted",
    ]


def test_holm_is_closed_testing_by_bonferroni():
    """A hypothesis is rejected where every intersection that has it is: its p-value is the largest of theirs."""
    p_values = [0.03, 0.001, 0.2, 0.011, 0.011]
    for position, corrected in enumerate(holm(p_values)):
        others = [each for each in range(len(p_values)) if each != position]
        families = ((position, *chosen) for size in range(len(p_values)) for chosen in combinations(others, size))
        worst = max(min(1.0, len(family) * min(p_values[each] for each in family)) for family in families)
        assert corrected == pytest.approx(worst)


def test_one_criterion_of_many_that_is_low_by_chance_contradicts_nothing():
    rule = Rule("x", "above", 0.0, 0.0)
    far, near = pd.Series([1.0, 1.1, 0.9, 1.05]), pd.Series([-1.0, -0.5, -1.4, -0.6])
    alone = measured(rule, near)
    assert alone.verdict == "contradicted"
    assert 0.01 < alone.p_values[1] < 0.05
    criteria = corrected_together([measured(rule, far)] * 5 + [alone])
    assert criteria[-1].corrected[1] == pytest.approx(6 * alone.p_values[1])
    assert combined(criteria) == "undecided"


def test_what_was_not_learnt_makes_the_other_tests_no_harder():
    rule = Rule("x", "above", 0.0, 0.0)
    learnt = measured(rule, pd.Series([1.0, 1.2, 0.9]))
    absent = measured(rule, pd.Series([], dtype=float), not_learnt=3)
    criteria = corrected_together([learnt, absent])
    assert criteria[0].corrected == learnt.p_values
    assert [each.verdict for each in criteria] == ["supported", "not learnt"]
    assert combined(criteria) == "not learnt"


def test_a_share_is_held_against_half_of_the_seeds():
    def verdict(there: int, between: int, far: int) -> str:
        values = pd.Series([1e-9] * there + [1e-2] * between + [0.5] * (far - 1) + [math.nan] * min(far, 1))
        return share_of_seeds("NC1", values, 1e-3, 0.1).verdict

    assert verdict(10, 0, 0) == "supported"
    assert verdict(0, 0, 10) == "contradicted"
    assert verdict(0, 10, 0) == "undecided"  # on the way
    assert verdict(6, 0, 4) == "undecided"


CASES = {"below/below": ["below", "below"], "above/below": ["above", "below"], "six": ["below", "above"] * 3}


@pytest.mark.parametrize("senses", CASES.values(), ids=CASES)
def test_two_copies_of_one_model_differ_at_the_nominal_rate(senses):
    """Paired differences of two models that are the same: a verdict on either side is chance."""
    rng, studies, level = np.random.default_rng(0), 1500, 0.05
    alone = found = 0
    for _ in range(studies):
        shared = rng.standard_normal(4)  # criteria of one study look at the same seeds
        criteria = [
            measured(Rule("x", sense, 0.0, 0.0), pd.Series(shared + rng.standard_normal(4))) for sense in senses
        ]
        alone += criteria[0].verdict != "undecided"
        found += any(each.verdict != "undecided" for each in corrected_together(criteria))
    slack = 3 * math.sqrt(level * (1 - level) / studies)
    assert level - slack < alone / studies < level + slack  # one criterion: exactly nominal
    assert found / studies < level + slack  # all that a claim looks at: at most
