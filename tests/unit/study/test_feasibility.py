"""What settings cannot do together is said before any job, and it is what the jobs would run into."""

import inspect

import pytest
import torch

from eqcollapse.equilibrium import ContractiveConv, Equilibrium, ResidualConv, SolverConfig, solve
from eqcollapse.networks.classifier import build
from eqcollapse.runtime.errors import EqcollapseError
from eqcollapse.study.feasibility import GROUPS
from eqcollapse.study.mappings import merged
from eqcollapse.study.params import parse


def faults(content: dict, change: dict) -> list[str]:
    """Return what is said of params.yaml with `change` laid over it."""
    try:
        parse(merged(content, change))
    except EqcollapseError as error:
        return str(error).splitlines()
    return []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"equilibrium": {"hidden": 30}}, ["equilibrium.hidden (model deq)", "30", "multiple of 8", "24 and 32"]),
        ({"models": {"deq": {"equilibrium": {"hidden": 4}}}}, ["equilibrium.hidden (model deq)", "4", "multiple of 8"]),
        ({"network": {"width": 3}, "equilibrium": {"hidden": None}}, ["network.width (model deq)", "3", "12 channels"]),
        ({"network": {"width": 3}, "equilibrium": {"layer": "residual"}}, ["network.width (model deq)", "12 channels"]),
        (
            {"equilibrium": {"forward": {"max_iter": 1}}},
            ["equilibrium.forward.max_iter (model deq)", "1", "at least 2"],
        ),
        ({"equilibrium": {"forward": {"tol": 1.0}}}, ["equilibrium.forward.tol (model deq)", "1", "below 1"]),
        ({"datasets": {"digits": {"per_class": 1}}}, ["datasets.digits.per_class", "1", "at least 2"]),
        (
            {"datasets": {"digits": {"per_class": 4}}, "splits": {"validation": 0.75}},
            ["datasets.digits.per_class", "4", "0.75", "leaves 1"],
        ),
        (
            {"models": {"mse": {"train": {"batch_size": 1}}}},
            ["train.batch_size (model mse)", "1", "digits", "8 x 8", "at least 2"],
        ),
    ],
)
def test_what_cannot_work_is_said_by_its_key(content, change, words):
    lines = faults(content, change)
    assert any(all(word in line for word in words) for line in lines), lines


@pytest.mark.parametrize(
    "change",
    [
        {"network": {"width": 3}},  # the hidden channels alone are normalised by group
        {"equilibrium": {"gradient": "unrolled", "forward": {"max_iter": 1}}},
        {"equilibrium": {"forward": {"criterion": "absolute", "tol": 2.0}}},
        {"equilibrium": {"hidden": 30}, "experiments": {"a": {"models": ["explicit"]}}, "models": {"deq": None}},
        {"datasets": {"digits": {"per_class": 2}}},
        {"models": {"deq": {"train": {"batch_size": 1}}}},
    ],
)
def test_what_works_is_let_through(content, change):
    assert faults(content, change) == []


def test_the_groups_are_those_of_the_layers():
    for layer in (ContractiveConv, ResidualConv):
        assert inspect.signature(layer).parameters["groups"].default == GROUPS


@pytest.mark.parametrize("layer", ["contractive", "residual"])
@pytest.mark.parametrize("hidden", [None, 4, 8, 12, 16])
@pytest.mark.parametrize("width", [1, 2, 3, 4, 6])
def test_a_network_is_refused_where_it_cannot_be_built(content, layer, hidden, width):
    change = {"network": {"width": width}, "equilibrium": {"layer": layer, "hidden": hidden}}
    model = merged(content, {"network": {"width": 8}, "equilibrium": {"hidden": None}})
    settings = parse(model).resolved("deq")
    network = settings.network.model_copy(update=change["network"])
    equilibrium = settings.equilibrium.model_copy(update=change["equilibrium"])
    try:
        build(network, equilibrium, 1, 10, 0)
        built = True
    except ValueError:
        built = False
    assert (faults(content, change) == []) == built


def test_one_evaluation_and_a_tolerance_of_one_stay_at_the_start():
    layer = Equilibrium(ContractiveConv(8), forward=SolverConfig(max_iter=1))
    x = torch.rand(2, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    assert not layer(x).any()
    assert not solve(lambda z: z / 2 + 1, torch.zeros(2, 3), tol=1.0, criterion="relative", max_iter=9).z.any()
