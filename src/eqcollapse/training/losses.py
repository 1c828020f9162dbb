"""The losses, as means over the batch of logits N×K with labels N; `class_counts` (K) are of the training samples."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss, one_hot

from eqcollapse.runtime.references import imported_callable, is_reference

Loss = Callable[..., Tensor]
"""`(logits, labels, class_counts, **options)` -> the loss, one number."""


def smoothed_cross_entropy(
    logits: Tensor, labels: Tensor, class_counts: Tensor, *, label_smoothing: float, class_balanced: float
) -> Tensor:
    """Return cross-entropy, of labels smoothed as in Szegedy et al. 2016, the samples weighted by `class_weights`."""
    weight = class_weights(class_counts, class_balanced, logits.dtype)
    return cross_entropy(logits, labels, weight, label_smoothing=label_smoothing)


def squared_error(logits: Tensor, labels: Tensor, class_counts: Tensor) -> Tensor:
    """Return 1/(2N) ||logits - Y||_F^2, Y the one-hot labels (Tirer & Bruna 2022, eq. 1)."""
    targets = one_hot(labels, logits.shape[1]).to(logits.dtype)
    return 0.5 * (logits - targets).square().sum(dim=1).mean()


def mean_squared_error(logits: Tensor, labels: Tensor, class_counts: Tensor) -> Tensor:
    """Return 1/(NK) ||logits - Y||_F^2, the mean over all entries, as Zhu et al. 2021 train by: 2/K of the other."""
    return mse_loss(logits, one_hot(labels, logits.shape[1]).to(logits.dtype))


def focal(logits: Tensor, labels: Tensor, class_counts: Tensor, *, gamma: float, class_balanced: float) -> Tensor:
    """Return the mean of -(1 - p_y)^gamma log p_y (Lin et al. 2017, eq. 4), weighted as cross-entropy is."""
    log_p = logits.log_softmax(dim=1).gather(1, labels[:, None])[:, 0]
    each = -(1 - log_p.exp()).pow(gamma) * log_p
    weight = class_weights(class_counts, class_balanced, logits.dtype)
    return each.mean() if weight is None else (weight[labels] * each).sum() / weight[labels].sum()


def logit_adjusted(logits: Tensor, labels: Tensor, class_counts: Tensor, *, tau: float) -> Tensor:
    """Return cross-entropy of logits + tau log prior (Menon et al. 2021, section 4); decisions are by the logits."""
    prior = class_counts.to(logits.dtype) / class_counts.sum()
    return cross_entropy(logits + tau * prior.log(), labels)


def ldam(
    logits: Tensor,
    labels: Tensor,
    class_counts: Tensor,
    *,
    max_margin: float,
    scale: float,
    class_balanced: float,
) -> Tensor:
    """Return cross-entropy of scale (logits - Delta_y e_y), Delta_j = C / n_j^(1/4) (Cao et al. 2019, section 3).

    C makes the largest margin `max_margin`. Their code has logits that are cosines (`network.classifier: cosine`).
    """
    margins = class_counts.to(logits.dtype).pow(-0.25)
    margins = margins * (max_margin / margins.max())
    held = logits - one_hot(labels, logits.shape[1]).to(logits.dtype) * margins
    return cross_entropy(scale * held, labels, class_weights(class_counts, class_balanced, logits.dtype))


LOSSES: dict[str, Loss] = {
    "ce": smoothed_cross_entropy,
    "mse": squared_error,
    "mse-mean": mean_squared_error,
    "focal": focal,
    "logit-adjusted": logit_adjusted,
    "ldam": ldam,
}


def class_weights(class_counts: Tensor, beta: float, dtype: torch.dtype) -> Tensor | None:
    """Return the weights (K, sum K) of the classes, in proportion to (1 - beta) / (1 - beta^n) (Cui et al. 2019).

    None for beta = 0, where all are 1.
    """
    if not beta:
        return None
    weights = 1 / -torch.expm1(class_counts.double() * math.log(beta))  # 1 - beta^n would lose digits near 1
    return (weights * (len(weights) / weights.sum())).to(dtype)


def loss_in(epoch: int, name: str, options: dict[str, Any], class_counts: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the loss `name` of (logits, labels) as it is in `epoch`, from 1.

    Deferred re-weighting (Cao et al. 2019, algorithm 1): up to epoch `deferred` all classes have the same weight.
    """
    chosen = dict(options)
    if is_reference(name):
        loss = imported_callable(name)
    else:
        loss = LOSSES[name]
        if epoch <= chosen.pop("deferred", 0):
            chosen["class_balanced"] = 0.0
    return lambda logits, labels: loss(logits, labels, class_counts, **chosen)


def feature_penalty(features: Tensor, decay: float) -> Tensor:
    """Return decay/2 times the mean over the batch of ||h||^2, h the rows of `features` (N×d).

    Weight decay on the features, as the layer-peeled and the unconstrained features model have it (Fang et al. 2021;
    Tirer & Bruna 2022, eq. 1, has decay = N lambda_H).
    """
    return 0.5 * decay * features.square().sum(dim=1).mean()
