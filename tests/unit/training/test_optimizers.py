"""Each optimiser takes the steps of its paper, computed anew in float64."""

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from eqcollapse.study.options import OPTIMIZERS, filled
from eqcollapse.training.config import Train
from eqcollapse.training.optimizers import optimizer
from projects import ROOT

LR, MOMENTUM, DECAY = 0.1, 0.8, 0.05
START = np.array([1.0, -2.0, 0.5])


def settings(**changes) -> Train:
    content = yaml.safe_load((ROOT / "params.yaml").read_text())["train"]
    return Train.model_validate(content | {"lr": LR, "momentum": MOMENTUM, "weight_decay": DECAY} | changes)


def gradient(w: np.ndarray) -> np.ndarray:
    """Of sum(w^4)/4."""
    return w**3


def stepped(train: Train, steps: int = 5) -> np.ndarray:
    weights = nn.Parameter(torch.tensor(START))
    descent = optimizer([weights], train, fused=False)
    for _ in range(steps):
        descent.zero_grad()
        (weights**4 / 4).sum().backward()
        descent.step()
    return weights.detach().numpy()


@pytest.mark.parametrize("nesterov", [False, True])
def test_stochastic_gradient_descent(nesterov):
    w, v = START.copy(), np.zeros(3)
    for step in range(5):
        g = gradient(w) + DECAY * w
        v = MOMENTUM * v + g if step else g
        w = w - LR * (g + MOMENTUM * v if nesterov else v)
    found = stepped(settings(optimizer="nesterov" if nesterov else "sgd"))
    np.testing.assert_allclose(found, w, rtol=1e-12)


def test_adamw():
    beta2, eps = 0.95, 1e-6
    w, m, v = START.copy(), np.zeros(3), np.zeros(3)
    for step in range(1, 6):
        g = gradient(w)
        w = w - LR * DECAY * w
        m = MOMENTUM * m + (1 - MOMENTUM) * g
        v = beta2 * v + (1 - beta2) * g**2
        w = w - LR * (m / (1 - MOMENTUM**step)) / (np.sqrt(v / (1 - beta2**step)) + eps)
    found = stepped(settings(optimizer="adamw", optimizer_options={"beta2": beta2, "eps": eps}))
    np.testing.assert_allclose(found, w, rtol=1e-10)


def test_adamw_by_default_is_torchs():
    weights = nn.Parameter(torch.tensor(START))
    group = torch.optim.AdamW([weights]).param_groups[0]
    options = filled("adamw", {}, OPTIMIZERS)
    assert (options["beta2"], options["eps"]) == (group["betas"][1], group["eps"])


def test_nesterov_without_momentum_is_refused():
    with pytest.raises(ValueError, match="momentum: 0 is not allowed with optimizer nesterov"):
        settings(optimizer="nesterov", momentum=0.0)
