"""Claims B1 .. B4, on unconstrained features models (and B4 on figure 5's network): rules and numbers.

An experiment is told by its settings, not by its name: layers, activation, bias, loss.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from eqcollapse.report.claims.criteria import Criterion, Rule, measured
from eqcollapse.report.results import last_epoch
from eqcollapse.theory.config import LayerPeeledSpec, UfmSpec

FLOOR = 1e-16
"""Values below float64's resolution are rounding, and count as this: an exact 0 is no better than 1e-17."""
RESOLVED = 1e-12
"""NC1 above this is no rounding."""
REACHED, FAR = -3.0, -1.0
"""Decades: a metric below 1e-3 at the end has collapsed, one above 0.1 has not."""

Experiment = tuple[UfmSpec | LayerPeeledSpec, pd.DataFrame]


def one_layer(bias: str):
    """Return claim B1 or B2: the one-layer UFM with this `bias` collapses to its frame, at its closed form."""

    def criteria(experiments: Mapping[str, Experiment], networks: pd.DataFrame) -> Iterator[Criterion]:
        for name, (_, frame) in matching(experiments, layers=1, activation="identity", bias=bias).items():
            last = _last(frame)
            yield _collapsed(f"{name}: relative gap of the loss to the closed form", last.gap / last.optimum, last)
            for metric in ("nc1", "nc2", "nc3"):
                yield _collapsed(f"{name}: {metric.upper()}", last[f"{metric}_1"], last)

    return criteria


def linear_layers(experiments: Mapping[str, Experiment], networks: pd.DataFrame) -> Iterator[Criterion]:
    """B3: the linear extended UFM collapses in all its layers."""
    for name, (settings, frame) in matching(experiments, layers=2, activation="identity").items():
        last = _last(frame)
        for metric in ("nc1", "nc2", "nc3"):
            worst = last[[f"{metric}_{layer + 1}" for layer in range(settings.layers)]].max(axis=1)
            yield _collapsed(f"{name}: {metric.upper()}, worst layer", worst, last)


def relu_layers(experiments: Mapping[str, Experiment], networks: pd.DataFrame) -> Iterator[Criterion]:
    """B4: so does the ReLU one of figure 4, and NC1 falls deeper in the deeper layer, as in the practical network.

    NC2 of the free features is not asked for: the minima form a continuum, on which it does not vanish.
    """
    for name, (settings, frame) in matching(experiments, layers=2, activation="relu", bias="none").items():
        yield from _relu_collapse(name, settings.layers, frame)
        yield _deeper_on_the_way(name, settings.layers, frame)
    if "stage-1" in set(networks.layer):
        cells = last_epoch_of_layers(networks)
        for model, part in cells.groupby("model"):
            nc1 = part.pivot_table(index=["dataset", "seed"], columns="layer", values="tirer2022_nc1")
            decades = np.log10(nc1["features"]) - np.log10(nc1["stage-1"])
            statistic = f"network {model}: log10 of NC1, features over the first stage"
            yield measured(Rule(statistic, "below", 0.0, 0.0), decades.groupby("seed").mean())


def relu_with_bias(experiments: Mapping[str, Experiment], networks: pd.DataFrame) -> Iterator[Criterion]:
    """B4 with a free bias, where no closed form is known: our question, not the paper's."""
    for name, (settings, frame) in matching(experiments, layers=2, activation="relu", bias="free").items():
        yield from _relu_collapse(name, settings.layers, frame)


def _relu_collapse(name: str, top: int, frame: pd.DataFrame) -> Iterator[Criterion]:
    last = _last(frame)
    yield _collapsed(f"{name}: NC1 of the free features", last.nc1_1, last)
    for metric in ("nc1", "nc2", "nc3"):
        yield _collapsed(f"{name}: {metric.upper()} of the last features", last[f"{metric}_{top}"], last)


def _deeper_on_the_way(name: str, top: int, frame: pd.DataFrame) -> Criterion:
    """Compare the layers' NC1 where both can be told from rounding: along the descent, not at its end."""
    deep, shallow = frame[f"nc1_{top}"], frame.nc1_1
    seen = (deep > RESOLVED) & (shallow > RESOLVED) & (frame.iteration > 0)
    decades = (np.log10(deep[seen]) - np.log10(shallow[seen])).groupby(frame.seed[seen]).mean()
    statistic = f"{name}: log10 of NC1, last features over free ones, mean over logged iterations above {RESOLVED:g}"
    return measured(Rule(statistic, "below", 0.0, 0.0), decades)


def matching(experiments: Mapping[str, Experiment], **settings: object) -> dict[str, Experiment]:
    """Return the experiments of mean squared error that have these settings."""
    wanted = {"kind": "ufm", "loss": "mse", **settings}
    return {name: each for name, each in experiments.items() if wanted.items() <= dict(each[0]).items()}


def last_epoch_of_layers(networks: pd.DataFrame) -> pd.DataFrame:
    """Return each run's last measured epoch, all layers."""
    ends = last_epoch(networks)[["dataset", "split", "model", "seed", "epoch"]]
    return networks.merge(ends)


def _last(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame.iteration == frame.iteration.max()]


def _collapsed(statistic: str, values: pd.Series, last: pd.DataFrame) -> Criterion:
    decades = np.log10(values.clip(lower=FLOOR)).groupby(last.seed).mean()
    return measured(Rule(f"log10 of {statistic}", "below", REACHED, FAR), decades)


CLAIMS = {
    "B1": ("The UFM without bias collapses to an orthogonal frame.", one_layer("none")),
    "B2": ("The UFM with a free bias collapses to a simplex ETF.", one_layer("free")),
    "B3": ("The linear extended UFM collapses in both its layers.", linear_layers),
    "B4": (
        "So does the ReLU one, with curves like the practical network's: NC1 falls deeper in the deeper layer.",
        relu_layers,
    ),
    "B4 with a free bias": (
        "Does the ReLU one collapse with a free bias, too? (Not asked in the paper.)",
        relu_with_bias,
    ),
}
"""Each claim, and the function that yields its criteria from the theory's experiments and figure 5's networks."""
