"""Claims B1 .. B4, on unconstrained features models (and B4 on figure 5's network): rules and numbers.

An experiment is told by its settings, not by its name: layers, activation, bias, loss. A descent either gets to
collapse or does not, and its seeds differ by many decades: so the criteria state the share of seeds that got there, not
a mean of what they got to. A seed whose last features have vanished has learnt nothing, and counts for neither side.
"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pandas as pd

from eqcollapse.report.claims.criteria import Criterion, Rule, measured, share_of_seeds
from eqcollapse.report.claims.networks import first_learnt
from eqcollapse.report.results import last_epoch, ufm_layers
from eqcollapse.theory.config import LayerPeeledSpec, UfmSpec

RESOLVED = 1e-12
"""NC1 above this is no rounding."""
REACHED, FAR = 1e-3, 1e-1
"""A metric below the first at the end has collapsed, one above the second has not."""
BELOW_MINIMUM = -1e-9
"""A loss that lies below a claimed minimum by more than this share of it is no rounding: the claim is false."""

TheoryRuns = tuple[UfmSpec | LayerPeeledSpec, pd.DataFrame]
Claimed = Callable[[Mapping[str, TheoryRuns], pd.DataFrame], Iterator[Criterion]]


def one_layer(bias: str) -> Claimed:
    """Return claim B1 or B2: the one-layer UFM with this `bias` collapses to its frame, at its closed form."""

    def criteria(experiments: Mapping[str, TheoryRuns], networks: pd.DataFrame) -> Iterator[Criterion]:
        for name, (_, frame) in matching(experiments, layers=1, activation="identity", bias=bias).items():
            last = _last(frame)
            gap = last.loss / last.optimum - 1
            statistic = f"{name}: relative gap of the loss to the closed form"
            yield _collapsed(statistic, gap, last, counterexamples=int((gap < BELOW_MINIMUM).sum()))
            for metric in ("nc1", "nc2", "nc3"):
                yield _collapsed(f"{name}: {metric.upper()}", last[f"{metric}_1"], last)

    return criteria


def linear_layers(experiments: Mapping[str, TheoryRuns], networks: pd.DataFrame) -> Iterator[Criterion]:
    """B3: the linear extended UFM collapses in all its layers."""
    for name, (_, frame) in matching(experiments, layers=2, activation="identity").items():
        last = _last(frame)
        for metric in ("nc1", "nc2", "nc3"):
            worst = last[[f"{metric}_{layer}" for layer in ufm_layers(frame)]].max(axis=1, skipna=False)
            yield _collapsed(f"{name}: {metric.upper()}, worst layer", worst, last)


def relu_layers(experiments: Mapping[str, TheoryRuns], networks: pd.DataFrame) -> Iterator[Criterion]:
    """B4: so does the ReLU one of figure 4, and NC1 falls deeper in the deeper layer, as in the practical network.

    NC2 of the free features is not asked for: the minima form a continuum, on which it does not vanish.
    """
    for name, (_, frame) in matching(experiments, layers=2, activation="relu", bias="none").items():
        yield from _relu_collapse(name, frame)
        yield _deeper_on_the_way(name, frame)
    if "stage-1" in set(networks.layer):
        for model, part in networks.groupby("model"):
            yield _deeper_in_network(model, part)


def relu_with_bias(experiments: Mapping[str, TheoryRuns], networks: pd.DataFrame) -> Iterator[Criterion]:
    """B4 with a free bias, where no closed form is known: our question, not the paper's."""
    for name, (_, frame) in matching(experiments, layers=2, activation="relu", bias="free").items():
        yield from _relu_collapse(name, frame)


def _deeper_in_network(model: str, rows: pd.DataFrame) -> Criterion:
    """Compare NC1 of a network's features and of its first stage at the end, in runs that learnt all classes."""
    learnt = first_learnt(rows[rows.layer == "features"]).notna()
    cells = last_epoch_of_layers(rows).set_index(["dataset", "split", "seed", "layer"]).tirer2022_nc1.unstack("layer")
    decades = np.log10(cells["features"]) - np.log10(cells["stage-1"])
    seeds = decades[learnt].groupby("seed").apply(lambda values: values.mean(skipna=False))
    rule = Rule(f"network {model}: log10 of NC1, features over the first stage", "below", 0.0, 0.0)
    return measured(rule, seeds, int((~learnt).sum()))


def _relu_collapse(name: str, frame: pd.DataFrame) -> Iterator[Criterion]:
    last, top = _last(frame), max(ufm_layers(frame))
    yield _collapsed(f"{name}: NC1 of the free features", last.nc1_1, last)
    for metric in ("nc1", "nc2", "nc3"):
        yield _collapsed(f"{name}: {metric.upper()} of the last features", last[f"{metric}_{top}"], last)


def _deeper_on_the_way(name: str, frame: pd.DataFrame) -> Criterion:
    """Compare the layers' NC1 where both can be told from rounding: along the descent, not at its end."""
    deep, shallow = frame[f"nc1_{max(ufm_layers(frame))}"], frame.nc1_1
    seen = (deep > RESOLVED) & (shallow > RESOLVED) & (frame.iteration > 0)
    decades = (np.log10(deep[seen]) - np.log10(shallow[seen])).groupby(frame.seed[seen]).mean()
    statistic = f"{name}: log10 of NC1, last features over free ones, mean over logged iterations above {RESOLVED:g}"
    return measured(Rule(statistic, "below", 0.0, 0.0), decades)


def matching(experiments: Mapping[str, TheoryRuns], **settings: object) -> dict[str, TheoryRuns]:
    """Return the experiments of mean squared error that have these settings."""
    wanted = {"kind": "ufm", "loss": "mse", **settings}
    return {name: each for name, each in experiments.items() if wanted.items() <= dict(each[0]).items()}


def last_epoch_of_layers(networks: pd.DataFrame) -> pd.DataFrame:
    """Return each run's last measured epoch, all layers."""
    ends = last_epoch(networks)[["dataset", "split", "model", "seed", "epoch"]]
    return networks.merge(ends)


def _last(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame.iteration == frame.iteration.max()]


def _collapsed(statistic: str, values: pd.Series, last: pd.DataFrame, counterexamples: int = 0) -> Criterion:
    """Return the share of seeds whose value (the worst over lambda_scales) has fallen below `REACHED`."""
    learnt = last[f"rank_{max(ufm_layers(last))}"] > 0
    seeds = values[learnt].groupby(last.seed[learnt]).apply(lambda each: each.max(skipna=False))
    return share_of_seeds(statistic, seeds, REACHED, FAR, int((~learnt).sum()), counterexamples)


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
