"""What a network makes of a set of images: features, and which classes it gets right."""

import torch
from torch import Tensor, nn

from eqcollapse.data.batches import Batches
from eqcollapse.networks.classifier import Classifier
from eqcollapse.networks.folding import folded

CACHED = 1 << 20
"""Numbers that an activation of the whole batch has on a CPU, so that it stays in the cache: 4 MB."""
LARGEST_BATCH = 256


@torch.no_grad()
def features_of(network: Classifier, batches: Batches, chosen: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the features (N×d, float32) and labels (N) of the `chosen` samples, or of all, in evaluation mode."""
    network = folded(network)
    ordered = batches.ordered(batch_size(network, batches), chosen)
    parts = [(network.features(images).float(), labels) for images, labels in ordered]
    if not parts:
        return torch.empty(0, network.head.dim), torch.empty(0, dtype=torch.int64)
    features, labels = zip(*parts, strict=True)
    return torch.cat(features), torch.cat(labels)


def batch_size(network: Classifier, batches: Batches) -> int:
    """Return the images of an evaluation batch: a power of two, and on a CPU no more than its cache holds."""
    if batches.images.device.type != "cpu":
        return LARGEST_BATCH
    numbers = batches.images[0].numel()
    stem = next((part for part in network.encoder.modules() if isinstance(part, nn.Conv2d)), None)
    if stem is not None:
        numbers = stem.out_channels * max(1, batches.images[0, 0].numel() // stem.stride[0] ** 2)
    return 1 << min(LARGEST_BATCH, max(1, CACHED // numbers)).bit_length() - 1


@torch.no_grad()
def is_right(network: Classifier, features: Tensor, labels: Tensor) -> Tensor:
    """Return which samples (N, bool) W gets right."""
    return network.linear(features).argmax(dim=1) == labels


def correct_by_class(network: Classifier, features: Tensor, labels: Tensor) -> Tensor:
    """Return K×2 counts: samples of each class that W gets right, and samples of each class."""
    return counts_by_class(is_right(network, features, labels), labels, network.linear.out_features)


def counts_by_class(right: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Return K×2 counts: samples of each class that are `right`, and samples of each class."""
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
