"""The two losses of the papers, as means over the batch of logits N×K with labels N."""

from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot


def squared_error(logits: Tensor, labels: Tensor) -> Tensor:
    """Return 1/(2N) ||logits - Y||_F^2, Y the one-hot labels (Tirer & Bruna 2022, eq. 1)."""
    targets = one_hot(labels, logits.shape[1]).to(logits.dtype)
    return 0.5 * (logits - targets).square().sum(dim=1).mean()


LOSSES = {"ce": cross_entropy, "mse": squared_error}
