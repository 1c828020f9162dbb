"""What each table and figure shows: by its kind and what it is made from, and not by its name.

A number in a paper is given where the paper has that table or figure, of that kind and on that data; else the caption
says what it is the counterpart of, or that the papers do not have it. Imports nothing heavy: the plan asks.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from eqcollapse.report.config import (
    AccuracyTable,
    FeaturesFigure,
    RunsFigure,
    SelectionTable,
    SolverTable,
    StagesFigure,
    TheoryFigure,
    TheoryTable,
)
from eqcollapse.runtime.section import Section
from eqcollapse.study.params import LONG_TAIL, SPLIT
from eqcollapse.theory.config import UfmSpec

PAPERS = {"A": ("cifar10", "cifar100"), "B": ("mnist",)}
"""The data on which a paper has its tables and figures of networks."""
TABLES: dict[tuple[str, int | None], int] = {("cifar10", 3): 2, ("cifar10", 5): 3, ("cifar10", 7): 4}
TABLES |= {("cifar100", 30): 2, ("cifar100", 50): 3, ("cifar100", 70): 4}
"""The numbers of paper A's tables of imbalance, by data set and KA."""
NOT_THERE = "Not in the papers."
INTERVAL = "mean ± 95 % interval"
FIGURES_OF_B = {
    1: {"layers": 1, "activation": "identity", "bias": "none"},
    2: {"layers": 1, "activation": "identity", "bias": "free"},
    3: {"layers": 2, "activation": "identity", "bias": "none"},
    4: {"layers": 2, "activation": "relu", "bias": "none"},
}
CONSTANTS_OF_B = {
    "num_classes": 4,
    "dim": 20,
    "per_class": 50,
    "loss": "mse",
    "step": 0.1,
    "lambda_weights": 0.005,
    "lambda_features": 0.005,
    "lambda_scales": [1.0],
}
"""What paper B fixes of figure 1, read as that of figures 2 to 4, too."""


def caption(spec: Section, sources: Mapping[str, str], theory: Sequence[Section] = ()) -> str:
    """Return the caption of the table or figure that `spec` makes.

    `sources` has the source of each data set that it shows, by name; `theory`, the specs of the experiments.
    """
    return CAPTIONS[type(spec)](spec, sources, theory)


def _accuracy(spec: AccuracyTable, sources: Mapping[str, str], _: Sequence[Section]) -> str:
    splits = _splits(spec)
    what = f"Test accuracy (%) of the last epoch {{}}, {INTERVAL}."
    paired = "Differences are paired by seed."
    if splits == ["balanced"]:
        over = what.replace(INTERVAL, f"{INTERVAL} (over seeds and test images)").format("on balanced data")
        return f"{_credit('A', 'table 1', sources.values())} {over}"
    if all(map(SPLIT.match, splits)):
        held = "under imbalance (a split kaA-rR has A majority classes and R times fewer samples in the others)"
        numbers = {
            TABLES.get((sources[name], _majority(split))) for name, named in spec.splits.items() for split in named
        }
        known = numbers.pop() if len(numbers) == 1 else None
        credit = _credit("A", f"table {known}", sources.values()) if known else "As tables 2 to 4 of paper A:"
        return f"{credit} {what.format(held)} {paired}"
    held = "on long tails (longtail-F and ldam-F: the largest class has F times the samples of the smallest)"
    return f"{what.format(held)} {paired} {NOT_THERE}"


def _selection(*_: Any) -> str:
    return f"Models by their accuracy on the validation share of the training set. {NOT_THERE}"


def _solver_table(*_: Any) -> str:
    return (
        "Test accuracy (%) of the DEQ of the last epoch with its solver as trained, skipped (z = f(0, x)), and run to "
        f"a relative residual of 1e-8, {INTERVAL}. {NOT_THERE}"
    )


def _theory_table(*_: Any) -> str:
    return f"Minima reached by gradient descent against closed forms. {NOT_THERE}"


def _runs(spec: RunsFigure, sources: Mapping[str, str], _: Sequence[Section]) -> str:
    on = f"on {', '.join(spec.splits)}"
    if spec.kind == "solver":
        return (
            f"The DEQ's solver over epochs, {on}, balanced and at the largest R of each KA: steps, samples that "
            "did not converge in training or evaluation (dotted: 1 %), residual, spectral radius of df/dz at "
            f"equilibria (dotted: 1). {NOT_THERE}"
        )
    splits = _splits(spec)
    angle = ", and the mean cosine of the minority's classifiers" if any(map(SPLIT.match, splits)) else ""
    what = f"Test accuracy, NC1, NC2, NC3 of training features{angle} over epochs, {on}"
    bands = "Means over seeds; bands from the lowest to the highest seed."
    if any(map(LONG_TAIL.match, splits)):
        return f"{what}, for long tails. {bands} {NOT_THERE}"
    if "balanced" in splits:
        return f"{_credit('A', 'figure 3', sources.values())} {what}. {bands}"
    return f"{_credit('A', 'appendix', sources.values())} {what}, for KA = {_majority(splits[0])}. {bands}"


def _features(spec: FeaturesFigure, sources: Mapping[str, str], _: Sequence[Section]) -> str:
    marks = "Circles are majority, crosses minority classes; classes are named."
    return (
        f"{_credit('A', 'figure 2', sources.values())} Test features of one seed as t-SNE (above) and Gram matrix "
        f"(below), on {', '.join(sources)}, {spec.split}. {marks}"
    )


def _stages(spec: StagesFigure, sources: Mapping[str, str], theory: Sequence[Section]) -> str:
    credit = _credit("B", "figure 5", sources.values())
    if set(sources.values()) == {"cifar10"}:
        credit = "Paper B, appendix G:"
    beside = ", beside the ReLU UFM of figure 4" if theory else ""
    return f"{credit} NC1, NC2, NC3 at the stages of ResNets, on {', '.join(sources)}{beside}."


def _theory(spec: TheoryFigure, _: Mapping[str, str], theory: Sequence[Section]) -> str:
    if spec.kind == "layer_peeled":
        what = "The layer-peeled models of paper A over R: descents, and exact minima where they are known."
        return f"{what} {NOT_THERE}"
    if spec.kind == "low-rank":
        return f"Runs of a deep ReLU UFM that end below full collapse (bold: the lowest). {NOT_THERE}"
    what = "loss, NC1, NC2, NC3 of gradient descent; dotted: the closed form."
    models = [dict(one) for one in theory if isinstance(one, UfmSpec)]
    number = _number(models[0]) if len(models) == 1 else None
    if number and CONSTANTS_OF_B.items() <= models[0].items():
        return f"Paper B, figure {number}: {what}"
    if number and models[0]["loss"] == "mse":
        return f"As figure {number} of paper B, with other constants: {what}"
    return f"{'; '.join(map(_described, models))}: {what} {NOT_THERE}"


def _number(model: Mapping[str, Any]) -> int | None:
    """Return the number of the figure of paper B that has this model, whatever its constants."""
    return next((number for number, shape in FIGURES_OF_B.items() if shape.items() <= model.items()), None)


def _described(model: Mapping[str, Any]) -> str:
    layers = "UFM" if model["layers"] == 1 else f"{'ReLU' if model['activation'] == 'relu' else 'linear'} extended UFM"
    loss = "cross-entropy" if model["loss"] == "ce" else "squared error"
    bias = {"none": "no bias", "free": "a free bias", "regularised": "a regularised bias"}[model["bias"]]
    return f"{layers[0].upper()}{layers[1:]} of {model['layers']} layer{'s' * (model['layers'] > 1)}, {loss}, {bias}"


def _credit(paper: str, part: str, sources: Iterable[str]) -> str:
    """Return how a caption begins: with the paper's number, if the paper has it on all of these data."""
    if set(sources) <= set(PAPERS[paper]):
        return f"Paper {paper}, {part}:"
    return f"As {part} of paper {paper}, on other data:"


def _majority(split: str) -> int | None:
    """Return KA of an imbalanced split; None of another."""
    return int(match["majority"]) if (match := SPLIT.match(split)) else None


def _splits(spec: AccuracyTable | RunsFigure) -> list[str]:
    """Return the splits, each once."""
    return list(dict.fromkeys(split for named in spec.splits.values() for split in named))


CAPTIONS: Mapping[type[Section], Callable[[Any, Mapping[str, str], Sequence[Section]], str]] = {
    AccuracyTable: _accuracy,
    SelectionTable: _selection,
    SolverTable: _solver_table,
    TheoryTable: _theory_table,
    RunsFigure: _runs,
    FeaturesFigure: _features,
    StagesFigure: _stages,
    TheoryFigure: _theory,
}
