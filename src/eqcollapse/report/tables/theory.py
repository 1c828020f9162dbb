"""Table theory: the minima that gradient descent reached, beside the closed forms."""

import math
from collections.abc import Mapping

import pandas as pd

from eqcollapse.report.config import TheoryTable
from eqcollapse.report.results import ufm_layers

ABSENT = {"Measured": "", "Highest": "", "Closed form": "none known", "Lower": ""}
"""What stands in place of a value that does not exist."""


def table(spec: TheoryTable, inputs: list[str]) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """Return the table of `spec` from a CSV an experiment, as numbers and as people read it, and a note."""
    files = zip(spec.experiments, inputs, strict=True)
    numbers = theory_table({name: pd.read_csv(path) for name, path in files})
    shown = numbers.rename(columns=lambda name: name.replace("_", " ").capitalize()).astype(object)
    for column in ("Measured", "Highest", "Closed form", "Lower"):
        shown[column] = [f"{value:.12f}" if pd.notna(value) else ABSENT[column] for value in shown[column]]
    for column in ("Relative gap", "Range gap"):
        shown[column] = [f"{value:.1e}" if pd.notna(value) else "" for value in shown[column]]
    return numbers, shown, ""


def theory_table(experiments: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return table theory from the rows of each experiment by name: a row a case.

    Columns: experiment, case, measured (the least loss over the seeds), highest (the greatest), closed_form,
    lower (of a point that is known to lie below it, if any), relative_gap of the least to closed_form, range_gap (the
    same as a share of log K - closed_form, all that there is to gain; layer-peeled only, whose losses differ little
    from log K under small bounds), status (`global`: proved to be the minimum; `stationary`; `beaten`: the closed form
    is full collapse, which is not the minimum, so that no gap to it is stated; `unknown`).
    A layer-peeled experiment gives two cases a model: balanced (R = 1) against the lower bound, and of the
    imbalanced cells that with the largest relative gap against the exact minimum.
    """
    rows = []
    for name, frame in experiments.items():
        rows += _peeled_rows(name, frame) if "model" in frame else _ufm_rows(name, frame)
    return pd.DataFrame(rows)


def _ufm_rows(name: str, frame: pd.DataFrame) -> list[dict]:
    last = frame[frame.iteration == frame.iteration.max()]
    rows = []
    for scale, part in last.groupby("lambda_scale"):
        case = f"{len(ufm_layers(frame))} layer(s)" + ("" if scale == 1 else f", lambdas x {scale:g}")
        optimum, status, lower = (part[column].iloc[0] for column in ("optimum", "status", "lower"))
        rows.append(_row(name, case, part.loss, optimum, status, lower=lower))
    return rows


def _peeled_rows(name: str, frame: pd.DataFrame) -> list[dict]:
    rows = []
    for model, part in frame.groupby("model", sort=False):
        balanced, imbalanced = part[part.ratio == 1], part[part.ratio > 1]
        if len(balanced):
            closed_form = balanced.lower_bound.iloc[0]
            rows.append(_row(name, f"{model}, balanced", balanced.loss, closed_form, "global", _range(balanced)))
        if len(imbalanced):
            cells = imbalanced.groupby(["majority", "ratio"], sort=False)
            gaps = cells.loss.min() / cells.optimum.first() - 1
            majority, ratio = gaps.idxmax()
            cell = cells.get_group((majority, ratio))
            case = f"{model}, worst of {len(gaps)} imbalances: KA = {majority}, R = {ratio:g}"
            rows.append(_row(name, case, cell.loss, cell.optimum.iloc[0], "global", _range(cell)))
    return rows


def _range(cells: pd.DataFrame) -> float:
    """Return what there is to gain over logits that say nothing."""
    return (cells.loss_at_zero - cells.optimum).iloc[0]


def _row(
    name: str,
    case: str,
    losses: pd.Series,
    closed_form: float,
    status: str,
    gain: float = math.nan,
    lower: float = math.nan,
) -> dict:
    gap = losses.min() - closed_form if status != "beaten" else math.nan
    return {
        "experiment": name,
        "case": case,
        "measured": losses.min(),
        "highest": losses.max(),
        "closed_form": closed_form,
        "lower": lower,
        "relative_gap": gap / closed_form,
        "range_gap": gap / gain,
        "status": status,
    }
