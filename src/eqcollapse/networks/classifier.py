"""The whole network: encoder, head, linear classifier."""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from eqcollapse.networks.architectures import Trunk, whole
from eqcollapse.networks.config import EquilibriumSettings, Network
from eqcollapse.networks.deq import EquilibriumHead
from eqcollapse.networks.resnet import Encoder, ExplicitHead, initialise
from eqcollapse.networks.rows import CosineLinear, with_rows


class Bare(nn.Identity):
    """The head of a network that ends in its features: N×`dim`, as they are."""

    def __init__(self, dim: int):
        super().__init__()
        self.dim = dim


Head = EquilibriumHead | ExplicitHead | Bare


class Classifier(nn.Module):
    """Images N×C×H×W -> logits N×K, by way of the features (of H or z*, N×d) that W reads.

    Under a cosine classifier these are h / ||h||.
    """

    def __init__(self, encoder: Encoder | Trunk, head: Head, linear: nn.Linear | CosineLinear):
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.linear = linear

    def features(self, images: Tensor) -> Tensor:
        """Return the features of H (explicit) or of z* (equilibrium), N×d."""
        features = self.head(self.encoder(images))
        return normalize(features, dim=1) if isinstance(self.linear, CosineLinear) else features

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        return self.linear(self.features(images))


def build(
    network: Network,
    equilibrium: EquilibriumSettings | None,
    channels: int,
    num_classes: int,
    seed: int,
    size: tuple[int, int] = (32, 32),
) -> Classifier:
    """Build the network, drawn by `seed`; `equilibrium` are the settings of its head, if that is one.

    `size` is height and width of the images, which the networks other than our ResNet are tried with. The encoder is
    drawn first, so that for one seed both models start with the same one. Raises ValueError where images of `channels`
    channels cannot be brought to `network.channels` (only one channel can be repeated), or where the architecture is
    none that features can be read from.
    """
    taken = _channels(network, channels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts = _resnet if network.architecture == "resnet" else _other
        encoder, head, linear = parts(network, equilibrium, taken, num_classes, size)
        return Classifier(encoder, head, with_rows(linear, network.classifier, network.classifier_norm, network.bias))


def _channels(network: Network, channels: int) -> int:
    """Return the channels that the network takes; torchvision's take three, to which one is repeated."""
    asked = network.channels
    if asked not in (None, channels) and channels != 1:
        raise ValueError(f"network.channels: {asked} is asked for, and the images have {channels}; only 1 is repeated")
    return asked or channels


def _resnet(
    network: Network, equilibrium: EquilibriumSettings | None, channels: int, num_classes: int, size: tuple[int, int]
) -> tuple[Encoder, Head, nn.Linear]:
    encoder = Encoder(channels, network.width, network.stages, network.blocks, network.stem)
    initialise(encoder)
    head: EquilibriumHead | ExplicitHead
    if equilibrium is not None:
        head = EquilibriumHead(encoder.channels_out, equilibrium)
    else:
        head = ExplicitHead(encoder.channels_out, network.blocks)
        initialise(head)
    return encoder, head, nn.Linear(head.dim, num_classes, bias=network.bias)


def _other(
    network: Network, equilibrium: EquilibriumSettings | None, channels: int, num_classes: int, size: tuple[int, int]
) -> tuple[Trunk, Head, nn.Linear]:
    made, channels = whole(network, channels, num_classes)
    images = torch.rand(2, channels, *size)
    if equilibrium is None:
        trunk, linear = Trunk.to_features(made, channels, images, num_classes)
        return trunk, Bare(linear.in_features), linear
    trunk = Trunk.to_cut(made, channels, images, network.cut or "")
    head = EquilibriumHead(trunk.channels_out, equilibrium)
    return trunk, head, nn.Linear(head.dim, num_classes, bias=network.bias)


def stage_names(network: Classifier, layers: str | list[str]) -> list[str]:
    """Return the submodules of `network` that `snapshots.layers` asks for beside the features, by their whole names.

    Of `stages`, all of the encoder's. A list has names within the encoder: of our ResNet `stages.0`, and of another
    network its own (`layer1`).
    """
    within = "encoder" if isinstance(network.encoder, Encoder) else "encoder.network"
    if isinstance(layers, list):
        return [f"{within}.{name}" for name in layers]
    if layers != "stages":
        return []
    if isinstance(network.encoder, Encoder):
        return [f"{within}.stages.{number}" for number in range(len(network.encoder.stages))]
    return [f"{within}.{name}" for name in network.encoder.stages()]
