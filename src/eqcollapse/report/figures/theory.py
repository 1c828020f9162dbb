"""Figures of the theory: CSVs of the theory stage in, matplotlib figures out."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eqcollapse.report.figures.style import COLOURS, LINES, MARKERS, band, look, new_figure
from eqcollapse.report.results import ufm_layers

FLOOR = 1e-16
"""Metrics fall to 1e-47 where collapse is exact; below this they only squeeze the rest of the picture."""

GEOMETRY = {
    "minority_cosine": "Minority cosine",
    "norm_ratio": "Norm ratio",
    "nc2": "Distance of W\nto simplex ETF",
    "seli_weight": "Distance of W\nto SELI",
    "self_duality": "Self-duality\nerror",
}
EXACT = {"minority_cosine": "exact_minority_cosine", "norm_ratio": "exact_norm_ratio"}
MODELS = {"explicit": "explicit", "deq": "DEQ"}


def descent(runs: pd.DataFrame, *, width: float) -> Figure:
    """Draw figures B-1 to B-4: loss, NC1, NC2 and NC3 over iterations, a line a layer's features.

    Lines are medians over the seeds, bands reach from the lowest to the highest; a dotted line is the closed form.
    Where a lower point is known it is called full collapse, and a dashed line is that point.
    A row of axes for each of several lambda_scales.
    """
    scales = dict(list(runs[runs.iteration > 0].groupby("lambda_scale")))
    figure, axes = new_figure(len(scales), 4, width=width, height=0.3 * width * len(scales), sharex="col")
    for row, part in zip(axes, scales.values(), strict=True):
        _descent(row, part)
    for axis, title in zip(axes[0], ("Loss", "NC1", "NC2", "NC3"), strict=True):
        axis.set_title(title)
    for axis in axes[-1]:
        axis.set_xlabel("Iteration")
    _name_scales(axes, scales, "{}")
    return figure


def _descent(axes: Sequence[Axes], runs: pd.DataFrame) -> None:
    layers = ufm_layers(runs)
    _band(axes[0], runs, "loss", {"color": COLOURS[-1]}, None)
    if runs.optimum.notna().all():
        beaten = runs.lower.notna().all()
        if beaten:
            axes[0].axhline(runs.lower.iloc[0], color=COLOURS[2], linestyle="--", label="low-rank point")
        label = "full collapse" if beaten else "closed form"
        axes[0].axhline(runs.optimum.iloc[0], color=COLOURS[1], linestyle=":", label=label)
        axes[0].legend(loc="upper right", fontsize=7)
    for axis, metric in zip(axes[1:], ("nc1", "nc2", "nc3"), strict=True):
        for layer in layers:
            style = look(layer - 1) | {"marker": ""}
            _band(axis, runs, f"{metric}_{layer}", style, _features(layer, len(layers)))
        bottom = runs[[f"{metric}_{layer}" for layer in layers]].min().min()
        if bottom < FLOOR:
            axis.set_ylim(bottom=FLOOR)
    if len(layers) > 1:
        axes[-1].legend(loc="lower left", fontsize=7)
    for axis in axes:
        axis.set_xscale("log")
        axis.set_yscale("log")


def low_rank(runs: pd.DataFrame, *, width: float) -> Figure:
    """Draw deep ReLU runs that end below full collapse: their loss, and the rank of the class means of the lowest.

    Left, from iteration 100 on: a line a seed, the one that ends lowest thick; full collapse and, where there is one,
    the low-rank point that is written down (eqcollapse.theory.ufm.lowrank) as horizontal lines. Right: the lowest run,
    a line a layer. A row of axes for each of several lambda_scales.
    """
    since = min(100, runs.iteration.max())
    scales = dict(list(runs[runs.iteration >= since].groupby("lambda_scale")))
    figure, axes = new_figure(len(scales), 2, width=width, height=0.4 * width * len(scales))
    for (left, right), part in zip(axes, scales.values(), strict=True):
        _low_rank(left, right, part)
    axes[0, 0].set_title("Loss, a line a seed")
    axes[0, 1].set_title("Rank of the class means, lowest run")
    for axis in axes[-1]:
        axis.set_xlabel("Iteration")
    _name_scales(axes, scales, "{}\nLoss")
    return figure


def _low_rank(left: Axes, right: Axes, runs: pd.DataFrame) -> None:
    last = runs[runs.iteration == runs.iteration.max()]
    lowest = last.loc[last.loss.idxmin(), "seed"]
    for seed, run in runs.groupby("seed"):
        style: dict[str, Any] = (
            {"color": COLOURS[0], "linewidth": 2.2} if seed == lowest else {"color": "0.7", "linewidth": 0.8}
        )
        left.plot(run.iteration, run.loss, zorder=3 if seed == lowest else 2, **style)
    left.axhline(runs.optimum.iloc[0], color=COLOURS[1], linestyle="--", label="full collapse")
    if runs.lower.notna().all():
        left.axhline(runs.lower.iloc[0], color=COLOURS[2], linestyle=":", label="low-rank point")
    left.set(ylabel="Loss", xscale="log")
    left.set_ylim(0.97 * last.loss.min(), 1.6 * runs.optimum.iloc[0])
    left.legend()
    run, layers = runs[runs.seed == lowest], ufm_layers(runs)
    for layer in layers:
        style = look(layer - 1) | {"marker": ""}
        right.plot(run.iteration, run[f"rank_{layer}"], label=_features(layer, len(layers)), **style)
    right.set(ylim=(0, None), ylabel="Rank", xscale="log")
    right.legend()


def _name_scales(axes: np.ndarray, scales: Iterable[float], label: str) -> None:
    """Say at the left of each row, where there are several, which lambdas it is of."""
    if len(axes) > 1:
        for row, scale in zip(axes, scales, strict=True):
            row[0].set_ylabel(label.format(f"lambdas x {scale:g}"))


def layer_peeled(runs: pd.DataFrame, *, width: float) -> Figure:
    """Draw figure A-theory: the layer-peeled models over R, a column a bound, a row a quantity, a colour a
    KA.

    Markers are descents (medians over the seeds), filled for the explicit model and open for the DEQ; lines
    are the exact minimum where it has been worked out; vertical lines are the exact R of minority collapse.
    `runs` are the rows of one or more layer-peeled experiments.
    """
    bounds = sorted({*zip(runs.bound_weight, runs.bound_features, strict=True)})
    figure, axes = new_figure(
        len(GEOMETRY), len(bounds), width=width, height=0.5 + 1.3 * len(GEOMETRY), sharex="col", sharey="row"
    )
    for column, (bound_weight, bound_features) in enumerate(bounds):
        part = runs[(runs.bound_weight == bound_weight) & (runs.bound_features == bound_features)]
        for row, (quantity, label) in enumerate(GEOMETRY.items()):
            _over_ratio(axes[row, column], part[part.ratio > 1], quantity)
            axes[row, 0].set_ylabel(label)
        axes[0, column].set_title(_bounds(bound_weight, bound_features))
        axes[-1, column].set_xlabel("$R - 1$")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3)
    return figure


def _band(axis: Axes, runs: pd.DataFrame, quantity: str, style: dict, label: str | None) -> None:
    values = runs.groupby("iteration")[quantity].agg(["median", "min", "max"]).clip(lower=FLOOR / 10)
    band(axis, values, style, label)


def _over_ratio(axis: Axes, part: pd.DataFrame, quantity: str) -> None:
    for position, (majority, cells) in enumerate(part.groupby("majority")):
        colour = COLOURS[position]
        if quantity in EXACT:
            exact = cells.groupby("ratio")[EXACT[quantity]].first()
            axis.plot(exact.index - 1, exact, color=colour, linestyle=LINES[position], linewidth=1)
        for model, name in MODELS.items():
            values = cells[cells.model == model].groupby("ratio")[quantity].median()
            fill = colour if model == "explicit" else "none"
            size = 3 if model == "explicit" else 5
            axis.plot(
                values.index - 1,
                values,
                color=colour,
                linestyle="" if quantity in EXACT else LINES[position],
                linewidth=0.6,
                marker=MARKERS[position],
                markersize=size,
                markerfacecolor=fill,
                label=f"{name}, KA = {majority}",
            )
        axis.axvline(cells.threshold.iloc[0] - 1, color=colour, linestyle=LINES[position], linewidth=0.8, alpha=0.6)
    axis.set_xscale("log")


def _features(layer: int, layers: int) -> str:
    """The features that W_layer reads: the free ones first, those before the classifier last."""
    return {1: "free features", layers: "last features"}.get(layer, f"features {layer}")


def _bounds(bound_weight: float, bound_features: float) -> str:
    if bound_weight == bound_features:
        return f"$E_W = E_H = {bound_weight:g}$"
    return f"$E_W = {bound_weight:g}$, $E_H = {bound_features:g}$"
