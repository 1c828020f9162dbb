"""Each loss is its formula, computed anew in float64."""

import numpy as np
import pytest
import torch
from mpmath import mp, mpf
from torch import nn

from eqcollapse.study import options as known
from eqcollapse.training.config import LossName
from eqcollapse.training.losses import LOSSES, class_weights, feature_penalty, loss_in

COUNTS = torch.tensor([500, 100, 20, 4])
DRAW = np.random.default_rng(0)
LOGITS = DRAW.normal(size=(12, 4)) * 2
LABELS = np.arange(12) % 4


def ours(name: str, epoch: int = 1, **options) -> float:
    loss = loss_in(epoch, name, known.filled(name, options, known.LOSSES), COUNTS)
    return float(loss(torch.tensor(LOGITS), torch.tensor(LABELS)))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def picked(values: np.ndarray) -> np.ndarray:
    return values[np.arange(len(LABELS)), LABELS]


def effective(beta: float) -> np.ndarray:
    """Weights of classes as Cui et al. 2019 have them, with fifty digits."""
    mp.dps = 50
    weights = np.array([float((1 - mpf(beta)) / (1 - mpf(beta) ** int(n))) for n in COUNTS])
    return weights / weights.sum() * len(weights)


def weighted(each: np.ndarray, beta: float) -> float:
    weights = effective(beta)[LABELS] if beta else np.ones(len(LABELS))
    return float((weights * each).sum() / weights.sum())


def test_the_names_are_those_of_the_settings():
    from typing import get_args

    assert set(LOSSES) == set(known.LOSSES) == set(get_args(LossName))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_torchs(smoothing):
    expected = nn.CrossEntropyLoss(label_smoothing=smoothing)(torch.tensor(LOGITS), torch.tensor(LABELS))
    assert ours("ce", label_smoothing=smoothing) == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.9999])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_loss(gamma, beta):
    log_p = picked(log_softmax(LOGITS))
    expected = weighted(-((1 - np.exp(log_p)) ** gamma) * log_p, beta)
    assert ours("focal", gamma=gamma, class_balanced=beta) == pytest.approx(expected, rel=1e-9)
    if gamma == 0:
        assert ours("ce", class_balanced=beta) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("tau", [0.0, 1.0, 1.5])
def test_logit_adjustment(tau):
    prior = COUNTS.numpy() / COUNTS.numpy().sum()
    expected = -picked(log_softmax(LOGITS + tau * np.log(prior))).mean()
    assert ours("logit-adjusted", tau=tau) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("beta", [0.0, 0.99])
def test_ldam(beta):
    margins = 1 / COUNTS.numpy() ** 0.25
    margins = margins * (0.4 / margins.max())
    held = LOGITS.copy()
    held[np.arange(12), LABELS] -= margins[LABELS]
    expected = weighted(-picked(log_softmax(10 * held)), beta)
    assert ours("ldam", max_margin=0.4, scale=10, class_balanced=beta) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("beta", [0.5, 0.9, 0.999, 0.9999, 0.999999])
def test_weights_of_classes_are_those_of_effective_numbers(beta):
    np.testing.assert_allclose(class_weights(COUNTS, beta, torch.float64).numpy(), effective(beta), rtol=1e-9)


@pytest.mark.parametrize("name", ["ce", "focal", "ldam"])
def test_deferred_weights_begin_after_their_epoch(name):
    losses = [ours(name, epoch, class_balanced=0.99, deferred=5) for epoch in (1, 5, 6, 9)]
    assert losses[:2] == [ours(name)] * 2
    assert losses[2:] == [ours(name, class_balanced=0.99)] * 2


def test_squared_errors():
    residual = LOGITS - np.eye(4)[LABELS]
    assert ours("mse") == pytest.approx((residual**2).sum() / 24, rel=1e-12)
    assert ours("mse-mean") == pytest.approx((residual**2).mean(), rel=1e-12)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_gradients_are_those_of_differences(name):
    loss = loss_in(1, name, known.filled(name, {}, known.LOSSES), COUNTS)
    logits = torch.tensor(LOGITS[:5], requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: loss(z, torch.tensor(LABELS[:5])), logits)


def test_feature_decay_is_the_penalty_of_the_features_model():
    """N lambda/2 times the mean of ||h||^2 is lambda/2 ||H||_F^2."""
    features = torch.tensor(DRAW.normal(size=(6, 3)), requires_grad=True)
    penalty = feature_penalty(features, 6 * 0.01)
    assert penalty.item() == pytest.approx(0.005 * (features.detach().numpy() ** 2).sum(), rel=1e-12)
    penalty.backward()
    np.testing.assert_allclose(features.grad, 0.01 * features.detach().numpy(), rtol=1e-12)


def test_a_loss_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "own_loss_here.py").write_text(
        "def loss(logits, labels, class_counts, *, power):\n    return (class_counts[labels] ** power).sum()\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    loss = loss_in(1, "own_loss_here.py:loss", {"power": 2}, COUNTS)
    assert loss(torch.tensor(LOGITS), torch.tensor(LABELS)) == 3 * sum(n**2 for n in (500, 100, 20, 4))
