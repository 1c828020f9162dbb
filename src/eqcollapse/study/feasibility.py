"""What settings that are each allowed cannot do together: known before any job, from params.yaml alone.

Imports neither torch nor numpy; tests/unit/study/test_feasibility.py holds this against what the jobs do.
"""

from collections.abc import Iterator
from math import floor
from typing import Any

from eqcollapse.data.config import DatasetSettings
from eqcollapse.data.registry import CANONICAL
from eqcollapse.networks.config import EquilibriumSettings, Network, Solver
from eqcollapse.runtime.errors import EqcollapseError
from eqcollapse.runtime.nearest import nearest
from eqcollapse.runtime.references import is_reference
from eqcollapse.study import own_code
from eqcollapse.study.messages import quoted
from eqcollapse.study.options import ARCHITECTURES
from eqcollapse.study.trial import request, torchvision_classifiers
from eqcollapse.training.config import Model

GROUPS = 8
"""Of the group normalisation in the equilibrium layers (eqcollapse.equilibrium.layers)."""


def model_faults(name: str, model: Model) -> Iterator[str]:
    """Yield what keeps the model `name` from being built, or from learning anything."""
    yield from _own_faults(name, model)
    if model.network.head == "equilibrium":
        yield from _cut_faults(name, model.network)
        yield from _group_faults(name, model.network, model.equilibrium)
        yield from _solver_faults(name, model.equilibrium)
    if model.train.feature_decay and model.network.classifier == "cosine":
        yield (f"train.feature_decay (model {name}): {model.train.feature_decay:g} is not allowed: under "
               "network.classifier cosine all features have norm 1")  # fmt: skip


def _own_faults(name: str, model: Model) -> Iterator[str]:
    """Yield what is wrong with the places of code that is not ours: files, names in them, networks of torchvision."""
    for key, text in own_code.references(model):
        try:
            own_code.own_files(text)
        except EqcollapseError as error:
            yield f"{key} (model {name}): {error}"
    chosen = model.network.architecture
    if chosen in ARCHITECTURES or is_reference(chosen):
        return
    known = torchvision_classifiers()
    if chosen not in known:
        yield (
            f"network.architecture (model {name}): {quoted(chosen)} is not allowed"
            f"{nearest(chosen, [*ARCHITECTURES, *known])}: {', '.join(ARCHITECTURES)}, a classifier of torchvision "
            f"({len(known)} are installed, such as resnet18), or path/to/file.py:Name of your own"
        )


def _cut_faults(name: str, network: Network) -> Iterator[str]:
    ours = network.architecture == "resnet"
    if ours and network.cut is not None:
        yield (f"network.cut (model {name}): {quoted(network.cut)} is not allowed: of resnet, the last of "
               "network.stages is the head")  # fmt: skip
    if not ours and network.cut is None:
        yield (f"network.cut (model {name}): null is not allowed: which submodule of {network.architecture} does the "
               "equilibrium head read?")  # fmt: skip


def _group_faults(name: str, network: Network, equilibrium: EquilibriumSettings) -> Iterator[str]:
    if is_reference(equilibrium.layer):
        return
    channels = network.width << (network.stages - 1)
    hidden = equilibrium.hidden
    if hidden is not None and hidden % GROUPS:
        yield (
            f"equilibrium.hidden (model {name}): {hidden} is not allowed: must be a multiple of {GROUPS}, its groups; "
            f"{_multiples(hidden)} are near"
        )
    if network.architecture == "resnet" and channels % GROUPS and (equilibrium.layer == "residual" or hidden is None):
        yield (
            f"network.width (model {name}): {network.width} is not allowed: the equilibrium layer has width x "
            f"2^(stages - 1) = {channels} channels, which must be a multiple of {GROUPS}, its groups"
        )


def _multiples(number: int) -> str:
    below = number // GROUPS * GROUPS
    return f"{below} and {below + GROUPS}" if below else str(GROUPS)


def _solver_faults(name: str, equilibrium: EquilibriumSettings) -> Iterator[str]:
    """Yield what makes z = 0, at which every solve starts, the equilibrium: features that no image changes."""
    forward = equilibrium.forward
    if equilibrium.gradient == "unrolled":
        return
    if forward.max_iter == 1:
        yield (
            f"equilibrium.forward.max_iter (model {name}): 1 is not allowed: one evaluation is of the start z = 0, and "
            "no step is taken; must be at least 2 (one step is a network with gradient: unrolled)"
        )
    if _starts_converged(forward):
        yield (
            f"equilibrium.forward.tol (model {name}): {forward.tol:g} is not allowed: must be below 1, the relative "
            "residual of the start z = 0"
        )


def _starts_converged(solver: Solver) -> bool:
    return solver.criterion == "relative" and solver.tol >= 1


def dataset_faults(name: str, dataset: DatasetSettings, validation: float) -> Iterator[str]:
    """Yield what leaves a class of the data set `name` without scatter: one sample to train on."""
    kept = dataset.per_class
    if kept is None:
        return
    trained = kept - floor(kept * validation)
    if trained < 2:
        part = f", of which splits.validation = {validation:g} leaves {trained} to train on" if validation else ""
        yield (
            f"datasets.{name}.per_class: {kept} is not allowed{part}: a class of one sample has no scatter, so NC1 is "
            "0 from the start; must be at least 2 to train on"
        )


def batch_faults(name: str, model: Model, dataset_name: str, dataset: DatasetSettings) -> Iterator[str]:
    """Yield what leaves batch normalisation a single value a channel, where the size of the images is known."""
    yield from _etf_faults(name, model.network, dataset_name, dataset)
    side = _side(dataset)
    if (
        model.network.architecture == "resnet"
        and model.train.batch_size == 1
        and side is not None
        and side <= 1 << (model.network.stages - 1)
    ):
        yield (
            f"train.batch_size (model {name}): 1 is not allowed: {model.network.stages} stages leave one pixel of the "
            f"{side} x {side} of {dataset_name}, and one value a channel cannot be normalised; must be at least 2"
        )


def _etf_faults(name: str, network: Network, dataset_name: str, dataset: DatasetSettings) -> Iterator[str]:
    dim = network.width << (network.stages - 1)
    classes = num_classes(dataset)
    if network.architecture == "resnet" and network.classifier == "etf" and dim < classes - 1:
        yield (
            f"network.classifier (model {name}): etf is not allowed for {dataset_name}: the simplex ETF of {classes} "
            f"classes takes {classes - 1} dimensions, and the features have width x 2^(stages - 1) = {dim}"
        )


def trial_request(model: Model, dataset: DatasetSettings) -> dict[str, Any] | None:
    """Return what a trial of `model` on this data set takes, whose images have three channels where nothing is known
    of them; None where no trial is needed.
    """
    channels = CANONICAL[dataset.source].shape[0] if dataset.source in CANONICAL else 3
    side = _side(dataset) or 32
    return request(model, (channels, side, side), num_classes(dataset))


def num_classes(dataset: DatasetSettings) -> int:
    """Return K, which the grid needs before any file is there."""
    return dataset.classes or len(CANONICAL[dataset.source].classes)


def _side(dataset: DatasetSettings) -> int | None:
    if dataset.size is not None or dataset.source not in CANONICAL:
        return dataset.size
    return max(CANONICAL[dataset.source].shape[1:])
