"""The whole network: encoder, head, linear classifier."""

import torch
from torch import Tensor, nn

from eqcollapse.networks.config import EquilibriumSettings, Network
from eqcollapse.networks.deq import EquilibriumHead
from eqcollapse.networks.resnet import Encoder, ExplicitHead, initialise


class Classifier(nn.Module):
    """Images N×C×H×W -> logits N×K, by way of the features (of H or z*, N×d) that W reads."""

    def __init__(self, encoder: Encoder, head: EquilibriumHead | ExplicitHead, num_classes: int, bias: bool):
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.linear = nn.Linear(head.dim, num_classes, bias=bias)

    def features(self, images: Tensor) -> Tensor:
        """Return the features of H (explicit) or of z* (equilibrium), N×d."""
        return self.head(self.encoder(images))

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        return self.linear(self.features(images))


def build(
    network: Network, equilibrium: EquilibriumSettings | None, channels: int, num_classes: int, seed: int
) -> Classifier:
    """Build the network, drawn by `seed`; `equilibrium` are the settings of its head, if that is one.

    The encoder is drawn first, so that for one seed both models start with the same one. Raises ValueError where
    images of `channels` channels cannot be brought to `network.channels`: only one channel can be repeated.
    """
    if network.channels not in (None, channels) and channels != 1:
        raise ValueError(f"network.channels is {network.channels}, and the images have {channels}; only 1 is repeated")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = Encoder(network.channels or channels, network.width, network.stages, network.blocks, network.stem)
        initialise(encoder)
        head = _head(network, equilibrium, encoder.channels_out)
        return Classifier(encoder, head, num_classes, network.bias)


def _head(network: Network, equilibrium: EquilibriumSettings | None, channels: int) -> EquilibriumHead | ExplicitHead:
    if equilibrium is not None:
        return EquilibriumHead(channels, equilibrium)
    head = ExplicitHead(channels, network.blocks)
    initialise(head)
    return head
