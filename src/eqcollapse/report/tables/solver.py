"""Table solver: whether the equilibrium matters, for every DEQ row of the accuracy tables."""

import pandas as pd

from eqcollapse.report.answers import TEST, Answers, Contrast, accuracy_of, read_answers
from eqcollapse.report.config import SolverTable
from eqcollapse.report.intervals import with_interval
from eqcollapse.report.results import chosen, has_groups, last_epoch, model_name, read
from eqcollapse.report.tables.accuracy import GROUPS, mean_accuracy

PASSES = {"test": "As trained", "skipped": "Skipped", "solved": "Solved to 1e-8"}
"""The forward passes whose accuracies the history's last row has, by the prefix of their columns."""


def table(spec: SolverTable, inputs: list[str]) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """Return the table of `spec` from (collapse.csv, accuracy.csv, answers), as numbers and as people read it, and a
    note.
    """
    numbers = solver_table(read(inputs[1]), read_answers(inputs[2]), spec)
    note = (
        "Test accuracy (%) after the last epoch by how z* is found; mean over seeds ± half its 95 % interval "
        "(over seeds and test images). "
        "Skipped: z = f(0, x), one application of the layer. Solved: in float64 to a relative residual of 1e-8; "
        "the share of samples that got there is beside it. Differences are to the pass as trained, paired by seed."
    )
    return numbers, _shown(numbers), note


def solver_table(accuracy: pd.DataFrame, answers: Answers, spec: SolverTable) -> pd.DataFrame:
    """Return a row a (dataset, split, model, group): for each pass the mean accuracy over seeds in per cent and half
    its 95 % interval, the paired differences to the pass as trained, and the share solved to 1e-8.
    """
    rows = []
    for dataset, splits in spec.splits.items():
        final = last_epoch(chosen(accuracy, dataset, splits, spec))
        for split in splits:
            for model in spec.models:
                part = final[(final.split == split) & (final.model == model)]
                groups = GROUPS if has_groups(split) else ["overall"]
                rows += [
                    {"dataset": dataset, "split": split, "model": model, "group": group, **_cells(part, answers, group)}
                    for group in groups
                ]
    return pd.DataFrame(rows)


def _cells(part: pd.DataFrame, answers: Answers, group: str) -> dict[str, float]:
    by_seed = part.set_index("seed")
    by_pass = {name: 100 * by_seed[GROUPS[group].replace("test", name, 1)] for name in PASSES}
    where, model = (answers, part.dataset.iloc[0], part.split.iloc[0]), part.model.iloc[0]
    cells: dict[str, float] = {}
    for name, values in by_pass.items():
        found = mean_accuracy(values, *where, accuracy_of(model, group, name))
        cells |= {name: found.mean, f"{name}_interval": found.half}
    for name in ("skipped", "solved"):
        contrast = Contrast({(model, name): 1, (model, TEST): -1}, {group: 1})
        found = mean_accuracy(by_pass[name] - by_pass["test"], *where, contrast)
        cells |= {f"{name}_difference": found.mean, f"{name}_difference_interval": found.half}
    return {**cells, "solved_converged": part.solved_converged.mean(), "seeds": len(part)}


def _shown(numbers: pd.DataFrame) -> pd.DataFrame:
    shown = numbers[["dataset", "split", "model", "group"]].rename(columns=str.capitalize)
    shown["Model"] = [model_name(model) for model in numbers.model]
    for name, title in PASSES.items():
        shown[title] = _with_intervals(numbers, name)
        if name != "test":
            shown[f"{title}, difference"] = _with_intervals(numbers, f"{name}_difference", signed=True)
    shown["Converged at 1e-8"] = [f"{share:.1%}" for share in numbers.solved_converged]
    shown["Seeds"] = numbers.seeds.astype(str)
    return shown


def _with_intervals(numbers: pd.DataFrame, column: str, signed: bool = False) -> list[str]:
    pairs = zip(numbers[column], numbers[f"{column}_interval"], strict=True)
    return [with_interval(value, half, signed) for value, half in pairs]
