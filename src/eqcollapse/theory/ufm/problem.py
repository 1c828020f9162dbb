"""The objective of Tirer & Bruna (2022) as a value: sizes, activation, bias, loss and the lambdas."""

import math
from dataclasses import dataclass

from eqcollapse.theory.config import UnconstrainedFeatures


@dataclass(frozen=True)
class Problem:
    """An (extended) unconstrained features model with L weight matrices and free features H.

    The objective, with N = K n samples and the class-major targets Y = I_K (x) 1_n^T, is

        fit(W_L s(W_{L-1} ... s(W_1 H)) + b 1^T, Y)
          + sum_l lambda_l / 2 ||W_l||_F^2 + lambda_H / 2 ||H||_F^2 + lambda_b / 2 ||b||^2,

    fit = ||. - Y||_F^2 / (2N) for `mse` (Tirer & Bruna 2022, eq. 2 and 5) and the mean cross-entropy for `ce`
    (Zhu et al. 2021, eq. 3); s is the identity or ReLU and stands between the layers, so that it has no part
    in L = 1. W_L is K x d, the other W_l are d x d, H is d x N. What the values may be is for `UnconstrainedFeatures`
    (config.py) to say.
    """

    num_classes: int
    dim: int
    per_class: int
    layers: int
    activation: str
    bias: str
    loss: str
    lambda_weights: tuple[float, ...]
    lambda_features: float
    lambda_bias: float

    @property
    def num_samples(self) -> int:
        """N = K n."""
        return self.num_classes * self.per_class

    @property
    def frame(self) -> str:
        """What class means collapse to: `orthogonal` (squared error, no bias) or else `simplex` (the ETF)."""
        return "orthogonal" if self.loss == "mse" and self.bias == "none" else "simplex"

    @property
    def is_linear(self) -> bool:
        """Whether no activation acts: identity, or a single layer."""
        return self.activation == "identity" or self.layers == 1

    @property
    def penalty(self) -> float:
        """P^(1/F) with P = n lambda_H prod_l lambda_l and F = L + 1: the price of the class-mean output Z.

        At fixed Z the cheapest factors cost F/2 P^(1/F) sum_i s_i(Z)^(2/F), a Schatten 2/F quasi-norm.
        """
        log_product = math.log(self.per_class * self.lambda_features) + sum(map(math.log, self.lambda_weights))
        return math.exp(log_product / (self.layers + 1))


def from_spec(spec: UnconstrainedFeatures) -> Problem:
    """Return the problem of an experiment; `lambda_weights`: one number for all layers, or a list."""
    weights = spec.lambda_weights
    return Problem(
        num_classes=spec.num_classes,
        dim=spec.dim,
        per_class=spec.per_class,
        layers=spec.layers,
        activation=spec.activation,
        bias=spec.bias,
        loss=spec.loss,
        lambda_weights=tuple(weights) if isinstance(weights, list) else (weights,) * spec.layers,
        lambda_features=spec.lambda_features,
        lambda_bias=spec.lambda_bias,
    )
