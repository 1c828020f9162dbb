"""What a DEQ's accuracy is without its solver, and with its equilibrium solved to 1e-8."""

import pytest
import torch
from torch import nn
from torch.nn.functional import relu

from eqcollapse.data.splits import read_split
from eqcollapse.data.store import read_dataset
from eqcollapse.training.config import TrainSpec
from eqcollapse.training.job import new_cell
from eqcollapse.training.log import TrainingLog
from eqcollapse.training.solver_accuracy import solver_accuracy
from eqcollapse.training.trainer import Cell, train_epoch

CPU = torch.device("cpu")


class Rolled(nn.Module):
    """f(z, x) = 0.9 P z + x, P a turn of the channels: its equilibrium (I - 0.9 P)^-1 x is far from f(0, x) = x."""

    def forward(self, z, x):
        return 0.9 * z.roll(1, dims=1) + x


@pytest.fixture
def cell(spec, files) -> Cell:
    """A trained cell whose layer is then another one, far from its equilibrium after one application."""
    train, test, split = files
    spec["train"] |= {"epochs": 2, "lr": 0.05}
    spec["snapshots"]["epochs"] = [2]
    cell = new_cell(TrainSpec.model_validate(spec), read_dataset(train), read_dataset(test), read_split(split), CPU)
    while cell.epoch < 2:
        train_epoch(cell, TrainingLog())
    cell.network.head.equilibrium.layer = Rolled()
    return cell


@torch.no_grad()
def accuracy_after(cell: Cell, applications: int) -> float:
    """The test accuracy after so many plain applications of the layer from z = 0, in float64."""
    network, right, total = cell.network.double().eval(), 0, 0
    head = network.head
    for images, labels in cell.test.ordered():
        f = head.equilibrium.layer_at(head.injected(network.encoder(images.double())))
        z = torch.zeros_like(head.injected(network.encoder(images.double())))
        for _ in range(applications):
            z = f(z)
        logits = network.linear(relu(head.norm_out(z)).mean(dim=(2, 3)))
        right, total = right + int((logits.argmax(1) == labels).sum()), total + len(labels)
    cell.network.float()
    return right / total


def test_skipped_is_one_application_and_solved_the_fixed_point_of_plain_iteration(cell):
    found, answers = solver_accuracy(cell)
    one, many = accuracy_after(cell, 1), accuracy_after(cell, 500)
    assert one != many
    assert (found["skipped_accuracy"], found["solved_accuracy"]) == (one, many)
    assert found["solved_converged"] == 1.0
    assert {way: right.double().mean().item() for way, right in answers.items()} == {"skipped": one, "solved": many}


def test_the_cell_is_left_as_it_was(cell):
    before = {name: value.clone() for name, value in cell.network.state_dict().items()}
    solvers = [part.forward_solver for part in cell.equilibria]
    solver_accuracy(cell)
    assert all(torch.equal(before[name], value) for name, value in cell.network.state_dict().items())
    assert [part.forward_solver for part in cell.equilibria] == solvers
    assert not any(part._forward_hooks for part in cell.equilibria)


def test_an_explicit_network_has_none(spec, files):
    train, test, split = files
    spec["network"]["head"], spec["equilibrium"] = "explicit", None
    cell = new_cell(TrainSpec.model_validate(spec), read_dataset(train), read_dataset(test), read_split(split), CPU)
    assert solver_accuracy(cell) == ({}, {})
