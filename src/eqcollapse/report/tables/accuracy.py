"""Tables A-1 .. A-4: test accuracy in per cent."""

import numpy as np
import pandas as pd

from eqcollapse.report.answers import Answers, Contrast, accuracy_of, difference, read_answers
from eqcollapse.report.config import AccuracyTable
from eqcollapse.report.intervals import Estimate, crossed, holm, p_text, with_interval
from eqcollapse.report.results import CONVERGED, chosen, has_groups, last_epoch, model_name, read, unconverged

GROUPS = {
    "overall": "test_accuracy",
    "majority": "test_accuracy_majority",
    "minority": "test_accuracy_minority",
}


def table(spec: AccuracyTable, inputs: list[str]) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """Return the table of `spec` from (collapse.csv, accuracy.csv, answers), as numbers and as people read it, and a
    note.
    """
    accuracy = read(inputs[1])
    numbers = accuracy_table(accuracy, read_answers(inputs[2]), spec)
    return numbers, _shown(numbers), solver_warning(accuracy, spec)


def solver_warning(accuracy: pd.DataFrame, spec: AccuracyTable) -> str:
    """Return which runs in the table are no equilibria, their solver not having converged at the end; else ""."""
    if "solver_converged" not in accuracy:
        return ""
    final = pd.concat([last_epoch(chosen(accuracy, *cell, spec)) for cell in spec.splits.items()])
    failed = unconverged(final)
    if not failed:
        return ""
    return (
        f"Warning: a DEQ that does not converge is no equilibrium. In the last epoch the solver converged for less "
        f"than {CONVERGED:.0%} of the samples in {', '.join(failed)}."
    )


def accuracy_table(accuracy: pd.DataFrame, answers: Answers, spec: AccuracyTable) -> pd.DataFrame:
    """Return test accuracy of the last epoch: a row a (dataset, split, group), for each model its mean over the
    seeds in per cent and half its 95 % interval; with two models also the second less the first, paired by seed and by
    test image, the p-value of no difference, and the same after Holm's correction for all differences of the table.

    Intervals are for other seeds and other test images (`intervals.crossed`).
    """
    rows = []
    for dataset, splits in spec.splits.items():
        final = last_epoch(chosen(accuracy, dataset, splits, spec))
        for split in splits:
            part = final[final.split == split]
            groups = GROUPS if has_groups(split) else ["overall"]
            rows += [
                {"dataset": dataset, "split": split, "group": group, **_cells(part, answers, group, spec.models)}
                for group in groups
            ]
    table = pd.DataFrame(rows)
    if "difference_p" in table:
        table.insert(table.columns.get_loc("difference_p") + 1, "difference_p_holm", holm(table.difference_p))
    return table


def mean_accuracy(values: pd.Series, answers: Answers, dataset: str, split: str, contrast: Contrast) -> Estimate:
    """Return the mean of `values` over seeds, which are its index: `contrast` in per cent, on one split."""
    moves = [100 * answers.deviations(dataset, split, seed, contrast) for seed in values.index]
    return crossed(values, [np.stack(moves)])


def _cells(part: pd.DataFrame, answers: Answers, group: str, models: list[str]) -> dict[str, float]:
    by_model = {model: 100 * part[part.model == model].set_index("seed")[GROUPS[group]] for model in models}
    where = (answers, part.dataset.iloc[0], part.split.iloc[0])
    cells: dict[str, float] = {}
    for model, values in by_model.items():
        found = mean_accuracy(values, *where, accuracy_of(model, group))
        cells[model], cells[f"{model}_interval"] = found.mean, found.half
    if len(models) == 2:
        first, second = models
        found = mean_accuracy(by_model[second] - by_model[first], *where, difference(first, second, {group: 1}))
        cells["difference"], cells["difference_interval"] = found.mean, found.half
        cells["difference_p"] = found.p_apart(0.0)
    return {**cells, "seeds": len(by_model[models[0]])}


def _shown(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table for people: intervals beside their means, names in place of columns."""
    shown = table[["dataset", "split", "group"]].rename(columns=str.capitalize)
    for column in [name for name in table.columns[3:] if f"{name}_interval" in table]:
        name = "Difference" if column == "difference" else model_name(column)
        pairs = zip(table[column], table[f"{column}_interval"], strict=True)
        shown[name] = [with_interval(value, half, column == "difference") for value, half in pairs]
    if "difference_p" in table:
        pairs = zip(table.difference_p, table.difference_p_holm, strict=True)
        shown["p (Holm)"] = [f"{p_text(p)} ({p_text(fixed)})" if p_text(p) else "" for p, fixed in pairs]
    shown["Seeds"] = table["seeds"].astype(str)
    return shown
