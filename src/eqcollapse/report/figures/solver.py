"""Figure A-solver: whether the DEQs' features are equilibria, over epochs."""

import pandas as pd
from matplotlib.figure import Figure

from eqcollapse.report.config import RunsFigure
from eqcollapse.report.figures.style import band, log_scale, look, new_figure
from eqcollapse.report.results import CONVERGED, chosen, converged, model_name, read, split_name

PANELS = {
    "solver_steps": "Solver steps\n(mean a sample)",
    "at_the_limit": "Not converged\n(% of samples)",
    "solver_residual": "Relative residual\n(mean)",
    "solver_spectral_radius": "Spectral radius of\ndf/dz (estimate)",
}


def draw(spec: RunsFigure, inputs: list[str]) -> Figure:
    """Draw the figure of `spec` from (collapse.csv, accuracy.csv)."""
    return solver_figure(read(inputs[1]), spec)


def solver_figure(accuracy: pd.DataFrame, spec: RunsFigure) -> Figure:
    """Draw solver steps, share of samples that did not converge (of training and evaluation, the larger one), residual
    and spectral radius over epochs of training.

    A line a (model, split): the mean over seeds, with a band from the lowest to the highest seed.
    """
    ((dataset, splits),) = spec.splits.items()
    runs = chosen(accuracy, dataset, splits, spec)
    runs = runs.assign(at_the_limit=100 * (1 - converged(runs)))
    width = spec.style.width
    figure, axes = new_figure(1, len(PANELS), width=width, height=0.36 * width)
    series = [(model, split) for model in spec.models for split in splits]
    for axis, (quantity, label) in zip(axes[0], PANELS.items(), strict=True):
        for position, (model, split) in enumerate(series):
            part = runs[(runs.model == model) & (runs.split == split)].dropna(subset=[quantity])
            values = part.groupby("epoch")[quantity].agg(["mean", "min", "max"])
            style = look(position) | ({} if quantity == "solver_spectral_radius" else {"marker": ""})
            name = split_name(split) if len(spec.models) == 1 else f"{model_name(model)}, {split_name(split)}"
            band(axis, values, style, name)
        axis.set_title(label)
        axis.set_xlabel("Epoch")
        log_scale(axis, "x")
    axes[0, 1].axhline(100 * (1 - CONVERGED), color="0.3", linestyle=":", linewidth=1)
    axes[0, 1].set_ylim(bottom=-0.04 * axes[0, 1].get_ylim()[1])  # none at all is a line to be seen, too
    log_scale(axes[0, 2], "y")
    axes[0, 3].axhline(1, color="0.3", linestyle=":", linewidth=1)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(4, len(labels)))
    return figure
