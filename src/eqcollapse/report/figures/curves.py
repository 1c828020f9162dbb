"""Accuracy and collapse over epochs: figure A-3 and its counterparts for every imbalance."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eqcollapse.report.config import RunsFigure
from eqcollapse.report.figures.style import COLOURS, band, log_scale, look, new_figure
from eqcollapse.report.results import chosen, has_groups, model_name, read, split_name

PANELS = {
    "test_accuracy": "Test accuracy (%)",
    "sun2024_nc1": "NC1",
    "sun2024_nc2": "NC2",
    "sun2024_nc3": "NC3",
}
ANGLE = "cos_weight_minority"
"""Which splits with minority classes have besides: how near their classifiers are; 1 is minority collapse."""


def draw(spec: RunsFigure, inputs: list[str]) -> Figure:
    """Draw the figure of `spec` from (collapse.csv, accuracy.csv)."""
    collapse, accuracy = inputs
    return curves(read(collapse), read(accuracy), spec)


def curves(collapse: pd.DataFrame, accuracy: pd.DataFrame, spec: RunsFigure) -> Figure:
    """Draw figure A-3: a row a split, a column each for accuracy, NC1, NC2, NC3 over epochs; a line a model.

    Where a split has minority classes, a column more has the mean cosine of their classifiers (dotted: that of an ETF).
    Lines are means over seeds, bands reach from the lowest to the highest seed.
    """
    ((dataset, splits),) = spec.splits.items()
    collapse = collapse[collapse.layer == "features"]
    width = spec.style.width
    panels = PANELS | ({ANGLE: "Minority cosine"} if any(map(has_groups, splits)) else {})
    figure, axes = new_figure(len(splits), len(panels), width=width, height=0.4 + 1.5 * len(splits), sharex=True)
    for row, split in enumerate(splits):
        for column, (quantity, label) in enumerate(panels.items()):
            frame = accuracy if quantity in accuracy else collapse
            part = chosen(frame, dataset, [split], spec)
            axis = axes[row, column]
            if quantity == ANGLE and not has_groups(split):
                axis.set_visible(False)
                continue
            _panel(axis, part, quantity, spec.models)
            log_scale(axis, "x")
            if row == 0 or (quantity == ANGLE and not any(map(has_groups, splits[:row]))):
                axis.set_title(label)
            if row == len(splits) - 1:
                axis.set_xlabel("Epoch")
        axes[row, 0].set_ylabel(split_name(split))
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return figure


def _panel(axis: Axes, part: pd.DataFrame, quantity: str, models: list[str]) -> None:
    scale = 100 if "accuracy" in quantity else 1
    for position, model in enumerate(models):
        values = scale * part[part.model == model].dropna(subset=[quantity]).groupby("epoch")[quantity].agg(
            ["mean", "min", "max"]
        )
        style = look(position) | ({"marker": ""} if "accuracy" in quantity else {})
        band(axis, values, style, model_name(model))
    if quantity == ANGLE:
        axis.axhline(-1 / (part.classes.iloc[0] - 1), color=COLOURS[-1], linestyle=":", linewidth=0.8)
    elif "accuracy" not in quantity:
        log_scale(axis, "y")
