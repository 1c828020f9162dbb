"""params.yaml as types: what a key may hold, and an error that names the key when it holds something else.

Imports neither torch nor numpy, so that the DAG builds in a second or two.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError

from eqcollapse.errors import EqcollapseError
from eqcollapse.sections import (
    SPLIT,
    Dataset,
    Equilibrium,
    Experiment,
    Name,
    Network,
    Report,
    Section,
    Snapshots,
    Splits,
    Theory,
    Train,
)


class Params(Section):
    """All of params.yaml."""

    mirror: str | None
    device: Literal["auto", "cpu", "cuda"]
    datasets: dict[Name, Dataset]
    splits: Splits
    network: Network
    equilibrium: Equilibrium
    train: Train
    snapshots: Snapshots
    models: dict[Name, dict[str, Any]]
    experiments: Annotated[dict[Name, Experiment], Field(min_length=1)]
    theory: dict[Name, Theory]
    report: Report

    def resolved(self, model: str) -> "Model":
        """Return the settings of `model`: the study's, with what `models.<model>` changes."""
        base = {key: getattr(self, key).model_dump() for key in ("network", "equilibrium", "train", "snapshots")}
        return Model.model_validate(_merged(base, self.models[model]))


class Model(Section):
    """The settings of one named model: `network`, `equilibrium`, `train` and `snapshots` after its changes."""

    network: Network
    equilibrium: Equilibrium
    train: Train
    snapshots: Snapshots


def load(path: str | Path = "params.yaml") -> Params:
    """Read and check a params file.

    Raises `EqcollapseError` with a line for each fault.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EqcollapseError(f"{path}: there is no such file") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise EqcollapseError(f"{path}: is not YAML: {' '.join(str(error).split())}") from None
    return parse(content, str(path))


def parse(content: Any, name: str = "params.yaml") -> Params:
    """Check `content`, the mapping that params.yaml holds (with what the command line overrides).

    Raises `EqcollapseError` with a line for each fault: file, key, value, and what is allowed.
    """
    if not isinstance(content, Mapping):
        raise EqcollapseError(f"{name}: must be a mapping of sections, but holds {_shown(content)}")
    try:
        params = Params.model_validate(content)
    except ValidationError as error:
        raise EqcollapseError("\n".join(_lines(error, name))) from None
    faults = list(_faults(params))
    if faults:
        raise EqcollapseError("\n".join(f"{name}: {fault}" for fault in faults))
    return params


def _merged(base: Any, change: Any) -> Any:
    if not (isinstance(base, dict) and isinstance(change, Mapping)):
        return change
    return {**base, **{key: _merged(base.get(key), value) for key, value in change.items()}}


def _faults(params: Params):
    """Yield what types cannot say: names that lead nowhere, and numbers that do not fit each other."""
    for name, dataset in params.datasets.items():
        for ka in dataset.majority or []:
            if ka >= dataset.num_classes:
                yield (f"datasets.{name}.majority: {ka} is not allowed: must be below the "
                       f"{dataset.num_classes} classes of {name}")  # fmt: skip
    for name in params.models:
        yield from _model_faults(params, name)
    for name, experiment in params.experiments.items():
        yield from _experiment_faults(params, name, experiment)


def _model_faults(params: Params, name: str):
    try:
        model = params.resolved(name)
    except ValidationError as error:
        yield from (line for line in _lines(error, "", f"models.{name}."))
        return
    epochs = model.snapshots.epochs
    last = model.train.epochs
    for epoch in epochs if isinstance(epochs, list) else []:
        if epoch > last:
            yield (f"snapshots.epochs (model {name}): {epoch} is not allowed: the last epoch is "
                   f"train.epochs = {last}")  # fmt: skip


def _experiment_faults(params: Params, name: str, experiment: Experiment):
    where = f"experiments.{name}"
    for key, known in (("datasets", params.datasets), ("models", params.models)):
        for item in getattr(experiment, key):
            if item not in known:
                yield f"{where}.{key}: {item!r} is not one of {key}: {', '.join(known) or 'none there'}"
    for key in ("datasets", "splits", "models", "seeds"):
        for item, times in Counter(getattr(experiment, key)).items():
            if times > 1:
                yield f"{where}.{key}: {item!r} is there {times} times"
    for dataset in experiment.datasets:
        if dataset in params.datasets:
            yield from _split_faults(params, where, experiment, dataset)


def _split_faults(params: Params, where: str, experiment: Experiment, name: str):
    dataset = params.datasets[name]
    for split in experiment.splits:
        if split == "balanced":
            continue
        match = SPLIT.match(split)
        if split != "imbalanced" and not match:
            yield f"{where}.splits: {split!r} is not allowed: balanced, imbalanced, or one like ka3-r10"
            continue
        chosen = [int(match["majority"])] if match else dataset.majority or params.splits.majority
        if not match and not (chosen and params.splits.ratios):
            yield f"{where}.splits: imbalanced is an empty grid: splits.majority and splits.ratios need values"
        if match and float(match["ratio"]) < 1:
            yield f"{where}.splits: {split!r} is not allowed: the ratio must be at least 1"
        key = f"{where}.splits" if match else "splits.majority"
        for ka in chosen:
            if not 1 <= ka < dataset.num_classes:
                yield f"{key}: {ka} is not allowed: must be from 1 to {dataset.num_classes - 1} for {name}"
        yield from _majority_faults(params, dataset, name, chosen)


def _majority_faults(params: Params, dataset: Dataset, name: str, chosen: list[int]):
    classes = params.splits.majority_classes
    if isinstance(classes, list):
        if len(classes) < max(chosen, default=0) or len(set(classes)) < len(classes):
            yield (f"splits.majority_classes: {classes} is not allowed: must name at least {max(chosen)} "
                   f"different classes")  # fmt: skip
        for index in classes:
            if index >= dataset.num_classes:
                yield (f"splits.majority_classes: {index} is not allowed: {name} has classes 0 to "
                       f"{dataset.num_classes - 1}")  # fmt: skip


def _lines(error: ValidationError, name: str, prefix: str = ""):
    for fault in error.errors():
        key = prefix + ".".join(str(part) for part in fault["loc"] if not str(part).startswith(("literal", "list[")))
        start = f"{name}: {key}" if name else key
        yield f"{start}: {_said(fault)}"


def _said(fault: Mapping[str, Any]) -> str:
    context = fault.get("ctx", {})
    if fault["type"] == "extra_forbidden":
        return "is not a key that eqcollapse knows: take it out, or see params.yaml for the spelling"
    if fault["type"] == "missing":
        return "is missing"
    if fault["type"] == "value_error":
        return f"{_shown(fault['input'])} is not allowed: {context.get('error')}"
    if fault["type"] == "too_short":
        return f"{_shown(fault['input'])} is not allowed: must hold at least {context['min_length']}"
    allowed = fault["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return f"{_shown(fault['input'])} is not allowed: must be {allowed[0].lower()}{allowed[1:]}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
