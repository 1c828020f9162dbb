"""Accuracy and collapse over epochs: figure A-3 and its counterparts for every imbalance."""

import pandas as pd
from matplotlib.figure import Figure

from eqcollapse.report.config import RunsFigure
from eqcollapse.report.figures.style import band, log_scale, look, new_figure
from eqcollapse.report.results import chosen, model_name, read, split_name

PANELS = {
    "test_accuracy": "Test accuracy (%)",
    "sun2024_nc1": "NC1",
    "sun2024_nc2": "NC2",
    "sun2024_nc3": "NC3",
}


def draw(spec: RunsFigure, inputs: list[str]) -> Figure:
    """Draw the figure of `spec` from (collapse.csv, accuracy.csv)."""
    return curves(*(read(path) for path in inputs), spec)


def curves(collapse: pd.DataFrame, accuracy: pd.DataFrame, spec: RunsFigure) -> Figure:
    """Draw figure A-3: a row a split, a column each for accuracy, NC1, NC2, NC3 over epochs; a line a model.

    Lines are means over seeds, bands reach from the lowest to the highest seed.
    """
    ((dataset, splits),) = spec.splits.items()
    collapse = collapse[collapse.layer == "features"]
    width = spec.style.width
    figure, axes = new_figure(len(splits), len(PANELS), width=width, height=0.4 + 1.5 * len(splits), sharex=True)
    for row, split in enumerate(splits):
        for column, (quantity, label) in enumerate(PANELS.items()):
            frame = accuracy if quantity in accuracy else collapse
            part = chosen(frame, dataset, [split], spec)
            axis = axes[row, column]
            _panel(axis, part, quantity, spec.models)
            log_scale(axis, "x")
            if row == 0:
                axis.set_title(label)
            if row == len(splits) - 1:
                axis.set_xlabel("Epoch")
        axes[row, 0].set_ylabel(split_name(split))
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return figure


def _panel(axis, part: pd.DataFrame, quantity: str, models: list[str]) -> None:
    scale = 100 if "accuracy" in quantity else 1
    for position, model in enumerate(models):
        values = scale * part[part.model == model].dropna(subset=[quantity]).groupby("epoch")[quantity].agg(
            ["mean", "min", "max"]
        )
        style = look(position) | ({"marker": ""} if "accuracy" in quantity else {})
        band(axis, values, style, model_name(model))
    if "accuracy" not in quantity:
        log_scale(axis, "y")
