"""Linear classifiers whose rows have one norm: the fixed simplex ETF, and learnt rows of a cosine classifier."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize


class CosineLinear(nn.Module):
    """`norm` times the cosines of features and learnt rows, plus a bias: unit features N×d -> logits N×K.

    The features come with norm 1 already (see `Classifier`); `weight` (K×d) are the rows as they act.
    """

    def __init__(self, weight: Tensor, bias: nn.Parameter | None, norm: float):
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.norm = norm
        self.direction = nn.Parameter(weight.detach().clone())
        self.bias = bias

    @property
    def weight(self) -> Tensor:
        """The rows (K×d), each of norm `norm`."""
        return self.norm * normalize(self.direction, dim=1)

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits."""
        return linear(features, self.weight, self.bias)


def etf_rows(num_classes: int, dim: int, norm: float) -> Tensor:
    """Return the rows of a simplex ETF (K×d), each of norm `norm`, turned at random in the d dimensions.

    W W^T = norm^2 K/(K-1) (I - 11^T/K). Raises ValueError where d < K - 1, which have no room for it.
    """
    if dim < num_classes - 1:
        raise ValueError(
            f"network.classifier: etf needs features of at least {num_classes - 1} dimensions for {num_classes} "
            f"classes, and there are {dim}"
        )
    # In float64: columns of the first are orthonormal and orthogonal to 1, those of the second are a random frame.
    simplex = torch.linalg.qr(torch.eye(num_classes, dtype=torch.float64) - 1 / num_classes).Q[:, :-1]
    drawn, triangle = torch.linalg.qr(torch.randn(dim, num_classes - 1, dtype=torch.float64))
    frame = drawn * triangle.diagonal().sign()
    return norm * math.sqrt(num_classes / (num_classes - 1)) * (simplex @ frame.T).float()


def with_rows(found: nn.Linear, kind: str, norm: float, bias: bool) -> nn.Linear | CosineLinear:
    """Return the classifier `kind` (linear, etf or cosine) in the place of `found`, whose draw the learnt ones keep."""
    if not bias:
        found.register_parameter("bias", None)
    elif found.bias is None:
        found.bias = nn.Parameter(found.weight.new_zeros(found.out_features))
    if kind == "cosine":
        return CosineLinear(found.weight, found.bias, norm)
    if kind == "etf":
        found.weight = nn.Parameter(etf_rows(found.out_features, found.in_features, norm), requires_grad=False)
    return found
