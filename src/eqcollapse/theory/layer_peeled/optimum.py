"""The layer-peeled minimum of paper A, exactly: four numbers by symmetry, and where the minority classes fall
together.

With free features and enough dimensions (d >= K - 1) every logit matrix Z (K x K, a column a class mean) is
allowed whose nuclear norm is at most tau = K sqrt(E_W E_H): the bounds cap ||W||_F^2 at K E_W and ||H||_F^2
at K E_H, and min ||W||_F ||H||_F over W H = Z is ||Z||_*. The cross-entropy is convex in Z (Fang et al. 2021,
sections 3 and 4, the same relaxation in Gram form), so that some minimum shares the symmetry of the class
sizes:

    Z = a P_A + b P_B + v (q_A u_A + q_B u_B)^T,

P_A, P_B the centring matrices of the majority and the minority block, u_A, u_B their unit vectors of ones, v
the unit vector along u_A/sqrt(KA) - u_B/sqrt(KB); and ||Z||_* = (KA - 1) a + (KB - 1) b + |q|. Minority
collapse is b = 0.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq, minimize

from eqcollapse.runtime.errors import EqcollapseError

VANISHED_RATIO = 1e-2
"""Below this norm ratio the minority classifiers are noise around zero, and their cosines say nothing."""

LARGEST_RATIO = 1e7
"""The R up to which b is resolved: far above, its part of the loss drowns in the rounding of the majority's."""

ROUNDS = 20
"""At most so many fresh starts towards the minimum; two have been enough."""


@dataclass(frozen=True)
class PeeledOptimum:
    """The loss; a, b, q_A, q_B above; and what follows for the classifier, W W^T ~ (Z Z^T)^(1/2).

    minority_cosine: between two minority classifiers, 1 at minority collapse, nan where they vanish altogether;
    norm_ratio: of a minority to a majority classifier; slack: a bound on how far `loss` lies above the minimum.
    """

    loss: float
    a: float
    b: float
    q_a: float
    q_b: float
    minority_cosine: float
    norm_ratio: float
    slack: float


def lower_bound(num_classes: int, bound: float) -> float:
    """Return log(1 + (K - 1) exp(-K/(K - 1) E)), E = `bound`: balanced minimum, Fang et al. 2021, theorem 1."""
    K = num_classes
    return math.log1p((K - 1) * math.exp(-K / (K - 1) * bound))


def peeled_optimum(num_classes: int, majority: int, ratio: float, bound: float) -> PeeledOptimum:
    """Return the minimum for KA = `majority`, R = `ratio` and E = `bound` = sqrt(E_W E_H), to about 1e-9.

    Raises EqcollapseError for R outside 1 .. LARGEST_RATIO and fewer than two classes of either size.
    """
    if ratio > LARGEST_RATIO:
        raise EqcollapseError(f"ratio {ratio:g} is beyond {LARGEST_RATIO:g}, up to which the minimum is resolved")
    sizes = _Sizes.of(num_classes, majority, ratio)
    best = _solve(sizes, num_classes * bound, free=(True, True, True))
    between = math.hypot(*best.q)
    minority = best.b * (1 - 1 / sizes.B) + between * sizes.v_b**2
    ratio_of_norms = math.sqrt(minority / (best.a * (1 - 1 / sizes.A) + between * sizes.v_a**2))
    cosine = 1 - best.b / minority if ratio_of_norms > VANISHED_RATIO else math.nan
    values = (best.loss, best.a, best.b, *best.q, cosine, ratio_of_norms, best.slack)
    return PeeledOptimum(*map(float, values))


def collapse_threshold(num_classes: int, majority: int, bound: float, largest: float = LARGEST_RATIO) -> float:
    """Return the R beyond which minority classifiers fall together; inf where there is none up to `largest`.

    With b held at 0, that is the minimum as long as spending on P_B gains no more than spending on the rest.
    """

    def pull_over_price(log_ratio: float) -> float:
        sizes = _Sizes.of(num_classes, majority, math.exp(log_ratio))
        gain_a, gain_b, gain_q = _solve(sizes, num_classes * bound, free=(True, False, True)).gains
        return math.log(gain_b / max(gain_a, gain_q))

    top = math.log(largest)
    if pull_over_price(top) > 0:
        return math.inf
    return math.exp(brentq(pull_over_price, 0.0, top, xtol=1e-10))


@dataclass(frozen=True)
class _Sizes:
    A: int
    B: int
    pi_a: float
    pi_b: float
    v_a: float
    v_b: float

    @classmethod
    def of(cls, num_classes: int, majority: int, ratio: float) -> "_Sizes":
        A, B = majority, num_classes - majority
        if A < 2 or B < 2 or not ratio >= 1:
            raise EqcollapseError(
                f"majority {majority} of {num_classes} classes at ratio {ratio:g}: it takes two classes of "
                "either size and a ratio of at least 1"
            )
        pi_b = 1 / (A * ratio + B)
        return cls(A, B, ratio * pi_b, pi_b, math.sqrt(B / (A * num_classes)), -math.sqrt(A / (B * num_classes)))


@dataclass(frozen=True)
class _Point:
    """A spending of the nuclear norm: its loss, a, b, (q_A, q_B), and what each would gain from more of it.

    `gains` are minus the derivatives of the loss along P_A, P_B and the best direction of q, a unit of nuclear norm
    each; `slack` bounds how far the loss lies above the minimum (the Frank-Wolfe gap of a convex problem).
    """

    loss: float
    a: float
    b: float
    q: tuple[float, float]
    gains: tuple[float, float, float]
    slack: float


def _solve(sizes: _Sizes, tau: float, free: Sequence[bool]) -> _Point:
    """Minimise over the shares of the nuclear norm (those not `free` held at 0) and the angle of q; all is spent.

    Shares are squares of a unit vector, so that nothing is constrained; but one that has all but vanished has no
    gradient left to come back by. The slack shows it, and a step towards what gains most takes it back in.
    """
    held = np.array(free, dtype=float)
    shares = held * np.array([sizes.A - 1, sizes.B - 1, 1.0])
    start = np.append(shares / shares.sum(), math.atan2(-math.sqrt(sizes.A), math.sqrt(sizes.B)))
    best = _point(sizes, tau, _descend(sizes, tau, held, start), held)
    for _ in range(ROUNDS):
        if best.slack < 1e-10 * tau:
            break
        start = _towards_the_best(sizes, tau, best, held)
        best = min(best, _point(sizes, tau, _descend(sizes, tau, held, start), held), key=lambda point: point.loss)
    return best


def _towards_the_best(sizes: _Sizes, tau: float, point: _Point, held: np.ndarray) -> np.ndarray:
    """Return shares and angle a little way from `point` towards what gains most (a Frank-Wolfe step)."""
    vertex = int(np.argmax(held * np.array(point.gains)))
    slopes = _loss(sizes, point.a, point.b, *point.q)[1]
    q_angle = math.atan2(-slopes[3], -slopes[2])
    here = np.array([point.a, point.b, *point.q])
    corners = ([tau / (sizes.A - 1), 0, 0, 0], [0, tau / (sizes.B - 1), 0, 0])
    corner = np.array((*corners, [0, 0, tau * math.cos(q_angle), tau * math.sin(q_angle)])[vertex])
    reach = min((0.3 * 0.5**k for k in range(30)), key=lambda r: _loss(sizes, *(here + r * (corner - here)))[0])
    a, b, q_a, q_b = here + reach * (corner - here)
    spent = np.array([(sizes.A - 1) * a, (sizes.B - 1) * b, math.hypot(q_a, q_b)])
    return np.append(spent / spent.sum(), math.atan2(q_b, q_a))


def _descend(sizes: _Sizes, tau: float, held: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Return the shares and the angle that BFGS reaches from others."""
    # Under a tiny bound only the curvature, of order tau^2, tells the shares apart.
    scale = 1 / min(tau, 1.0) ** 2

    def shares(y: np.ndarray) -> np.ndarray:
        return np.append(y[:3] ** 2 / (y[:3] @ y[:3]), y[3])

    def scaled(y: np.ndarray) -> tuple[float, np.ndarray]:
        x = shares(y)
        value, gradient = _loss(sizes, *_parts(sizes, tau, x))
        d_a, d_b, d_qa, d_qb = gradient
        cos, sin = math.cos(x[3]), math.sin(x[3])
        to_shares = tau * np.array([d_a / (sizes.A - 1), d_b / (sizes.B - 1), d_qa * cos + d_qb * sin])
        to_angle = tau * x[2] * (d_qb * cos - d_qa * sin)
        inner = held * 2 * y[:3] / (y[:3] @ y[:3]) * (to_shares - to_shares @ x[:3])
        return value * scale, np.append(inner, to_angle) * scale

    start = np.append(np.sqrt(start[:3]), start[3])
    return shares(minimize(scaled, start, jac=True, method="BFGS", options={"gtol": 1e-12, "maxiter": 2000}).x)


def _parts(sizes: _Sizes, tau: float, x: np.ndarray) -> tuple[float, float, float, float]:
    """Shares spent on P_A, P_B and q, and the angle of q -> a, b, q_A, q_B."""
    radius = tau * x[2]
    return (
        tau * x[0] / (sizes.A - 1),
        tau * x[1] / (sizes.B - 1),
        radius * math.cos(x[3]),
        radius * math.sin(x[3]),
    )


def _point(sizes: _Sizes, tau: float, x: np.ndarray, held: np.ndarray) -> _Point:
    a, b, q_a, q_b = _parts(sizes, tau, x)
    loss, (d_a, d_b, d_qa, d_qb) = _loss(sizes, a, b, q_a, q_b)
    gains = (-d_a / (sizes.A - 1), -d_b / (sizes.B - 1), math.hypot(d_qa, d_qb))
    spent = -(d_a * a + d_b * b + d_qa * q_a + d_qb * q_b)
    return _Point(loss, a, b, (q_a, q_b), gains, tau * max(held * np.array(gains)) - spent)


def _loss(sizes: _Sizes, a: float, b: float, q_a: float, q_b: float) -> tuple[float, tuple[float, ...]]:
    """Mean cross-entropy and its derivatives in a, b, q_A, q_B."""
    A, B = sizes.A, sizes.B
    lever_a, lever_b = (sizes.v_a - sizes.v_b) / math.sqrt(A), (sizes.v_b - sizes.v_a) / math.sqrt(B)
    loss_a, own_a, margin_a = _group(a, lever_a * q_a, A, B)
    loss_b, own_b, margin_b = _group(b, lever_b * q_b, B, A)
    share_a, share_b = A * sizes.pi_a, B * sizes.pi_b
    slopes = (share_a * own_a, share_b * own_b, share_a * margin_a * lever_a, share_b * margin_b * lever_b)
    return share_a * loss_a + share_b * loss_b, slopes


def _group(own: float, margin: float, same: int, other: int) -> tuple[float, float, float]:
    """Loss of a class of a group of `same`, against `other` of the other group, and its derivatives.

    Its own logit leads those of its group by `own`, and their mean is `margin` above the other group's logits.
    """
    peers = (same - 1) * math.exp(-own)
    strangers = other * math.exp(-margin - own * (same - 1) / same)
    total = 1 + peers + strangers
    return math.log(total), -(peers + strangers * (same - 1) / same) / total, -strangers / total
