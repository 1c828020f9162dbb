"""The documented examples run, and the study's demo in small: digits, with the guaranteed layer."""

import doctest

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from eqcollapse import equilibrium
from eqcollapse.equilibrium import ContractiveConv, Equilibrium, SolverConfig


def test_the_packages_examples():
    torch.manual_seed(0)
    result = doctest.testmod(equilibrium)
    assert result.attempted >= 9
    assert result.failed == 0


@pytest.mark.slow
@pytest.mark.parametrize("size", [4, 2])
def test_digits_are_learnt_at_equilibria_throughout(size):
    """SGD at the demo's scale: training accuracy about 1, and every sample of every epoch converged."""
    from sklearn.datasets import load_digits

    torch.manual_seed(0)
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 8 - 1
    labels = torch.tensor(digits.target)
    config = SolverConfig(freeze=False)
    head = Equilibrium(ContractiveConv(32), config, config)
    model = nn.Sequential(*encoder(size), head, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))
    optimiser = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs := 20)
    for _ in range(epochs):
        head.statistics.reset()
        for batch in torch.randperm(len(images)).split(128):
            optimiser.zero_grad()
            F.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimiser.step()
        schedule.step()
        summary = head.statistics.summary()
        assert summary["solver_converged"] == summary["adjoint_converged"] == 1.0
        assert head.layer.contraction((size, size)).certified <= 0.9 * (1 + 1e-5)
    model.eval()
    with torch.no_grad():
        assert (model(images).argmax(1) == labels).float().mean() > 0.998


def encoder(size: int) -> list[nn.Module]:
    layers: list[nn.Module] = [nn.Conv2d(1, 32, 3, padding=1, bias=False), nn.GroupNorm(8, 32), nn.ReLU()]
    for _ in range({4: 1, 2: 2}[size]):
        layers += [nn.Conv2d(32, 32, 3, stride=2, padding=1, bias=False), nn.GroupNorm(8, 32), nn.ReLU()]
    return layers
