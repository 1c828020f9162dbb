"""Claims A1 .. A4, on trained networks: their rules, and the numbers that they are held against.

Which runs count, and how numbers decide, is the rule of `criteria`. A DEQ's numbers count only where its solver
converged; its explicit counterpart is left out with it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from eqcollapse.report.answers import TEST, Answers, Contrast, difference
from eqcollapse.report.claims.criteria import FITTED, Criterion, Rule, measured
from eqcollapse.report.results import CONVERGED, converged, last_epoch, model_name

PAIR = ["dataset", "split", "seed"]
FALLS = {
    "sun2024_nc1": ("NC1", np.log10(0.1)),
    "sun2024_nc2": ("NC2", np.log10(0.5)),
    "sun2024_nc3": ("NC3", np.log10(0.5)),
}
"""A1: the metrics that must fall from the first measured epoch to the last, and by how many decades at least."""

APART = {"minority": 1, "majority": -1}
"""The accuracy on minority classes less that on majority classes."""


@dataclass(frozen=True)
class PairedRuns:
    """What paper A's claims are judged by: rows of collapse.csv (layer `features`) and accuracy.csv of runs that count,
    and the answers behind the accuracies.

    `models` are the explicit model and the DEQ, in this order; `left_out` counts pairs whose DEQ did not converge.
    """

    collapse: pd.DataFrame
    accuracy: pd.DataFrame
    answers: Answers
    models: tuple[str, str]
    left_out: int


def counted(collapse: pd.DataFrame, accuracy: pd.DataFrame, answers: Answers, models: tuple[str, str]) -> PairedRuns:
    """Return the runs of `models` that count: pairs whose DEQ converged for `CONVERGED` of its samples at the end."""
    final = last_epoch(accuracy[accuracy.model == models[1]])
    failed = final[~(converged(final) >= CONVERGED)][PAIR]
    kept = [_without(frame[frame.model.isin(models)], failed) for frame in (collapse, accuracy)]
    return PairedRuns(kept[0][kept[0].layer == "features"], kept[1], answers, models, len(failed))


def collapse_when_balanced(runs: PairedRuns) -> Iterator[Criterion]:
    """A1: both models collapse on balanced data."""
    frame = runs.collapse[runs.collapse.split == "balanced"]
    for model in runs.models:
        rows = frame[frame.model == model]
        learnt = first_learnt(rows).notna()
        ends = _end(rows), _end(rows, first=True)
        for column, (name, decades) in FALLS.items():
            fall = np.log10(ends[0][column] / ends[1][column])
            statistic = f"{model_name(model)}: log10 of {name} in the last measured epoch over the first"
            yield _held(Rule(statistic, "below", float(round(decades, 3)), 0.0), fall, learnt)


def minority_collapse(runs: PairedRuns) -> Iterator[Criterion]:
    """A2: under imbalance both models suffer minority collapse: what was learnt of the minority is merged in the end.

    Of splits with two or more minority classes: one alone has no angle within.
    """
    frame = _imbalanced(runs.collapse)
    frame = frame[frame.classes - _majority(frame.split) > 1]
    final = _imbalanced(last_epoch(runs.accuracy))
    for model in runs.models:
        rows = frame[frame.model == model]
        since = first_learnt(rows, "_minority")
        learnt = since.notna()
        cosine, etf = _end(rows).cos_weight_minority, -1 / (_end(rows).classes - 1)
        statistic = f"{model_name(model)}: mean cosine of the minority's classifiers, less that of a simplex ETF"
        yield _held(Rule(statistic, "above", 0.1, 0.0), cosine - etf, learnt)
        at_first = rows.set_index(PAIR)
        at_first = at_first[at_first.epoch == since.reindex(at_first.index)].cos_weight_minority
        statistic = f"{model_name(model)}: the same cosine, less that of the epoch in which the minority was learnt"
        yield _held(Rule(statistic, "above", 0.0, 0.0), cosine - at_first, learnt)
        right = final[final.model == model].set_index(PAIR).loc[learnt.index]
        gap = 100 * (right.test_accuracy_majority - right.test_accuracy_minority)
        statistic = f"{model_name(model)}: test accuracy of the majority less the minority's, in points"
        contrast = Contrast({(model, TEST): 1}, {"majority": 1, "minority": -1})
        yield _held(Rule(statistic, "above", 0.0, 0.0), gap, learnt, runs.answers, contrast)


def nearer_collapse(runs: PairedRuns) -> Iterator[Criterion]:
    """A3: under imbalance the trained DEQ's features are nearer the simplex ETF, its classifier nearer self-duality.

    Of pairs in which both models learnt all classes.
    """
    frame = _imbalanced(runs.collapse)
    explicit, deq = (frame[frame.model == model] for model in runs.models)
    learnt = first_learnt(explicit).notna() & first_learnt(deq).notna()
    for column, name in (
        ("nc2_means_etf", "distance of the feature means to the simplex ETF"),
        ("nc3_duality", "self-duality error ||W/|W| - M'/|M|||"),
    ):
        ratio = np.log10(_end(deq)[column] / _end(explicit)[column])
        yield _held(Rule(f"log10 of {name}, DEQ over explicit, paired", "below", 0.0, 0.0), ratio, learnt)


def better_accuracy(runs: PairedRuns) -> Iterator[Criterion]:
    """A4: the DEQ's accuracy is at least the explicit network's, most of all on minority classes.

    A pair counts where at least one of its models learnt the classes in question: where neither did, the two are as
    good at guessing. What one learnt and the other did not is a difference between them.
    """
    final = last_epoch(runs.accuracy)
    whole, minority = _learnt_by_one(runs, "_majority"), _learnt_by_one(runs, "_minority")
    whole = whole | _learnt_by_one(runs, "")
    gains = {
        group: 100 * (_of(frame, runs.models[1], column) - _of(frame, runs.models[0], column))
        for group, frame, column in (
            ("overall", final, "test_accuracy"),
            ("majority", _imbalanced(final), "test_accuracy_majority"),
            ("minority", _imbalanced(final), "test_accuracy_minority"),
        )
    }
    gains["apart"] = gains["minority"] - gains["majority"]
    for what, gain, learnt, bound, groups in (
        ("all classes, all splits", "overall", whole, -0.5, {"overall": 1}),
        ("minority classes", "minority", minority, 0.0, {"minority": 1}),
        ("gain on minority classes less that on majority classes", "apart", minority, 0.0, APART),
    ):
        rule = Rule(f"test accuracy, DEQ less explicit, paired, in points: {what}", "above", bound, bound)
        yield _held(rule, gains[gain], learnt, runs.answers, difference(*runs.models, groups))


def first_learnt(rows: pd.DataFrame, group: str = "") -> pd.Series:
    """Return the first measured epoch in which every class of a group is learnt, a number a pair; nan: in none.

    `rows` are those of one model; `group` is "" (all classes), "_majority" or "_minority".
    """
    fitted = rows.epoch.where(rows[f"accuracy_least{group}"] >= FITTED)
    return fitted.groupby([rows[name] for name in PAIR]).min()


def _learnt_by_one(runs: PairedRuns, group: str) -> pd.Series:
    first, second = (first_learnt(runs.collapse[runs.collapse.model == model], group) for model in runs.models)
    return first.notna() | second.notna()


def _held(
    rule: Rule,
    values: pd.Series,
    learnt: pd.Series,
    answers: Answers | None = None,
    contrast: Contrast | None = None,
) -> Criterion:
    """Hold `rule` against one number a pair, of pairs that were learnt, averaged over data sets and splits.

    Seeds are what is independent, and for accuracies, which are `contrast` in points, the test images of each data set.
    A pair without a number (nan) makes its seed a failure.
    """
    counts = learnt.reindex(values.index).fillna(False).astype(bool)
    seeds = values[counts].groupby("seed").apply(lambda cells: cells.mean(skipna=False))
    moves = None
    if answers and contrast:
        moves = _deviations(values[counts].index, seeds.index, answers, contrast)
    return measured(rule, seeds, int((~counts).sum()), moves)


def _deviations(pairs: pd.MultiIndex, seeds: pd.Index, answers: Answers, contrast: Contrast) -> list[np.ndarray]:
    """Return for each data set, a row a seed, how each test image moves the average of `contrast` over the pairs."""
    sizes = pairs.get_level_values("seed").value_counts()
    moves: dict[str, dict[int, np.ndarray]] = {}
    for dataset, split, seed in pairs:
        moved = 100 / sizes[seed] * answers.deviations(dataset, split, seed, contrast)
        so_far = moves.setdefault(dataset, {seed: np.zeros_like(moved) for seed in seeds})
        so_far[seed] = so_far[seed] + moved
    return [np.stack(list(by_seed.values())) for by_seed in moves.values()]


def _end(rows: pd.DataFrame, first: bool = False) -> pd.DataFrame:
    """Return each pair's row of the last (or first) measured epoch, as it is: nan stays."""
    ordered = rows.sort_values("epoch", kind="stable", ascending=not first)
    return ordered.drop_duplicates(PAIR, keep="last").set_index(PAIR)


def _without(frame: pd.DataFrame, failed: pd.DataFrame) -> pd.DataFrame:
    keys = pd.MultiIndex.from_frame(failed)
    return frame[~pd.MultiIndex.from_frame(frame[PAIR]).isin(keys)]


def _imbalanced(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame.split != "balanced"]


def _majority(splits: pd.Series) -> pd.Series:
    """Return KA of splits that are named as ka3-r10."""
    return splits.str.extract(r"^ka(\d+)-", expand=False).astype(float)


def _of(frame: pd.DataFrame, model: str, column: str) -> pd.Series:
    return frame[frame.model == model].set_index(PAIR)[column]


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
