"""What is kept of an epoch: the moments of the training features, and the classifier.

With moments kept, a new metric is measured on old runs without training again.
"""

import torch
from torch import Tensor

from eqcollapse.collapse.moments import Moments
from eqcollapse.training.evaluation import accuracies, correct_by_class, features_of
from eqcollapse.training.loop import Cell

LAYER = "features"
"""The probed layer: what W reads."""


def measure(cell: Cell) -> dict[str, Tensor]:
    """Measure the training features of the epoch that ended; add the training accuracy to its row of the history.

    Returns tensors named `epoch-<e>/<layer>/<moment>` and `epoch-<e>/weight`, `epoch-<e>/bias`, on the CPU.
    """
    for equilibrium in cell.equilibria:
        equilibrium.statistics.enabled = False
    features, labels = features_of(cell.network, cell.train)
    for equilibrium in cell.equilibria:
        equilibrium.statistics.enabled = True
    counts = correct_by_class(cell.network, features, labels).cpu()
    cell.history[-1] |= {f"train_{name}": value for name, value in accuracies(counts, cell.majority).items()}
    linear = cell.network.linear
    moments = Moments.of(features, labels, linear.out_features, linear.weight, linear.bias)
    kept = {f"{LAYER}/{name}": value for name, value in moments.tensors().items()}
    kept["weight"] = linear.weight.detach()
    if linear.bias is not None:
        kept["bias"] = linear.bias.detach()
    return {f"epoch-{cell.epoch:06d}/{name}": value.cpu().clone() for name, value in kept.items()}


def kept_features(cell: Cell, per_class: int) -> dict[str, Tensor]:
    """Return training and test features of the first `per_class` samples of each class, with their labels."""
    kept = {}
    for part, batches in (("train", cell.train), ("test", cell.test)):
        features, labels = features_of(cell.network, batches)
        first = torch.cat([(labels == k).nonzero()[:per_class, 0] for k in range(cell.network.linear.out_features)])
        chosen = first.sort().values
        kept |= {f"{part}/features": features[chosen].cpu(), f"{part}/labels": labels[chosen].cpu()}
    return kept
