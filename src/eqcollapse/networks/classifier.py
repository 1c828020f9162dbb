"""The whole network: encoder, head, linear classifier."""

import torch
from torch import Tensor, nn

from eqcollapse.networks.deq import EquilibriumHead
from eqcollapse.networks.resnet import Encoder, ExplicitHead, initialise


class Classifier(nn.Module):
    """Images N×C×H×W -> logits N×K, by way of the features (H or z*, N×d) that W reads."""

    def __init__(self, encoder: Encoder, head: nn.Module, num_classes: int, bias: bool):
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.linear = nn.Linear(head.dim, num_classes, bias=bias)

    def features(self, images: Tensor) -> Tensor:
        """Return H (explicit) or z* (equilibrium), N×d."""
        return self.head(self.encoder(images))

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        return self.linear(self.features(images))


def build(spec: dict, channels: int, num_classes: int, seed: int) -> Classifier:
    """Build the network of `spec` (sections `network` and `equilibrium` of params.yaml), drawn by `seed`.

    The encoder is drawn first, so that for one seed both models start with the same one.
    """
    settings = spec["network"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = Encoder(channels, settings["width"], settings["stages"], settings["blocks"])
        initialise(encoder)
        head = _head(spec, encoder.channels_out)
        return Classifier(encoder, head, num_classes, settings["bias"])


def _head(spec: dict, channels: int) -> nn.Module:
    if spec["network"]["head"] == "equilibrium":
        return EquilibriumHead(channels, spec["equilibrium"])
    head = ExplicitHead(channels, spec["network"]["blocks"])
    initialise(head)
    return head
