"""What is kept of an epoch: the moments of the training features, and the classifier.

With moments kept, a new metric is measured on old runs without training again.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from eqcollapse.collapse.moments import Moments
from eqcollapse.collapse.probes import Probes
from eqcollapse.equilibrium import Contraction
from eqcollapse.networks.classifier import stage_names
from eqcollapse.networks.deq import EquilibriumHead
from eqcollapse.networks.folding import folded
from eqcollapse.training.evaluation import accuracies, batch_size, correct_by_class, features_of, is_right
from eqcollapse.training.trainer import Cell, solver_share

LAYER = "features"
"""The probed layer that W reads."""
RADIUS_SAMPLES = 32
"""The spectral radius is estimated at the equilibria of so many training samples, the first in order."""


def measure(cell: Cell) -> dict[str, Tensor]:
    """Measure the training features of the epoch that ended; add to its row of the history the training accuracy and,
    for a DEQ, `train_solver_converged` (the share of these solves, in evaluation mode, that converged) and
    `solver_spectral_radius`, an estimate, of df/dz at the equilibrium (mean over samples; `..._max`: the largest); for
    a layer whose contraction is guaranteed also `solver_contraction_certified` and `solver_contraction_slack` (see
    `Contraction`).

    Returns tensors named `epoch-<e>/<layer>/<moment>` and `epoch-<e>/weight`, `epoch-<e>/bias`, on the CPU. The layers
    are `features` and, where `snapshots.layers` asks for them, `stage-1`, `stage-2`, ...: averaged over the image
    (N×d×H×W; all dimensions after the second).
    """
    for equilibrium in cell.equilibria:
        equilibrium.statistics.reset()
    layers, labels = _features_by_layer(cell)
    cell.history[-1] |= {f"train_{name}": value for name, value in solver_share(cell).items()}
    if isinstance(cell.network.head, EquilibriumHead):
        cell.history[-1] |= _jacobian(cell, cell.network.head)
    features = layers.pop(LAYER)
    counts = correct_by_class(cell.network, features, labels).cpu()
    cell.history[-1] |= {f"train_{name}": value for name, value in accuracies(counts, cell.majority).items()}
    linear = cell.network.linear
    moments = {LAYER: Moments.of(features, labels, linear.out_features, linear.weight, linear.bias)}
    moments |= {layer: Moments.of(values, labels, linear.out_features) for layer, values in layers.items()}
    kept = {f"{layer}/{name}": value for layer, of in moments.items() for name, value in of.tensors().items()}
    kept["weight"] = linear.weight.detach()
    if linear.bias is not None:
        kept["bias"] = linear.bias.detach()
    return {f"epoch-{cell.epoch:06d}/{name}": value.cpu().clone() for name, value in kept.items()}


@torch.no_grad()
def _features_by_layer(cell: Cell) -> tuple[dict[str, Tensor], Tensor]:
    """Return the training features (N×d, float32) of each layer by name, and the labels (N), in evaluation mode."""
    names = {f"stage-{n + 1}": name for n, name in enumerate(stage_names(cell.network, cell.spec.snapshots.layers))}
    parts: dict[str, list[Tensor]] = {layer: [] for layer in (*names, LAYER)}
    of_class = []
    network = folded(cell.network)
    with Probes(network, list(names.values())) as probes:
        for images, labels in cell.train.ordered(batch_size(network, cell.train)):
            parts[LAYER].append(network.features(images).float())
            for layer, module in names.items():
                parts[layer].append(probes.features[module].float())
            of_class.append(labels)
    return {layer: torch.cat(batches) for layer, batches in parts.items()}, torch.cat(of_class)


@torch.no_grad()
def _jacobian(cell: Cell, head: EquilibriumHead) -> dict[str, float]:
    """Estimate the spectral radius of df/dz at the equilibria of the first training samples, in evaluation mode, and
    report how much of its contraction bound the layer uses.
    """
    images, _ = next(cell.train.ordered(RADIUS_SAMPLES))
    x = head.injected(cell.network.encoder(images[:RADIUS_SAMPLES]))
    radius = head.equilibrium.spectral_radius(x)
    row = {"solver_spectral_radius": radius.mean().item(), "solver_spectral_radius_max": radius.max().item()}
    contraction: Callable[[tuple[int, ...]], Contraction] | None = getattr(head.equilibrium.layer, "contraction", None)
    if contraction:
        held = contraction(tuple(x.shape[-2:]))
        row |= {"solver_contraction_certified": held.certified, "solver_contraction_slack": held.slack}
    return row


def kept_features(cell: Cell, per_class: int) -> tuple[dict[str, Tensor], Tensor]:
    """Return training and test features of the first `per_class` samples of each class, with their labels; and which of
    all test images are right (bool).
    """
    first_train, first_test = (_first_of_each(batches.labels, per_class) for batches in (cell.train, cell.test))
    train, train_labels = features_of(cell.network, cell.train, first_train)
    test, test_labels = features_of(cell.network, cell.test)
    kept = {
        "train/features": train,
        "train/labels": train_labels,
        "test/features": test[first_test],
        "test/labels": test_labels[first_test],
    }
    return {name: value.cpu() for name, value in kept.items()}, is_right(cell.network, test, test_labels)


def _first_of_each(labels: Tensor, per_class: int) -> Tensor:
    """Return the indices of the first `per_class` samples of each class, in order."""
    return torch.cat([(labels == k).nonzero()[:per_class, 0] for k in labels.unique()]).sort().values
