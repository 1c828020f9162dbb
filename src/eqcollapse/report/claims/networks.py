"""Claims A1 .. A4, on trained networks: their rules, and the numbers that they are held against.

A DEQ's numbers count only where its solver converged; its explicit counterpart is left out with it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from eqcollapse.report.claims.criteria import Criterion, Rule, measured
from eqcollapse.report.results import CONVERGED, converged, last_epoch, model_name

PAIR = ["dataset", "split", "seed"]
FALLS = {
    "sun2024_nc1": ("NC1", np.log10(0.1)),
    "sun2024_nc2": ("NC2", np.log10(0.5)),
    "sun2024_nc3": ("NC3", np.log10(0.5)),
}
"""A1: the metrics that must fall from the first measured epoch to the last, and by how many decades at least."""


@dataclass(frozen=True)
class Runs:
    """What paper A's claims are judged by: rows of collapse.csv (layer `features`) and accuracy.csv of runs that count.

    `models` are the explicit model and the DEQ, in this order; `left_out` counts pairs whose DEQ did not converge.
    """

    collapse: pd.DataFrame
    accuracy: pd.DataFrame
    models: tuple[str, str]
    left_out: int


def counted(collapse: pd.DataFrame, accuracy: pd.DataFrame, models: tuple[str, str]) -> Runs:
    """Return the runs of `models` that count: pairs whose DEQ converged for `CONVERGED` of its samples at the end."""
    final = last_epoch(accuracy[accuracy.model == models[1]])
    failed = final[~(converged(final) >= CONVERGED)][PAIR]
    kept = [_without(frame[frame.model.isin(models)], failed) for frame in (collapse, accuracy)]
    return Runs(kept[0][kept[0].layer == "features"], kept[1], models, len(failed))


def collapse_when_balanced(runs: Runs) -> Iterator[Criterion]:
    """A1: both models collapse on balanced data."""
    frame = runs.collapse[runs.collapse.split == "balanced"].sort_values("epoch")
    for model in runs.models:
        cells = frame[frame.model == model].groupby(PAIR)
        for column, (name, decades) in FALLS.items():
            fall = np.log10(cells[column].last() / cells[column].first())
            statistic = f"{model_name(model)}: log10 of {name} in the last measured epoch over the first"
            yield measured(Rule(statistic, "below", float(round(decades, 3)), 0.0), _by_seed(fall))


def minority_collapse(runs: Runs) -> Iterator[Criterion]:
    """A2: under imbalance both models suffer minority collapse."""
    geometry = _imbalanced(last_epoch(runs.collapse))
    accuracy = _imbalanced(last_epoch(runs.accuracy))
    for model in runs.models:
        of = geometry[geometry.model == model].set_index(PAIR)
        statistic = f"{model_name(model)}: mean cosine of the minority's classifiers, less that of a simplex ETF"
        yield measured(Rule(statistic, "above", 0.1, 0.0), _by_seed(of.cos_weight_minority + 1 / (of.classes - 1)))
        right = accuracy[accuracy.model == model].set_index(PAIR)
        gap = 100 * (right.test_accuracy_majority - right.test_accuracy_minority)
        statistic = f"{model_name(model)}: test accuracy of the majority less the minority's, in points"
        yield measured(Rule(statistic, "above", 0.0, 0.0), _by_seed(gap))


def nearer_collapse(runs: Runs) -> Iterator[Criterion]:
    """A3: under imbalance the trained DEQ's features are nearer the simplex ETF, its classifier nearer self-duality."""
    geometry = _imbalanced(last_epoch(runs.collapse))
    for column, name in (
        ("nc2_means_etf", "distance of the feature means to the simplex ETF"),
        ("nc3_duality", "self-duality error ||W/|W| - M'/|M|||"),
    ):
        ratio = np.log10(_of(geometry, runs.models[1], column) / _of(geometry, runs.models[0], column))
        yield measured(Rule(f"log10 of {name}, DEQ over explicit, paired", "below", 0.0, 0.0), _by_seed(ratio))


def better_accuracy(runs: Runs) -> Iterator[Criterion]:
    """A4: the DEQ's accuracy is at least the explicit network's, most of all on minority classes."""
    final = last_epoch(runs.accuracy)
    gains = {
        group: 100 * (_of(frame, runs.models[1], column) - _of(frame, runs.models[0], column))
        for group, frame, column in (
            ("overall", final, "test_accuracy"),
            ("majority", _imbalanced(final), "test_accuracy_majority"),
            ("minority", _imbalanced(final), "test_accuracy_minority"),
        )
    }
    statistic = "test accuracy, DEQ less explicit, paired, in points: "
    yield measured(Rule(f"{statistic}all classes, all splits", "above", -0.5, -0.5), _by_seed(gains["overall"]))
    yield measured(Rule(f"{statistic}minority classes", "above", 0.0, 0.0), _by_seed(gains["minority"]))
    yield measured(
        Rule(f"{statistic}gain on minority classes less that on majority classes", "above", 0.0, 0.0),
        _by_seed(gains["minority"] - gains["majority"]),
    )


def _without(frame: pd.DataFrame, failed: pd.DataFrame) -> pd.DataFrame:
    keys = pd.MultiIndex.from_frame(failed)
    return frame[~pd.MultiIndex.from_frame(frame[PAIR]).isin(keys)]


def _imbalanced(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame.split != "balanced"]


def _of(frame: pd.DataFrame, model: str, column: str) -> pd.Series:
    return frame[frame.model == model].set_index(PAIR)[column]


def _by_seed(values: pd.Series) -> pd.Series:
    """Average over data sets and splits: seeds are what is independent."""
    return values.dropna().groupby("seed").mean()


CLAIMS = {
    "A1": ("Both models collapse (NC1, NC2, NC3) on balanced data.", collapse_when_balanced, "balanced"),
    "A2": ("Under imbalance both models suffer minority collapse.", minority_collapse, "imbalanced"),
    "A3": (
        "Under imbalance the DEQ's features stay nearer the simplex ETF, and its classifier nearer self-duality.",
        nearer_collapse,
        "imbalanced",
    ),
    "A4": (
        "The DEQ's accuracy is at least the explicit network's, most of all on minority classes.",
        better_accuracy,
        "all",
    ),
}
"""Each claim, the function that yields its criteria, and the splits that it is about."""
