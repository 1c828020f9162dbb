"""Closed-form minima of the (extended) unconstrained features model, and where none is known.

At a fixed class-mean output Z (K x K) the cheapest factors have equal features within a class and cost
F/2 P^(1/F) sum_i s_i(Z)^(2/F), P = n lambda_H prod_l lambda_l, F = L + 1 (arithmetic-geometric mean over the
factors; a Schatten 2/F quasi-norm). Squared error then splits over the singular values by von Neumann's trace
inequality.
"""

import math
from dataclasses import dataclass

from scipy.optimize import brentq

from eqcollapse.theory.ufm.lowrank import low_rank_cost
from eqcollapse.theory.ufm.problem import Problem
from eqcollapse.theory.ufm.search import lowest_found

ROUNDING = 1e-9
"""A found loss is lower than another when it is so by more than this share."""


@dataclass(frozen=True)
class Optimum:
    """The minimum of a Problem as far as it is known.

    loss: its value; None where no closed form is known, and then so are the next four.
    singular_value: s, shared by the `rank` directions of the class-mean output that carry the classes (0:
    they vanish).
    mean_value: the singular value t of the output along the all-ones direction.
    bias: every entry of b.
    status: `global` (proved); `stationary` (the value of full collapse, or of 0 where that is lower, not known to be
        the least); `beaten` (the same value, and strictly lower points are known); `unknown` (no closed form).
    lower: for `beaten`, the loss of a low-rank point (lowrank.py; search.py for cross-entropy), else None.
    reason: why, in a sentence.
    """

    loss: float | None
    singular_value: float | None
    rank: int | None
    mean_value: float | None
    bias: float | None
    status: str
    lower: float | None
    reason: str


def optimum(problem: Problem) -> Optimum:
    """Return the closed-form minimum of `problem`, or an Optimum of status `unknown` with the reason."""
    obstacle = _obstacle(problem)
    if obstacle:
        return Optimum(None, None, None, None, None, "unknown", None, obstacle)
    loss, s, rank, t, bias = _squared_error(problem) if problem.loss == "mse" else _cross_entropy(problem)
    status, lower, reason = _standing(problem, loss, s)
    return Optimum(loss, s, rank, t, bias, status, lower, reason)


def _obstacle(problem: Problem) -> str | None:
    K, d = problem.num_classes, problem.dim
    if not problem.is_linear and problem.frame == "simplex":
        return "non-negative features form no simplex ETF: no closed form with a bias or cross-entropy"
    if not problem.is_linear and d < K:
        return f"a non-negative orthogonal frame of {K} classes needs dim >= {K}"
    if problem.loss == "ce" and d < K - 1:
        return f"a simplex ETF of {K} classes needs dim >= {K - 1}"
    if problem.loss == "mse" and problem.bias == "regularised" and d < K:
        return f"with a regularised bias the closed form needs dim >= {K}"
    return None


def _squared_error(problem: Problem) -> tuple[float, float, int, float, float]:
    """Tirer & Bruna (2022), theorems 3.1, 3.2 and 4.1, and the regularised bias in between.

    The bias, minimised out, multiplies the fit along the all-ones direction by kappa = lambda_b / (1 +
    lambda_b): 1 without a bias, 0 with a free one.
    """
    K, factors, penalty = problem.num_classes, problem.layers + 1, problem.penalty
    kappa = {"none": 1.0, "free": 0.0, "regularised": problem.lambda_bias / (1 + problem.lambda_bias)}[problem.bias]
    s, value = _least(K, factors, penalty, 1.0)
    t, mean_value = _least(K, factors, penalty, kappa)
    directions = K if problem.bias == "none" else K - 1
    rank = min(problem.dim, directions)
    loss = rank * value + (directions - rank) / (2 * K)
    if problem.bias == "none":
        return loss, s, rank, s if rank == K else 0.0, 0.0
    bias = (1 - t) / (K * (1 + problem.lambda_bias))
    return loss + mean_value, s, rank, t, bias


def _least(K: int, factors: int, penalty: float, kappa: float) -> tuple[float, float]:
    """Minimise kappa (s - 1)^2 / (2 K) + F / 2 P^(1/F) s^(2/F) over s >= 0: the s and the value there.

    A stationary s solves s^(1 - 2/F) (1 - s) = K P^(1/F) / kappa; the left side peaks at (F - 2) / (2 F - 2),
    and the minimum is the root above the peak, or 0.
    """
    at_zero = kappa / (2 * K)
    if kappa == 0:
        return 0.0, at_zero
    power, target = 1 - 2 / factors, K * penalty / kappa
    peak = (factors - 2) / (2 * factors - 2)

    def excess(s: float) -> float:
        return s**power * (1 - s) - target

    if excess(peak) <= 0:
        return 0.0, at_zero
    s = 1 - target if factors == 2 else brentq(excess, peak, 1.0, xtol=1e-16, rtol=1e-15)
    value = kappa * (s - 1) ** 2 / (2 * K) + factors / 2 * penalty * s ** (2 / factors)
    return (s, value) if value < at_zero else (0.0, at_zero)


def _cross_entropy(problem: Problem) -> tuple[float, float, int, float, float]:
    """Z = s (I - 11^T/K) has the loss log(1 + (K - 1) e^-s) + (K - 1) F/2 P^(1/F) s^(2/F); b = 0 is best.

    F = 2: the global minimum (Zhu et al. 2021, theorem 3.1), e^-s = sqrt(P) / (1 - (K - 1) sqrt(P)).
    """
    K, factors, penalty = problem.num_classes, problem.layers + 1, problem.penalty

    def slope(s: float) -> float:
        """The (K - 1)th part of minus the derivative, times s^(1 - 2/F)."""
        return s ** (1 - 2 / factors) * math.exp(-s) / (1 + (K - 1) * math.exp(-s)) - penalty

    def value(s: float) -> float:
        return math.log1p((K - 1) * math.exp(-s)) + (K - 1) * factors / 2 * penalty * s ** (2 / factors)

    peak = max((step / 100 for step in range(1, 1001)), key=slope) if factors > 2 else 0.0
    s = brentq(slope, peak, 700.0, xtol=1e-15, rtol=1e-15) if slope(peak) > 0 else 0.0
    s = s if value(s) < math.log(K) else 0.0
    return value(s), s, K - 1, 0.0, 0.0


def _standing(problem: Problem, loss: float, s: float) -> tuple[str, float | None, str]:
    """Return status, lower and reason of a value that has a closed form."""
    K, L = problem.num_classes, problem.layers
    if problem.loss == "ce":
        if L == 1:
            return "global", None, "one layer with cross-entropy: Zhu et al. (2021), theorem 3.1"
        lower = lowest_found(K, L + 1, problem.penalty, problem.dim)[0]
        if lower < loss * (1 - ROUNDING):
            return "beaten", lower, "low-rank points lie lower (Garrod & Keating 2025); `lower` is the loss of one"
        return "stationary", None, "a search found no lower point; deep cross-entropy models can have some"
    if problem.bias == "regularised" and L > 1:
        return "stationary", None, "proved for one layer (convex in the output); deeper ones by descent only"
    if problem.is_linear:
        return "global", None, "the fit and the quasi-norm split over the singular values of the output"
    if K == 2:
        return "global", None, "deep collapse is optimal for two classes (Sukenik et al. 2023)"
    if L == 2:
        return (
            "global",
            None,
            "a non-negative orthogonal frame reaches the linear minimum; with two layers no point is lower "
            "(Tirer & Bruna 2022, section 4; Sukenik et al. 2024, section 1)",
        )
    return _standing_of_deep_relu(problem, loss, s)


def _standing_of_deep_relu(problem: Problem, loss: float, s: float) -> tuple[str, float | None, str]:
    K, L, factors = problem.num_classes, problem.layers, problem.layers + 1
    # ReLU enlarges no norm: ||output|| = z takes factors that cost F/2 (lambda_H prod_l lambda_l z^2)^(1/F), at least.
    if _least(1, factors, problem.penalty * K ** (1 / factors), 1.0)[0] == 0:
        return "global", None, "features vanish: no output is worth the least that factors of its norm cost"
    lower = K * _least(K, factors, problem.penalty * (low_rank_cost(K, L) / K), 1.0)[1]
    if lower < loss:
        return "beaten", lower, "low-rank points lie lower (Sukenik et al. 2024); `lower` is the loss of one"
    if s == 0:
        return "stationary", None, "features vanish; with three or more ReLU layers nothing proves that least"
    return (
        "stationary",
        None,
        "full collapse is stationary; with three or more ReLU layers nothing proves it least",
    )
