"""What a network makes of a set of images: features, and which classes it gets right."""

import torch
from torch import Tensor

from eqcollapse.data.batches import Batches
from eqcollapse.networks.classifier import Classifier


@torch.no_grad()
def features_of(network: Classifier, batches: Batches) -> tuple[Tensor, Tensor]:
    """Return the features (N×d, float32) and labels (N) of all samples in order, in evaluation mode."""
    network.eval()
    parts = [(network.features(images).float(), labels) for images, labels in batches.ordered()]
    features, labels = zip(*parts, strict=True)
    return torch.cat(features), torch.cat(labels)


@torch.no_grad()
def correct_by_class(network: Classifier, features: Tensor, labels: Tensor) -> Tensor:
    """Return K×2 counts: samples of each class that W gets right, and samples of each class."""
    right = network.linear(features).argmax(dim=1) == labels
    classes = network.linear.out_features
    return torch.stack([torch.bincount(labels[right], minlength=classes), torch.bincount(labels, minlength=classes)], 1)


def accuracies(counts: Tensor, majority: tuple[int, ...]) -> dict[str, float]:
    """Return the share of right answers, overall and, where some classes are `majority`, of both groups."""
    groups: dict[str, slice | list[int]] = {"accuracy": slice(None)}
    if majority:
        minority = sorted(set(range(len(counts))) - set(majority))
        groups |= {"accuracy_majority": list(majority), "accuracy_minority": minority}
    return {name: _share(counts[classes].sum(dim=0)) for name, classes in groups.items()}


def _share(pair: Tensor) -> float:
    right, total = pair.tolist()
    return right / total if total else float("nan")
