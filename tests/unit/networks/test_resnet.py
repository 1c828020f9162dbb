"""The explicit network is the CIFAR ResNet-18, weight for weight."""

import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from eqcollapse.networks.classifier import build
from eqcollapse.networks.config import EquilibriumSettings, Network
from equilibria import RESNET, equilibrium

EQUILIBRIUM = EquilibriumSettings.model_validate(equilibrium())


def settings(head: str = "explicit", **network) -> tuple[Network, EquilibriumSettings | None]:
    chosen = {
        "channels": None,
        "stem": "cifar",
        "width": 64,
        "stages": 4,
        "blocks": 2,
        "head": head,
        "bias": True,
        **RESNET,
        **network,
    }
    return Network.model_validate(chosen), EQUILIBRIUM if head == "equilibrium" else None


def test_paper_size_has_the_parameters_of_resnet18():
    network = build(*settings(), channels=3, num_classes=10, seed=0)
    assert sum(weights.numel() for weights in network.parameters()) == 11_173_962


def torchvision_name(name: str) -> str:
    """What torchvision calls a weight of ours."""
    room, _, rest = name.partition(".")
    if room == "linear":
        return f"fc.{rest}"
    if room == "head":
        return rest.replace("stage", "layer4", 1)
    if rest.startswith("stages."):
        _, stage, inner = rest.split(".", 2)
        return f"layer{int(stage) + 1}.{inner}"
    return rest


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_it_is_the_function_of_torchvisions_resnet18(training, stem):
    theirs = resnet18(num_classes=10)
    if stem == "cifar":
        theirs.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        theirs.maxpool = nn.Identity()
    ours = build(*settings(stem=stem), channels=3, num_classes=10, seed=0)
    weights = theirs.state_dict()
    ours.load_state_dict({name: weights[torchvision_name(name)] for name in ours.state_dict()})
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    ours, theirs = ours.double().train(training), theirs.double().train(training)
    with torch.no_grad():
        torch.testing.assert_close(ours(images.double()), theirs(images.double()), rtol=1e-12, atol=1e-12)


def test_grey_images_are_repeated_to_the_channels_asked_for():
    network = build(*settings(channels=3, width=8), channels=1, num_classes=10, seed=0).eval()
    images = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(network(images), network(images.repeat(1, 3, 1, 1)), rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"network\.channels: 3 is asked for, and the images have 2"):
        build(*settings(channels=3), channels=2, num_classes=10, seed=0)


def test_both_models_start_with_the_same_encoder():
    small = {"width": 8, "stages": 3, "blocks": 1}
    explicit, deq = (build(*settings(head, **small), 1, 10, seed=3) for head in ("explicit", "equilibrium"))
    for name, weights in explicit.encoder.state_dict().items():
        assert torch.equal(weights, deq.encoder.state_dict()[name]), name


@pytest.mark.parametrize("head", ["explicit", "equilibrium"])
@pytest.mark.parametrize(("channels", "side", "classes"), [(1, 8, 10), (3, 17, 7), (1, 28, 2)])
def test_any_images_and_classes(head, channels, side, classes):
    network = build(*settings(head, width=8, stages=3, blocks=1), channels, classes, seed=0)
    images = torch.rand(3, channels, side, side)
    assert network(images).shape == (3, classes)
    assert network.features(images).shape == (3, 32)


def test_a_seed_is_a_network_whatever_was_drawn_before():
    first = build(*settings(width=8), 1, 10, seed=5)
    torch.rand(17)
    second = build(*settings(width=8), 1, 10, seed=5)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_the_scale_of_an_equilibriums_channels_does_not_reach_the_features():
    """Features end as a residual block does, with batch normalisation and ReLU: what a channel gains is taken off."""
    network = build(*settings("equilibrium", width=8, stages=3, blocks=1), 1, 10, seed=0)
    head = network.double().train().head
    x = torch.rand(6, 16, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    features = head(x)
    assert (features >= 0).all()
    gains = torch.logspace(0, 1, head.dim, dtype=torch.float64).view(1, -1, 1, 1)
    head.equilibrium.register_forward_hook(lambda module, inputs, z: gains * z)
    torch.testing.assert_close(head(x), features, rtol=1e-2, atol=1e-3)


def test_without_bias():
    assert build(*settings(width=8, bias=False), 1, 10, seed=0).linear.bias is None
