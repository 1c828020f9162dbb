"""Figure B-5: collapse at every stage of the practical network, beside the extended UFM with ReLU (figure B-4)."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eqcollapse.report.config import StagesFigure
from eqcollapse.report.figures.style import band, log_scale, look, new_figure
from eqcollapse.report.figures.theory import FLOOR
from eqcollapse.report.results import chosen, model_name, read, ufm_layers

TITLES = {"of": "orthogonal frame", "etf": "simplex ETF"}


def draw(spec: StagesFigure, inputs: list[str]) -> Figure:
    """Draw the figure of `spec` from (collapse.csv, accuracy.csv, the CSV of the UFM beside it if there is one)."""
    collapse, _, *theory = inputs
    return stages_figure(read(collapse), pd.read_csv(theory[0]) if theory else None, spec)


def stages_figure(collapse: pd.DataFrame, theory: pd.DataFrame | None, spec: StagesFigure) -> Figure:
    """Draw a row a model and, last, the UFM; columns NC1, NC2, NC3; a line a layer, over epochs (UFM: iterations).

    NC2 and NC3 are those of Tirer & Bruna: against the orthogonal frame for a model without bias, else the simplex
    ETF. Lines of networks are means over seeds, those of the UFM medians, as in figure B-4.
    NC3 needs the classifier that reads a layer: in a network only the last features have one.
    """
    ((dataset, splits),) = spec.splits.items()
    width, models = spec.style.width, spec.models
    rows = len(models) + (theory is not None)
    figure, axes = new_figure(rows, 3, width=width, height=0.5 + 1.7 * rows)
    for row, model in enumerate(models):
        part = chosen(collapse, dataset, splits, spec)
        _network(axes[row], part[part.model == model], "of" if model in spec.unbiased else "etf")
        axes[row, 0].set_ylabel(f"Network, {model_name(model)}")
    if theory is not None:
        _theory(axes[-1], theory[theory.iteration > 0])
        axes[-1, 0].set_ylabel("Extended UFM, ReLU")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=6)
    return figure


def _network(axes: Sequence[Axes], part: pd.DataFrame, frame: str) -> None:
    stages = sorted(set(part.layer) - {"features"}, key=lambda name: int(name.rpartition("-")[2]))
    layers = [*stages, "features"]
    names = {layer: f"Stage {position + 1}" for position, layer in enumerate(layers)}
    columns = {
        "tirer2022_nc1": "NC1",
        f"tirer2022_nc2_{frame}": f"NC2, {TITLES[frame]}",
        f"tirer2022_nc3_{frame}": f"NC3, {TITLES[frame]}",
    }
    for axis, (column, title) in zip(axes, columns.items(), strict=True):
        for position, layer in enumerate(layers):
            values = part[part.layer == layer].dropna(subset=[column]).groupby("epoch")[column]
            _line(axis, values.agg(["mean", "min", "max"]), look(position), names[layer])
        axis.set(title=title, xlabel="Epoch")
        log_scale(axis, "x")
        log_scale(axis, "y")


def _theory(axes: Sequence[Axes], runs: pd.DataFrame) -> None:
    layers = ufm_layers(runs)
    for axis, metric in zip(axes, ("nc1", "nc2", "nc3"), strict=True):
        for position, layer in enumerate(layers):
            values = runs.groupby("iteration")[f"{metric}_{layer}"].agg(["median", "min", "max"])
            style = look(position) | {"marker": ""}
            name = "free features" if position == 0 else "last features" if layer == layers[-1] else f"features {layer}"
            _line(axis, values.clip(lower=FLOOR), style, name)
        axis.set(title=f"{metric.upper()}, orthogonal frame" if metric != "nc1" else "NC1", xlabel="Iteration")
        axis.set(xscale="log", yscale="log")
    axes[0].legend(loc="lower left", fontsize=7)


def _line(axis: Axes, values: pd.DataFrame, style: dict, label: str) -> None:
    if len(values):
        band(axis, values, style, label)
