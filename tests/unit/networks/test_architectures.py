"""Networks of torchvision and of a user's own keep their function, and are read where their last linear layer reads."""

import pytest
import torch
from torch import nn
from torchvision.models import get_model

from eqcollapse.collapse.frames import simplex_etf
from eqcollapse.networks.classifier import Classifier, build, stage_names
from eqcollapse.networks.config import EquilibriumSettings, Network
from eqcollapse.networks.folding import folded
from eqcollapse.study.options import ARCHITECTURES, filled
from equilibria import RESNET, equilibrium

SIZE = (16, 16)
OWN = '''
import torch
from torch import nn
from torch.nn import functional as F


class Net(nn.Module):
    """The classifier is defined first and run last."""

    def __init__(self, channels, num_classes, *, width=8, bias=True):
        super().__init__()
        self.classifier = nn.Linear(2 * width, num_classes, bias=bias)
        self.first = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU())

    def forward(self, images):
        return self.classifier(self.second(self.first(images)).mean(dim=(2, 3)))


class Softmax(Net):
    def forward(self, images):
        return super().forward(images).softmax(dim=1)


class Tokens(Net):
    def __init__(self, channels, num_classes):
        super().__init__(channels, num_classes)
        self.tokens = nn.Flatten(2)

    def forward(self, images):
        hidden = self.tokens(self.second(self.first(images)))
        return self.classifier(hidden.mean(dim=2))


class Convolutions(nn.Module):
    def __init__(self, channels, num_classes):
        super().__init__()
        self.conv = nn.Conv2d(channels, num_classes, 1)

    def forward(self, images):
        return self.conv(images).mean(dim=(2, 3))


def line(channels, num_classes):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(12), nn.ReLU(), nn.Linear(12, num_classes))


def alone(channels, num_classes):
    return nn.LazyLinear(num_classes)


def seven(channels, num_classes):
    return line(channels, 7)


def nothing(channels, num_classes):
    return None


def narrow(channels):
    return line(channels, 10)


class Layer(nn.Module):
    def __init__(self, channels, *, bound=0.5):
        super().__init__()
        self.bound = bound

    def forward(self, z, x):
        return x + self.bound * torch.tanh(z)
'''


@pytest.fixture
def own(tmp_path, monkeypatch) -> str:
    """A file of a user's own in the working folder, with a name that no other test's module has."""
    name = f"own_{tmp_path.name.replace('-', '_')}.py"
    (tmp_path / name).write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def network(head: str = "explicit", **settings) -> Network:
    content = {"channels": None, "stem": "cifar", "width": 8, "stages": 2, "blocks": 1, "head": head, "bias": True}
    content |= RESNET | settings
    options = filled(content["architecture"], content["options"], ARCHITECTURES)
    return Network.model_validate(content | {"options": options})


def built(
    head: str = "explicit", channels: int = 3, seed: int = 0, layer: dict | None = None, **settings
) -> Classifier:
    chosen = EquilibriumSettings.model_validate(equilibrium(**(layer or {}))) if head == "equilibrium" else None
    return build(network(head, **settings), chosen, channels, 10, seed, SIZE)


def images(count: int = 3, channels: int = 3) -> torch.Tensor:
    return torch.rand(count, channels, *SIZE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("name", "last"), [("resnet18", "fc"), ("shufflenet_v2_x0_5", "fc"), ("mobilenet_v3_small", "classifier.3")]
)
@torch.no_grad()
def test_a_network_of_torchvision_is_torchvisions_with_its_features(name, last):
    torch.manual_seed(3)
    theirs = get_model(name, num_classes=10).eval()
    ours = folded(built(architecture=name, seed=3))
    read = []
    theirs.get_submodule(last).register_forward_pre_hook(lambda module, inputs: read.append(inputs[0]))
    assert torch.equal(ours(images()), theirs(images()))
    assert torch.equal(ours.features(images()), read[0])


@torch.no_grad()
def test_grey_images_are_repeated_for_torchvision():
    ours = built(architecture="shufflenet_v2_x0_5", channels=1).eval()
    grey = images(channels=1)
    assert torch.equal(ours(grey), ours(grey.repeat(1, 3, 1, 1)))


def test_options_reach_torchvision():
    widths = [built(architecture="resnet18", options={"width_per_group": 64}).linear.in_features]
    with pytest.raises(ValueError, match=r"network\.options: torchvision's resnet18 refuses {'depth': 3}"):
        built(architecture="resnet18", options={"depth": 3})
    assert widths == [512]


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"architecture": "resnet18"}, [f"encoder.network.layer{n}" for n in (1, 2, 3, 4)]),
        ({"architecture": "resnet18", "head": "equilibrium", "cut": "layer2"}, ["encoder.network.layer1",
                                                                                "encoder.network.layer2"]),
        ({"architecture": "mlp"}, [f"encoder.network.layers.{n}" for n in (0, 1, 2)]),
        ({"stages": 3}, ["encoder.stages.0", "encoder.stages.1"]),
    ],
)  # fmt: skip
def test_stages_are_the_blocks(settings, found):
    ours = built(**settings)
    assert stage_names(ours, "stages") == found
    assert stage_names(ours, "features") == []


def test_layers_may_be_named(own):
    ours = built(architecture=f"{own}:Net")
    assert stage_names(ours, ["first.0"]) == ["encoder.network.first.0"]
    assert stage_names(ours, "stages") == ["encoder.network.first", "encoder.network.second"]


@torch.no_grad()
def test_the_mlp_is_its_matrices():
    ours = built(architecture="mlp", options={"width": 7, "depth": 2}).double().eval()
    x = images().double().flatten(1)
    for number in (0, 1):
        linear = ours.get_submodule(f"encoder.network.layers.{number}.0")
        x = (x @ linear.weight.T + linear.bias).clamp(min=0)
    torch.testing.assert_close(ours.features(images().double()), x, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours(images().double()), x @ ours.linear.weight.T + ours.linear.bias)


@torch.no_grad()
@pytest.mark.parametrize("name", ["Net", "line"])
def test_a_network_of_ones_own_is_read_before_the_layer_that_runs_last(own, name):
    ours = built(architecture=f"{own}:{name}").eval()
    whole = built(architecture=f"{own}:{name}").encoder.network
    assert ours.linear.out_features == 10
    assert torch.equal(ours.features(images()), whole.eval()(images()))
    assert ours.features(images()).shape[1] == ours.linear.in_features


def test_the_seed_draws_every_weight(own):
    one, same, other = (built(architecture=f"{own}:line", seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("has", [True, False])
def test_network_bias_decides_on_the_bias(own, bias, has):
    ours = built(architecture=f"{own}:Net", options={"bias": has}, bias=bias)
    assert (ours.linear.bias is not None) is bias


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Softmax", "does not end in a linear layer (nn.Linear); classifier is the last, and its output is changed"),
        ("Convolutions", "does not end in a linear layer (nn.Linear)"),
        ("alone", "returns 2×3×16×10 for 2×3×16×16, not N×10"),
        ("seven", "returns 2×7 for 2×3×16×16, not N×10"),
        ("nothing", "must return an nn.Module, and returned NoneType"),
        ("narrow", "is called with (channels, num_classes), but its signature is (channels)"),
    ],
)
def test_what_has_no_features_is_refused(own, name, words):
    with pytest.raises(ValueError) as caught:
        built(architecture=f"{own}:{name}")
    assert words in str(caught.value)
    assert str(caught.value).startswith("network.architecture: ")


@torch.no_grad()
def test_the_equilibrium_head_reads_the_cut(own):
    explicit = built(architecture="resnet18")
    deq = built("equilibrium", architecture="resnet18", cut="layer2").eval()
    for name, weights in deq.encoder.state_dict().items():
        assert torch.equal(weights, explicit.encoder.state_dict()[name]), name
    seen = []
    explicit.eval().encoder.network.layer2.register_forward_hook(lambda module, inputs, output: seen.append(output))
    explicit(images())
    assert torch.equal(deq.encoder(images()), seen[0])
    assert not [name for name, _ in deq.encoder.named_parameters() if "layer3" in name or "layer4" in name]
    assert deq.head.dim == 256


@torch.no_grad()
def test_features_at_a_cut_are_images_of_one_pixel():
    explicit = built(architecture="mlp", options={"width": 8})
    deq = built("equilibrium", architecture="mlp", options={"width": 8}, cut="layers.1").eval()
    hidden = explicit.encoder.network.layers[:2](images().flatten(1))
    assert torch.equal(deq.encoder(images())[..., 0, 0], hidden)
    assert deq(images()).shape == (3, 10)


@pytest.mark.parametrize(
    ("cut", "words"),
    [("frist", "no submodule of the network (did you mean first?)"), ("tokens", "tokens returns 2×16×256")],
)
def test_a_cut_that_leads_nowhere_is_refused(own, cut, words):
    with pytest.raises(ValueError) as caught:
        built("equilibrium", architecture=f"{own}:Tokens", cut=cut)
    assert words in str(caught.value)


@torch.no_grad()
def test_a_layer_of_ones_own_is_solved(own):
    layer = {"layer": f"{own}:Layer", "options": {"bound": 0.25}, "hidden": None}
    ours = built("equilibrium", layer=layer).double().eval()
    x = ours.head.injected(ours.encoder(images().double()))
    z = torch.zeros_like(x)
    for _ in range(60):
        z = x + 0.25 * torch.tanh(z)
    torch.testing.assert_close(ours.head.equilibrium(x), z, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("dim", [4, 9])
def test_etf_rows_are_a_simplex_etf(classes, dim):
    from eqcollapse.networks.rows import etf_rows

    rows = etf_rows(classes, dim, 3.0).double()
    gram = rows @ rows.T
    expected = 9 * classes / (classes - 1) * (torch.eye(classes, dtype=torch.float64) - 1 / classes)
    torch.testing.assert_close(gram, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(gram / gram.norm(), simplex_etf(classes).double(), rtol=0, atol=1e-6)


def test_an_etf_without_room_is_refused():
    with pytest.raises(ValueError, match=r"network\.classifier: etf needs features of at least 9 dimensions"):
        built(architecture="mlp", options={"width": 8}, classifier="etf")


@pytest.mark.parametrize("architecture", ["resnet", "mlp"])
def test_a_fixed_etf_is_not_trained_and_its_bias_is(architecture):
    ours = built(architecture=architecture, classifier="etf", classifier_norm=2.0)
    before = ours.linear.weight.clone(), ours.linear.bias.clone()
    optimizer = torch.optim.SGD(ours.parameters(), lr=0.1, weight_decay=0.1)
    nn.functional.cross_entropy(ours(images()), torch.tensor([0, 1, 2])).backward()
    optimizer.step()
    assert torch.equal(ours.linear.weight, before[0])
    assert not torch.equal(ours.linear.bias, before[1])
    torch.testing.assert_close(before[0].norm(dim=1), torch.full((10,), 2.0))


@torch.no_grad()
def test_cosine_logits_are_cosines():
    plain = built(bias=False).double().eval()
    ours = built(bias=False, classifier="cosine", classifier_norm=16.0).double().eval()
    h, rows = plain.features(images().double()), plain.linear.weight
    cosines = torch.nn.functional.cosine_similarity(h[:, None], rows[None], dim=2)
    torch.testing.assert_close(ours(images().double()), 16 * cosines, rtol=1e-10, atol=1e-10)
    assert torch.allclose(ours.features(images().double()).norm(dim=1), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(ours.linear(ours.features(images().double())), ours(images().double()))
    torch.testing.assert_close(ours.linear.weight.norm(dim=1), torch.full((10,), 16.0, dtype=torch.float64))
