"""params.yaml as types: what a key may hold, and an error that names the key when it holds something else.

Imports neither torch nor numpy, so that the DAG builds in a second or two.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from eqcollapse.data.config import DatasetSettings, Splits
from eqcollapse.data.registry import CANONICAL
from eqcollapse.networks.config import EquilibriumSettings, Network
from eqcollapse.report.config import Report
from eqcollapse.runtime.errors import EqcollapseError
from eqcollapse.runtime.nearest import nearest
from eqcollapse.runtime.section import Maybe, Name, Natural, Section
from eqcollapse.study import feasibility, options, overlays, trial, yaml_file
from eqcollapse.study.mappings import in_order, merged
from eqcollapse.study.messages import lines, quoted, told
from eqcollapse.theory.config import LayerPeeled, LayerPeeledExperiment, TheoryExperiment, UnconstrainedFeatures
from eqcollapse.training.config import Log, Model, Snapshots, Train

SPLIT = re.compile(r"^ka(?P<majority>[1-9]\d{0,5})-r(?P<ratio>[1-9]\d{0,5}(\.\d{0,9}[1-9])?)$")
"""The name of an imbalanced split: KA and R."""
LONG_TAIL = re.compile(r"^(?P<kind>longtail|ldam)-(?P<factor>[1-9]\d{0,5}(\.\d{0,9}[1-9])?)$")
"""The name of a long tail: its imbalance factor, and whether its samples are those that LDAM's code draws."""
LDAM_SEED = 0
"""The `rand_number` of LDAM's code: its samples are the same for every training seed."""
MOST_CELLS = 20_000
"""Of all experiments together; Snakemake plans some hundred jobs a second."""


class Experiment(Section):
    """A part of the grid: data sets x splits x models x seeds."""

    datasets: Annotated[list[Name], Field(min_length=1)]
    splits: Annotated[list[str], Field(min_length=1)]
    models: Annotated[list[Name], Field(min_length=1)]
    seeds: Annotated[list[Natural], Field(min_length=1)]
    report: Literal["a", "b", "selection", "none"]


class Params(Section):
    """All of params.yaml; what has names is in the order of these, whatever that of the file."""

    mirror: Maybe[str]
    device: Literal["auto", "cpu", "cuda"]
    log: Log
    datasets: Annotated[dict[Name, DatasetSettings], AfterValidator(in_order)]
    splits: Splits
    network: Network
    equilibrium: EquilibriumSettings
    train: Train
    snapshots: Snapshots
    models: Annotated[dict[Name, dict[str, Any]], AfterValidator(in_order)]
    experiments: Annotated[dict[Name, Experiment], Field(min_length=1), AfterValidator(in_order)]
    ufm: UnconstrainedFeatures
    layer_peeled: LayerPeeled
    theory: Annotated[dict[Name, dict[str, Any]], AfterValidator(in_order)]
    report: Report

    @property
    def sections(self) -> dict[str, Any]:
        """The sections that a model may change, as plain values."""
        return {key: getattr(self, key).model_dump() for key in Model.model_fields}

    def resolved(self, name: str) -> Model:
        """Return the settings of the model `name`: the study's, with what `models.<name>` changes.

        Raises ValidationError where a key, and EqcollapseError where an option is at fault.
        """
        base, change = self.sections, self.models[name]
        model = Model.model_validate(merged(options.without_those_of_others(base, change), change))
        return Model.model_validate(options.completed(model.model_dump()))

    def theory_experiment(self, name: str) -> TheoryExperiment:
        """Return the settings of a theory experiment: its kind's section, with what `theory.<name>` changes."""
        change = self.theory[name]
        kind = change.get("kind")
        base = getattr(self, kind).model_dump() if kind in ("ufm", "layer_peeled") else {}
        return _THEORY.validate_python(merged(base, change))

    def splits_of(self, experiment: Experiment, dataset: str) -> list[str]:
        """Return the names of the splits that `experiment` trains on `dataset`, balanced and by KA and R."""
        grid = [
            f"ka{majority}-r{int(ratio) if ratio == int(ratio) else ratio}"
            for majority in self.datasets[dataset].majority or self.splits.majority
            for ratio in self.splits.ratios
        ]
        names = [name for split in experiment.splits for name in (grid if split == "imbalanced" else [split])]
        return list(dict.fromkeys(names))


_THEORY: TypeAdapter[TheoryExperiment] = TypeAdapter(TheoryExperiment)


def load(path: str | Path = "params.yaml", *presets: str | Path) -> Params:
    """Read and check a params file, with the files of `presets` laid over it, as `--configfile` does.

    Raises `EqcollapseError` with a line for each fault.
    """
    names = [path, *presets]
    files = [yaml_file.read_sections(name) for name in names]
    return parse(_laid(*files), " with ".join(map(str, names)), files)


def read(path: str | Path, *presets: str | Path) -> dict[str, Any]:
    """Return what a params file holds, with the files of `presets` laid over it, unchecked."""
    return _laid(*(yaml_file.read_sections(name) for name in (path, *presets)))


def _laid(base: Mapping[str, Any], *changes: Mapping[str, Any]) -> dict[str, Any]:
    """Lay `changes` over each other, then over `base`, as Snakemake does: one can take back another's null."""
    return merged(base, reduce(merged, changes, {}))


def parse(content: Any, name: str = "params.yaml", files: Sequence[Any] = ()) -> Params:
    """Check `content`, the mapping that params.yaml holds (with what the command line overrides).

    `files` is what the files hold that it was laid from, if that is known: what is taken away must be in one of them.
    Raises `EqcollapseError` with a line for each fault: file, key, value, and what is allowed.
    """
    if not isinstance(content, Mapping):
        raise EqcollapseError(f"{name}: must be a mapping of sections, but holds {quoted(content)}")
    faults = list(overlays.removals(content, files)) if files else []
    try:
        params = Params.model_validate(overlays.settled(content))
    except ValidationError as error:
        faults += lines(error)
    except EqcollapseError as error:
        faults.append(str(error))
    faults = faults or list(_faults(params)) or list(_trial_faults(params))
    if faults:
        raise EqcollapseError(told(name, faults))
    return params


def _faults(params: Params) -> Iterator[str]:
    """Yield what types cannot say: names that lead nowhere, and numbers that do not fit each other."""
    try:
        options.completed(params.sections)
    except EqcollapseError as error:  # which each model would say again
        yield str(error)
        return
    yield from _repeats(params)
    yield from _theory_faults(params)
    yield from _majority_faults(params)
    for name, dataset in params.datasets.items():
        yield from feasibility.dataset_faults(name, dataset, params.splits.validation)
    for name in params.models:
        yield from _model_faults(params, name)
    yield from _batch_faults(params)
    for name, experiment in params.experiments.items():
        yield from _experiment_faults(params, name, experiment)
    yield from _size_faults(params)


def _repeats(params: Params) -> Iterator[str]:
    lists = {
        "splits.majority": params.splits.majority,
        "splits.ratios": params.splits.ratios,
        **{f"datasets.{name}.majority": dataset.majority or [] for name, dataset in params.datasets.items()},
        "ufm.seeds": params.ufm.seeds,
        "layer_peeled.seeds": params.layer_peeled.seeds,
        **{
            f"experiments.{name}.{key}": getattr(experiment, key)
            for name, experiment in params.experiments.items()
            for key in ("datasets", "splits", "models", "seeds")
        },
    }
    for key, values in lists.items():
        yield from _repeated(key, values)


def _repeated(key: str, values: list[Any]) -> Iterator[str]:
    for value, times in Counter(values).items():
        if times > 1:
            yield f"{key}: {quoted(value)} is there {times} times"


def _theory_faults(params: Params) -> Iterator[str]:
    """Layer-peeled experiments may share a figure; all other figures have one source."""
    drawn: dict[str, tuple[str, bool]] = {}
    for name in params.theory:
        try:
            chosen = params.theory_experiment(name)
        except ValidationError as error:
            yield from lines(error, f"theory.{name}.", tagged=True)
            continue
        if "seeds" in params.theory[name]:
            yield from _repeated(f"theory.{name}.seeds", chosen.seeds)
        peeled = isinstance(chosen, LayerPeeledExperiment)
        other, shares = drawn.setdefault(chosen.figure, (name, peeled))
        if other != name and not (peeled and shares):
            yield f"theory.{name}.figure: {chosen.figure!r} is also the figure of {other}: give it a name of its own"


def _size_faults(params: Params) -> Iterator[str]:
    """Refuse a grid that would fill the memory before Snakemake has planned it."""
    cells = {name: _cells(params, experiment) for name, experiment in params.experiments.items()}
    large = {name: number for name, number in cells.items() if number > MOST_CELLS}
    for name, number in large.items():
        yield f"experiments.{name}: {number} cells are not allowed: at most {MOST_CELLS}"
    if not large and (total := sum(cells.values())) > MOST_CELLS:
        yield f"experiments: {total} cells together are not allowed: at most {MOST_CELLS}"


def _cells(params: Params, experiment: Experiment) -> int:
    """Return how many cells an experiment asks for; those of others count again."""
    cells = 0
    for dataset in (params.datasets[name] for name in experiment.datasets if name in params.datasets):
        grid = len(dataset.majority or params.splits.majority) * len(params.splits.ratios)
        cells += sum(grid if split == "imbalanced" else 1 for split in experiment.splits)
    return cells * len(experiment.models) * len(experiment.seeds)


def _model_faults(params: Params, name: str) -> Iterator[str]:
    try:
        model = params.resolved(name)
    except ValidationError as error:
        yield from lines(error, f"models.{name}.")
        return
    except EqcollapseError as error:
        yield f"models.{name}.{error}"
        return
    yield from feasibility.model_faults(name, model)
    epochs = model.snapshots.epochs
    last = model.train.epochs
    for epoch in epochs if isinstance(epochs, list) else []:
        if epoch > last:
            yield (f"snapshots.epochs (model {name}): {epoch} is not allowed: the last epoch is "
                   f"train.epochs = {last}")  # fmt: skip


def _trained(params: Params) -> Iterator[tuple[str, str, Model]]:
    """Yield each model and data set of which one trains on the other, with the model's settings where it has any."""
    pairs = {
        (model, dataset): None
        for experiment in params.experiments.values()
        for model in experiment.models
        for dataset in experiment.datasets
        if model in params.models and dataset in params.datasets
    }
    for model, dataset in pairs:
        try:
            yield model, dataset, params.resolved(model)
        except (ValidationError, EqcollapseError):  # which is said of the model itself
            continue


def _batch_faults(params: Params) -> Iterator[str]:
    for model, dataset, settings in _trained(params):
        yield from feasibility.batch_faults(model, settings, dataset, params.datasets[dataset])


def _trial_faults(params: Params) -> Iterator[str]:
    requests = {}
    for model, dataset, settings in _trained(params):
        if asked := feasibility.trial_request(settings, params.datasets[dataset]):
            requests[f"{model} {dataset}"] = asked
    yield from dict.fromkeys(trial.untrainable(requests))


def _experiment_faults(params: Params, name: str, experiment: Experiment) -> Iterator[str]:
    where = f"experiments.{name}"
    for key, known in (("datasets", params.datasets), ("models", params.models)):
        for item in getattr(experiment, key):
            if item not in known:
                yield (f"{where}.{key}: {quoted(item)} is not one of {key}{nearest(item, known)}: "
                       f"{', '.join(known) or 'none there'}")  # fmt: skip
    if experiment.report == "selection" and not params.splits.validation:
        yield f"{where}.report: selection is not allowed: it needs splits.validation above 0, and that is 0"
    for dataset in experiment.datasets:
        if dataset in params.datasets:
            yield from _split_faults(params, where, experiment, dataset)


def _split_faults(params: Params, where: str, experiment: Experiment, name: str) -> Iterator[str]:
    num_classes = feasibility.num_classes(params.datasets[name])
    for split in experiment.splits:
        match = SPLIT.match(split)
        if split.startswith("ldam-") and not _is_whole_cifar(params.datasets[name]):
            yield (
                f"{where}.splits: {quoted(split)} is not allowed for {name}: LDAM draws from cifar10 or cifar100 "
                "alone, and from all of it: per_class must be null"
            )
        elif split not in ("balanced", "imbalanced") and not match and not LONG_TAIL.match(split):
            near = nearest(split, ("balanced", "imbalanced"))
            yield (
                f"{where}.splits: {quoted(split)} is not allowed{near}: balanced, imbalanced, or one like ka3-r10, "
                "longtail-100 or ldam-100"
            )
        elif match and int(match["majority"]) >= num_classes:
            yield f"{where}.splits: {quoted(split)} is not allowed: KA must be from 1 to {num_classes - 1} for {name}"


def _majority_faults(params: Params) -> Iterator[str]:
    """Hold KA and the named majority classes against the classes of every data set that is trained on."""
    trained = {name for experiment in params.experiments.values() for name in experiment.datasets}
    for name, dataset in params.datasets.items():
        if name not in trained and dataset.majority is None:
            continue
        key = "splits" if dataset.majority is None else f"datasets.{name}"
        chosen = dataset.majority or params.splits.majority
        last = feasibility.num_classes(dataset) - 1
        for majority in chosen:
            if majority > last:
                yield f"{key}.majority: {majority} is not allowed: must be from 1 to {last} for {name}"
        classes = params.splits.majority_classes
        if isinstance(classes, list):
            if len(classes) < max(chosen) or len(set(classes)) < len(classes):
                allowed = f"must name at least {max(chosen)} different classes"
                yield f"splits.majority_classes: {quoted(classes)} is not allowed: {allowed}"
            yield from _class_faults(name, dataset, classes)


def _class_faults(name: str, dataset: DatasetSettings, chosen: list[int | str]) -> Iterator[str]:
    """Hold labels, and names where they are known before the files are there, against the classes of a data set."""
    known = CANONICAL[dataset.source].classes if dataset.source in CANONICAL else None
    last = feasibility.num_classes(dataset) - 1
    for one in chosen:
        if isinstance(one, int) and one > last:
            yield f"splits.majority_classes: {one} is not allowed: {name} has classes 0 to {last}"
        elif isinstance(one, str) and known and one not in known and not (one.isdecimal() and int(one) <= last):
            near = nearest(one, known)
            yield f"splits.majority_classes: {quoted(one)} is no class of {name}{near}: {', '.join(known)}"


def _is_whole_cifar(dataset: DatasetSettings) -> bool:
    return dataset.source in ("cifar10", "cifar100") and dataset.per_class is None
