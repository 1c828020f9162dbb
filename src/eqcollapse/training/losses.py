"""The losses of the papers, as means over the batch of logits N×K with labels N."""

from collections.abc import Callable

from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss, one_hot


def squared_error(logits: Tensor, labels: Tensor) -> Tensor:
    """Return 1/(2N) ||logits - Y||_F^2, Y the one-hot labels (Tirer & Bruna 2022, eq. 1)."""
    targets = one_hot(labels, logits.shape[1]).to(logits.dtype)
    return 0.5 * (logits - targets).square().sum(dim=1).mean()


def mean_squared_error(logits: Tensor, labels: Tensor) -> Tensor:
    """Return 1/(NK) ||logits - Y||_F^2, the mean over all entries, as Zhu et al. 2021 train by: 2/K of the other."""
    return mse_loss(logits, one_hot(labels, logits.shape[1]).to(logits.dtype))


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "ce": cross_entropy,
    "mse": squared_error,
    "mse-mean": mean_squared_error,
}
