"""Intervals over seeds, against scipy's, and over seeds and test images, against made-up studies."""

import math

import numpy as np
import pytest
from scipy import special, stats

from eqcollapse.report.intervals import Estimate, crossed, estimate


def test_the_interval_is_students():
    values = [91.0, 92.5, 90.2, 91.1]
    low, high = stats.t.interval(0.95, 3, loc=sum(values) / 4, scale=stats.sem(values))
    found = estimate(values)
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((low, high))


def test_one_seed_has_no_interval():
    found = estimate([3.0])
    assert found.mean == 3.0
    assert math.isnan(found.half)
    assert found.p_apart(0.0) == 1


def test_without_images_or_seeds_the_interval_is_students_or_the_normal_one():
    assert Estimate(1.0, 0.5, 2).half == pytest.approx(0.5 * stats.t.ppf(0.975, 2))
    assert Estimate(1.0, 0.0, 2, 0.5).half == pytest.approx(0.5 * stats.norm.ppf(0.975))
    assert Estimate(1.0, 0.0, 2, 0.5).p_above(0.0) == pytest.approx(2 * stats.norm.sf(2.0))
    assert Estimate(1.0, 1e-9, 2, 0.5).p_above(0.0) == pytest.approx(2 * stats.norm.sf(2.0))
    assert Estimate(1.0, 0.5, 2, 1e-9).p_above(0.0) == pytest.approx(2 * stats.t.sf(2.0, 2))


@pytest.mark.parametrize("level", [0.5, 0.05, 1e-4, 1e-9])
def test_the_p_value_is_the_level_of_the_interval_that_ends_there(level):
    found = Estimate(3.0, 0.2, 4, 0.3)
    assert found.p_above(3.0 - found.half_at(level)) == pytest.approx(level, rel=1e-6)
    assert found.p_below(3.0 + found.half_at(level)) == pytest.approx(level, rel=1e-6)
    assert found.p_above(3.0) == found.p_above(4.0) == 1.0


def drawn(draw: np.random.Generator, seeds: int, images: int, *, easy, of_images, of_seeds) -> np.ndarray:
    """Which images (columns) each seed gets right: images are hard or easy for all seeds, seeds are good or bad."""
    hard, good = easy + of_images, draw.normal(0, of_seeds, (seeds, 1))
    return (draw.random((seeds, images)) < special.expit(hard + good)).astype(float)


def moves(right: np.ndarray) -> np.ndarray:
    """As `Answers.deviations` has them, with one image more won and one lost."""
    images = right.shape[1]
    ends = np.tile([1 / images, -1 / images], (len(right), 1))
    return np.hstack([(right - right.mean(axis=1, keepdims=True)) / images, ends])


CASES = {  # seeds, images, log-odds of an image, their spread over images and over seeds
    "images matter most": (3, 360, 4.0, 3.0, 0.1),
    "images and seeds": (3, 360, 4.0, 3.0, 0.4),
    "seeds matter most": (5, 360, 1.0, 0.5, 0.5),
    "neither": (3, 360, 2.0, 0.0, 0.0),
    "a minority": (3, 100, -3.0, 3.0, 0.2),
    "many seeds": (10, 360, 4.0, 3.0, 0.2),
    "never right": (3, 250, -9.0, 0.5, 0.1),
}


@pytest.mark.parametrize("case", CASES)
def test_an_accuracy_is_covered_when_images_and_seeds_are_drawn(case):
    seeds, images, easy, spread, differ = CASES[case]
    draw, studies = np.random.default_rng(7), 1500
    truth = special.expit(easy + np.hypot(spread, differ) * draw.standard_normal(2_000_000)).mean()
    covered, by_seeds_alone = 0, 0
    for _ in range(studies):
        right = drawn(draw, seeds, images, easy=easy, of_images=draw.normal(0, spread, images), of_seeds=differ)
        found, alone = crossed(right.mean(axis=1), [moves(right)]), estimate(right.mean(axis=1))
        assert found.mean == alone.mean
        assert found.half > 0
        covered += abs(found.mean - truth) <= found.half
        by_seeds_alone += abs(alone.mean - truth) <= alone.half
    assert covered / studies > 0.935  # 95 % less 2.7 standard errors of 1500 studies
    if case in ("images matter most", "a minority", "many seeds", "never right"):
        assert by_seeds_alone / studies < 0.9
    if case in ("many seeds", "seeds matter most"):  # and not for being wide beyond need
        assert covered / studies < 0.98


@pytest.mark.parametrize(("own", "differ"), [(0.0, 0.1), (1.5, 0.1), (1.5, 0.5), (3.0, 0.0)])
def test_a_paired_difference_is_covered_when_images_and_seeds_are_drawn(own, differ):
    """Two models that are as good as each other on average, and each better on images of its own."""
    draw, studies, covered, by_seeds_alone = np.random.default_rng(8), 1500, 0, 0
    for _ in range(studies):
        hard = draw.normal(0, 3.0, 360)
        first, second = (
            drawn(draw, 5, 360, easy=3.0, of_images=hard + draw.normal(0, own, 360), of_seeds=differ) for _ in range(2)
        )
        values = second.mean(axis=1) - first.mean(axis=1)
        ends = np.tile([1 / 360, -1 / 360], (5, 1))
        found = crossed(values, [np.hstack([moves(second)[:, :-2] - moves(first)[:, :-2], ends])])
        covered += abs(found.mean) <= found.half
        by_seeds_alone += abs(found.mean) <= estimate(values).half
    assert covered / studies > 0.935
    if own > 1 and differ < 0.2:
        assert by_seeds_alone / studies < 0.9


def test_data_sets_have_images_of_their_own():
    """The variance of an average over two is that of both halves."""
    draw = np.random.default_rng(9)
    one, other = (
        moves(drawn(draw, 4, 200, easy=1, of_images=draw.normal(0, 4, 200), of_seeds=0)) / 2 for _ in range(2)
    )
    values = [0.5, 0.5, 0.5, 0.5]
    together = crossed(values, [one, other]).images
    assert together == pytest.approx(math.hypot(crossed(values, [one]).images, crossed(values, [other]).images))


def test_one_seed_has_no_interval_whatever_its_images_say():
    assert math.isnan(crossed([0.5], [np.array([[0.1, -0.1]])]).half)
