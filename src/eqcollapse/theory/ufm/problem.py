"""The objective of Tirer & Bruna (2022) as a value: sizes, activation, bias, loss and the lambdas."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eqcollapse.runtime.errors import EqcollapseError

ACTIVATIONS = ("identity", "relu")
BIASES = ("none", "free", "regularised")
LOSSES = ("mse", "ce")


@dataclass(frozen=True)
class Problem:
    """An (extended) unconstrained features model with L weight matrices and free features H.

    The objective, with N = K n samples and the class-major targets Y = I_K (x) 1_n^T, is

        fit(W_L s(W_{L-1} ... s(W_1 H)) + b 1^T, Y)
          + sum_l lambda_l / 2 ||W_l||_F^2 + lambda_H / 2 ||H||_F^2 + lambda_b / 2 ||b||^2,

    fit = ||. - Y||_F^2 / (2N) for `mse` (Tirer & Bruna 2022, eq. 2 and 5) and the mean cross-entropy for `ce`
    (Zhu et al. 2021, eq. 3); s is the identity or ReLU and stands between the layers, so that it has no part
    in L = 1. W_L is K x d, the other W_l are d x d, H is d x N.

    Raises EqcollapseError for sizes below one, unknown options and lambdas that leave no minimum.
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

    def __post_init__(self) -> None:
        for name, least in (("num_classes", 2), ("dim", 1), ("per_class", 1), ("layers", 1)):
            if getattr(self, name) < least:
                raise EqcollapseError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        for name, known in (("activation", ACTIVATIONS), ("bias", BIASES), ("loss", LOSSES)):
            if getattr(self, name) not in known:
                raise EqcollapseError(f"{name} is {getattr(self, name)!r}; choose one of {', '.join(known)}")
        self._check_lambdas()

    def _check_lambdas(self) -> None:
        if len(self.lambda_weights) != self.layers:
            raise EqcollapseError(
                f"lambda_weights has {len(self.lambda_weights)} values for {self.layers} layers; give as many"
            )
        for value in (*self.lambda_weights, self.lambda_features):
            if not (math.isfinite(value) and value > 0):
                raise EqcollapseError(f"lambda_weights and lambda_features must be positive, not {value!r}")
        if (self.lambda_bias > 0) != (self.bias == "regularised") or not 0 <= self.lambda_bias < math.inf:
            raise EqcollapseError(
                f"lambda_bias is {self.lambda_bias!r} with bias {self.bias!r}; "
                "it is positive with bias 'regularised' and 0 otherwise"
            )

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


def from_spec(spec: dict[str, Any]) -> Problem:
    """Return the problem that a stage's spec asks for; `lambda_weights`: one number for all layers, or a list."""
    weights = spec["lambda_weights"]
    weights = tuple(weights) if isinstance(weights, Sequence) else (weights,) * spec["layers"]
    names = ("num_classes", "dim", "per_class", "layers", "activation", "bias", "loss")
    return Problem(
        **{name: spec[name] for name in names},
        lambda_weights=tuple(map(float, weights)),
        lambda_features=float(spec["lambda_features"]),
        lambda_bias=float(spec["lambda_bias"]),
    )
