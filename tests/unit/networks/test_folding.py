"""A folded network is the same function."""

import pytest
import torch

from eqcollapse.networks.classifier import Classifier, build
from eqcollapse.networks.config import EquilibriumSettings, Network
from eqcollapse.networks.folding import folded
from equilibria import RESNET, equilibrium


def network_of(head: str, layer: str = "contractive") -> Classifier:
    """A network of three stages whose normalisations have statistics and weights of all sizes."""
    settings = {"channels": None, "stem": "cifar", "width": 8, "stages": 3, "blocks": 2, "head": head, "bias": True}
    settings |= RESNET
    chosen = EquilibriumSettings.model_validate(equilibrium(layer=layer, hidden=32)) if head == "equilibrium" else None
    network = build(Network.model_validate(settings), chosen, channels=3, num_classes=10, seed=0)
    draw = torch.Generator().manual_seed(1)
    for part in network.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            for values in (part.running_mean, part.bias.data):
                values.normal_(generator=draw)
            for values in (part.running_var, part.weight.data):
                values.uniform_(0.3, 3, generator=draw)
    return network


IMAGES = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("layer", ["contractive", "residual"])
@pytest.mark.parametrize("head", ["explicit", "equilibrium"])
@pytest.mark.parametrize(("precision", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@torch.no_grad()
def test_a_folded_network_has_the_features_of_the_network(head, layer, precision, tolerance):
    network, images = network_of(head, layer).to(precision).eval(), IMAGES.to(precision)
    expected = network.features(images)
    features = folded(network).features(images)
    assert (features - expected).norm() <= tolerance * expected.norm()


@pytest.mark.parametrize("head", ["explicit", "equilibrium"])
def test_no_batch_normalisation_after_a_convolution_is_left(head):
    left = [name for name, part in folded(network_of(head)).named_modules() if isinstance(part, torch.nn.BatchNorm2d)]
    assert left == (["head.norm_out"] if head == "equilibrium" else [])


@pytest.mark.parametrize("head", ["explicit", "equilibrium"])
def test_the_network_itself_trains_as_if_it_had_not_been_folded(head):
    losses = []
    for fold in (False, True):
        network = network_of(head)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        for _ in range(3):
            network.train()
            optimizer.zero_grad()
            loss = network(IMAGES).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if fold:
                folded(network).features(IMAGES)
    assert losses[:3] == losses[3:]


def test_solves_of_a_folded_network_count_among_those_of_the_network():
    network = network_of("equilibrium")
    equilibrium = network.head.equilibrium
    equilibrium.statistics.reset()
    folded(network).features(IMAGES)
    assert equilibrium.statistics.summary()["solver_converged"] == 1
    assert equilibrium.solution.evaluations > 1
