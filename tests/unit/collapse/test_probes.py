"""Probes: the named layers' outputs, pooled or flattened, and no hook left behind."""

import pytest
import torch
from torch import nn

from eqcollapse.collapse import Probes


class Shared(nn.Module):
    """A network whose middle layer runs three times and returns a tuple."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.cell = nn.Identity()
        self.head = nn.Linear(4, 2)

    def forward(self, images):
        hidden = self.stem(images)
        for _ in range(3):
            hidden = self.cell((2 * hidden, None))[0]
        return self.head(hidden.mean((2, 3)))


@pytest.fixture
def network():
    return Shared()


def test_layers_are_recorded_pooled_or_flattened(network):
    images = torch.randn(5, 3, 6, 6)
    stem = network.stem(images)
    with Probes(network, ["stem", "cell", "head"]) as probes:
        logits = network(images)
    assert torch.allclose(probes.features["stem"], stem.mean((2, 3)))
    assert torch.allclose(probes.features["cell"], 8 * stem.mean((2, 3)), rtol=1e-5)
    assert torch.equal(probes.features["head"], logits)
    assert not any(features.requires_grad for features in probes.features.values())
    with Probes(network, ["stem"], pool="flatten") as probes:
        network(images)
    assert torch.equal(probes.features["stem"], stem.flatten(1))


@pytest.mark.parametrize(
    ("layer", "images", "pool"),
    [
        (nn.Linear(6, 4), torch.randn(5, 6), True),
        (nn.Linear(6, 4), torch.randn(5, 6), "flatten"),
        (nn.Conv2d(3, 4, 3), torch.randn(5, 3, 6, 6), True),
        (nn.Conv2d(3, 4, 3), torch.randn(5, 3, 6, 6), "flatten"),
        (nn.Flatten(0, 1), torch.randn(5, 1, 6), True),  # its output is itself a view
    ],
)
def test_what_is_done_in_place_afterwards_is_not_recorded(layer, images, pool):
    with torch.no_grad():
        output = layer(images).clone()
        expected = output.flatten(1) if pool == "flatten" or output.ndim == 2 else output.mean((2, 3))
        with Probes(model := nn.Sequential(layer, nn.ReLU(inplace=True)), ["0"], pool) as probes:
            model(images)
    assert float(expected.min()) < 0
    assert torch.allclose(probes.features["0"], expected, rtol=1e-5, atol=1e-7)


def test_hooks_are_gone_afterwards_even_after_an_error(network):
    with pytest.raises(RuntimeError), Probes(network, ["stem", "head"]):
        network(torch.randn(5, 1, 6, 6))
    assert not any(module._forward_hooks for module in network.modules())
    with Probes(network, ["stem"]) as probes:
        pass
    network(torch.randn(5, 3, 6, 6))
    assert probes.features == {}


def test_unknown_layers_and_pools_are_refused(network):
    with pytest.raises(ValueError, match="no layers tail; it has stem, cell, head"):
        Probes(network, ["stem", "tail"])
    with pytest.raises(ValueError, match="pool must be"):
        Probes(network, ["stem"], pool="max")
