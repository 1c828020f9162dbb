"""Table selection: which settings do best on the validation share. The test set is never looked at."""

import math

import pandas as pd

from eqcollapse.report.config import SelectionTable
from eqcollapse.report.intervals import estimate, with_interval
from eqcollapse.report.results import chosen, last_epoch, read
from eqcollapse.runtime.errors import EqcollapseError

SCORE = "validation_accuracy"


def table(spec: SelectionTable, inputs: list[str]) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """Return the table of `spec` from (collapse.csv, accuracy.csv), as numbers and as people read it, and a note."""
    numbers = selection_table(read(inputs[1]), spec)
    note = (
        f"Validation accuracy (%) of the last epoch, averaged over splits ({_splits(spec)}); mean over seeds ± half "
        "its 95 % interval. Chosen: the highest mean of each head, the first of equals. Steps: evaluations of f a "
        "sample in the last epoch's solves."
    )
    return numbers, _shown(numbers), note


def selection_table(accuracy: pd.DataFrame, spec: SelectionTable) -> pd.DataFrame:
    """Return a row a (data set, model): its validation accuracy in per cent, the solver's steps, whether it is chosen.

    Raises `EqcollapseError` where a run kept no validation share.
    """
    rows = []
    for dataset, splits in spec.splits.items():
        final = last_epoch(chosen(accuracy, dataset, splits, spec))
        if SCORE not in final or final[SCORE].isna().any():
            raise EqcollapseError(f"{dataset}: has no validation accuracy: set splits.validation above 0")
        scored = [_row(dataset, model, final[final.model == model], spec) for model in spec.models]
        for head in dict.fromkeys(spec.heads.values()):
            best = max((row for row in scored if row["head"] == head), key=lambda row: row["validation"])
            best["chosen"] = True
        rows += scored
    return pd.DataFrame(rows)


def _row(dataset: str, model: str, final: pd.DataFrame, spec: SelectionTable) -> dict:
    by_seed = 100 * final.groupby("seed")[SCORE].mean()
    found = estimate(by_seed)
    steps = final["solver_steps"].mean() if "solver_steps" in final else float("nan")
    return {
        "dataset": dataset,
        "head": spec.heads[model],
        "model": model,
        "settings": spec.settings[model],
        "validation": found.mean,
        "validation_interval": found.half,
        "solver_steps": steps,
        "seeds": len(by_seed),
        "chosen": False,
    }


def _shown(numbers: pd.DataFrame) -> pd.DataFrame:
    shown = numbers[["dataset", "head", "model", "settings"]].rename(columns=str.capitalize)
    pairs = zip(numbers.validation, numbers.validation_interval, strict=True)
    shown["Validation"] = [with_interval(mean, half) for mean, half in pairs]
    shown["Steps"] = [f"{steps:.1f}" if not math.isnan(steps) else "" for steps in numbers.solver_steps]
    shown["Seeds"] = numbers.seeds.astype(str)
    shown["Chosen"] = ["chosen" if chosen else "" for chosen in numbers.chosen]
    return shown


def _splits(spec: SelectionTable) -> str:
    return ", ".join(dict.fromkeys(split for splits in spec.splits.values() for split in splits))
