"""The learning rate against torch's own schedulers."""

import pytest
import torch
from torch.optim import lr_scheduler

from eqcollapse.training.config import Schedule
from eqcollapse.training.losses import mean_squared_error, squared_error
from eqcollapse.training.schedule import learning_rate

EPOCHS = 20


def schedule(**settings) -> Schedule:
    return Schedule.model_validate({"every": 1, "factor": 1.0, "warmup": 0, **settings})


@pytest.mark.parametrize(
    ("settings", "scheduler"),
    [
        ({"kind": "constant"}, lambda o: lr_scheduler.ConstantLR(o, 1.0)),
        ({"kind": "step", "every": 7, "factor": 0.1}, lambda o: lr_scheduler.StepLR(o, 7, 0.1)),
        ({"kind": "cosine"}, lambda o: lr_scheduler.CosineAnnealingLR(o, EPOCHS)),
    ],
)
def test_against_torch(settings, scheduler):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    theirs = scheduler(optimizer)
    for epoch in range(1, EPOCHS + 1):
        ours = learning_rate(schedule(**settings), 0.3, epoch, EPOCHS)
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        theirs.step()


def test_warmup_rises_linearly():
    settings = schedule(kind="constant", warmup=3)
    assert [learning_rate(settings, 1.0, epoch, 9) for epoch in (1, 2, 3, 4, 5)] == [
        0.25,
        0.5,
        0.75,
        1.0,
        1.0,
    ]


COUNTS = torch.tensor([2, 2, 1, 1])
"""Samples a class, which squared errors do not look at."""


def test_squared_error_is_paper_bs():
    logits = torch.tensor([[1.0, 2.0], [0.0, 1.0]])
    labels = torch.tensor([0, 1])
    expected = ((logits.T - torch.eye(2)[:, labels]) ** 2).sum() / (2 * 2)
    assert squared_error(logits, labels, COUNTS) == pytest.approx(expected.item())


def test_mean_squared_error_is_the_mean_over_all_entries():
    logits, labels = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 3, 0, 1])
    targets = torch.eye(4)[labels]
    mean = mean_squared_error(logits, labels, COUNTS).item()
    assert mean == pytest.approx(((logits - targets) ** 2).sum().item() / 24)
    assert mean == pytest.approx(2 / 4 * squared_error(logits, labels, COUNTS).item())
