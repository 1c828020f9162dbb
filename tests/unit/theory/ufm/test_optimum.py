import dataclasses
import functools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.linalg import block_diag
from scipy.optimize import minimize, minimize_scalar

from eqcollapse.theory.ufm.descent import minimise
from eqcollapse.theory.ufm.lowrank import FOUND, _deepened, _graphs, factors, graph_cost, low_rank_cost
from eqcollapse.theory.ufm.optimum import optimum
from eqcollapse.theory.ufm.problem import Problem
from eqcollapse.theory.ufm.search import lowest_found

POINTS = Path(__file__).parent / "points"


def problem(**changes):
    """Figure 1 of Tirer & Bruna (2022), with changes."""
    values = {
        "num_classes": 4,
        "dim": 20,
        "per_class": 50,
        "layers": 1,
        "activation": "identity",
        "bias": "none",
        "loss": "mse",
    }
    values |= {"lambda_weights": None, "lambda_features": 0.005, "lambda_bias": 0.0}
    values |= changes
    if values["lambda_weights"] is None:
        values["lambda_weights"] = (0.005,) * values["layers"]
    return Problem(**values)


# Found by gradient descent in float64 and by hand before any of this code (shared/PAPERS.md).
@pytest.mark.parametrize(
    ("changes", "loss"),
    [
        ({}, 0.131421356237310),
        ({"bias": "free"}, 0.098566017177982),
        ({"layers": 2}, 0.107735715648647),
        ({"layers": 2, "bias": "free"}, 0.080801786736485),
        ({"layers": 2, "activation": "relu"}, 0.107735715648647),
    ],
)
def test_the_papers_cases(changes, loss):
    best = optimum(problem(**changes))
    assert best.loss == pytest.approx(loss, abs=1e-15)
    assert best.status == "global"


def test_singular_values_and_bias_of_the_papers_cases():
    assert optimum(problem()).singular_value == pytest.approx(0.858578643762690, abs=1e-14)
    assert optimum(problem(layers=2)).singular_value == pytest.approx(0.924362131463024, abs=1e-14)
    assert optimum(problem(bias="free")).bias == pytest.approx(1 / 4, abs=1e-15)


def test_a_regularised_bias_lies_between_none_and_free():
    losses = [optimum(problem(bias="regularised", lambda_bias=value)).loss for value in (1e-9, 1e-2, 1.0, 1e9)]
    assert losses == sorted(losses)
    assert losses[0] == pytest.approx(optimum(problem(bias="free")).loss, abs=1e-8)
    assert losses[-1] == pytest.approx(optimum(problem()).loss, abs=1e-8)


@pytest.mark.parametrize("loss", ["mse", "ce"])
def test_one_layer_agrees_with_a_solver_that_knows_nothing_of_collapse(loss):
    K, lam_b = 3, 0.3 if loss == "mse" else 0.0
    bias = "regularised" if loss == "mse" else "none"
    sizes = {"num_classes": K, "dim": 3, "per_class": 1}
    case = problem(**sizes, loss=loss, bias=bias, lambda_bias=lam_b, lambda_features=0.05)

    def objective(x):
        W, H, b = x[:9].reshape(3, 3), x[9:18].reshape(3, 3), x[18:] * (loss == "mse")
        Z = W @ H + b[:, None]
        if loss == "mse":
            fit = ((Z - np.eye(K)) ** 2).sum() / (2 * K)
        else:
            fit = (np.log(np.exp(Z).sum(0)) - np.diag(Z)).mean()
        return fit + 0.0025 * (W**2).sum() + 0.025 * (H**2).sum() + lam_b / 2 * (b**2).sum()

    rng = np.random.default_rng(0)
    found = min(minimize(objective, rng.standard_normal(21), tol=1e-12).fun for _ in range(4))
    assert optimum(case).loss == pytest.approx(found, rel=1e-8)


def test_features_vanish_under_large_lambdas():
    for layers in (1, 2):
        best = optimum(problem(layers=layers, lambda_features=1.0, lambda_weights=(1.0,) * layers))
        assert (best.loss, best.singular_value) == (0.5, 0.0)
    best = optimum(problem(loss="ce", lambda_features=1.0, lambda_weights=(1.0,)))
    assert (best.loss, best.singular_value) == (pytest.approx(math.log(4)), 0.0)


def test_too_few_dimensions_cost_whole_directions():
    narrow, wide = optimum(problem(dim=3)), optimum(problem())
    assert narrow.rank == 3
    assert narrow.loss == pytest.approx(3 / 4 * wide.loss + 1 / 8)


def test_unknown_where_no_closed_form_is():
    for changes in (
        {"layers": 2, "activation": "relu", "bias": "free"},
        {"layers": 2, "activation": "relu", "loss": "ce"},
        {"layers": 2, "activation": "relu", "dim": 3},
        {"loss": "ce", "dim": 2},
    ):
        best = optimum(problem(**changes))
        assert (best.status, best.loss) == ("unknown", None)
        assert best.reason


def test_where_full_collapse_is_known_not_to_be_the_least():
    def status(K, L):
        return optimum(problem(num_classes=K, layers=L, activation="relu", per_class=1)).status

    assert [status(K, 2) for K in (2, 10, 20)] == ["global"] * 3
    assert [status(2, L) for L in (3, 5)] == ["global"] * 2
    assert [status(K, 3) for K in (3, 7, 8, 9, 15)] == ["stationary"] * 2 + ["beaten"] * 3
    assert [status(K, L) for K in (3, 4, 10) for L in (4, 5, 9)] == ["beaten"] * 9


@pytest.mark.parametrize(
    ("K", "L", "level", "expected"),
    [
        (10, 4, 0.005, "beaten"),
        (4, 4, 0.05, "beaten"),
        (15, 3, 0.005, "beaten"),
        (10, 4, 0.05, "stationary"),
        (11, 3, 0.05, "stationary"),
        (4, 4, 0.2, "global"),
        (15, 3, 1.0, "global"),
    ],
)
def test_only_a_lower_point_beats_features_that_vanish(K, L, level, expected):
    sizes = {"num_classes": K, "dim": 20, "per_class": 1, "layers": L, "activation": "relu"}
    best = optimum(problem(**sizes, lambda_features=level, lambda_weights=(level,) * L))
    assert best.status == expected
    assert best.lower is None or best.lower < best.loss
    if expected != "beaten":
        assert (best.loss, best.singular_value, best.lower) == (0.5, 0.0, None)


def test_a_low_rank_point_may_outlive_full_collapse():
    """A little past the lambda at which full collapse costs more than 0, the cheaper low-rank point does not yet."""
    sizes = {"num_classes": 10, "dim": 20, "per_class": 1, "layers": 4, "activation": "relu"}
    found = [optimum(problem(**sizes, lambda_features=x, lambda_weights=(x,) * 4)) for x in np.linspace(0.02, 0.05, 61)]
    outlived = [best for best in found if best.singular_value == 0 and best.status == "beaten"]
    assert outlived
    assert all(best.loss == 0.5 > best.lower for best in outlived)
    ranks = {"beaten": 0, "stationary": 1, "global": 2}
    assert [best.status for best in found] == sorted((best.status for best in found), key=ranks.get)


@pytest.mark.parametrize(("K", "L"), [(6, 4), (10, 4), (9, 5)])
def test_the_low_rank_point_is_there_and_costs_what_is_claimed(K, L):
    case = problem(num_classes=K, layers=L, activation="relu", per_class=1, lambda_features=0.02)
    best = optimum(case)
    edges = min(_graphs(K), key=lambda graph: graph_cost(graph, L))
    assert graph_cost(edges, L) == low_rank_cost(K, L) < K
    overlap = min(np.linspace(0, 0.45, 400), key=lambda c: _product_of_norms(factors(edges, L, c)))
    losses = [_loss(case, factors(edges, L, overlap), output) for output in np.linspace(0.8, 1.0, 401)]
    assert min(losses) == pytest.approx(best.lower, rel=1e-4)
    assert min(losses) < best.loss * 0.995


def _product_of_norms(matrices):
    return math.prod((matrix**2).sum() for matrix in matrices)


def _loss(case, matrices, output):
    """The objective itself, at the point's best scaling for an output of `output` I."""
    lambdas = [case.lambda_features, *case.lambda_weights]
    costs = [lam * (matrix**2).sum() for lam, matrix in zip(lambdas, matrices, strict=True)]
    level = (math.prod(costs) * output**2) ** (1 / len(costs))
    H, *weights = [matrix * math.sqrt(level / cost) for matrix, cost in zip(matrices, costs, strict=True)]
    features = H
    for weight in weights[:-1]:
        features = np.maximum(weight @ features, 0)
    fit = ((weights[-1] @ features - np.eye(case.num_classes)) ** 2).sum() / (2 * case.num_classes)
    return fit + sum(lam / 2 * (m**2).sum() for lam, m in zip(lambdas, [H, *weights], strict=True))


@pytest.mark.parametrize(("K", "L"), FOUND)
@pytest.mark.parametrize("more", [0, 1, 3])
@pytest.mark.parametrize("level", [0.001, 0.004])
def test_the_points_that_were_found_are_there_and_cost_what_is_claimed(K, L, more, level):
    """As they are, and with layers more that carry the features on."""
    *below, last = found_point(K, L)
    matrices = [*below, *[np.eye(K)] * more, last]
    cost = _product_of_norms(matrices) ** (1 / len(matrices))
    claimed = _deepened(FOUND[K, L], K, L, L + more)
    assert claimed - 1e-3 < cost <= claimed < K
    assert low_rank_cost(K, L + more) <= claimed
    sizes = {"num_classes": K, "dim": K, "layers": L + more, "activation": "relu", "per_class": 1}
    case = problem(**sizes, lambda_features=level, lambda_weights=(level,) * (L + more))
    lowest = minimize_scalar(lambda output: _loss(case, matrices, output), bounds=(0.5, 1.0), method="bounded").fun
    best = optimum(case)
    assert best.status == "beaten"
    assert lowest < best.loss
    if low_rank_cost(K, L + more) == claimed:
        assert lowest == pytest.approx(best.lower, rel=1e-3)
        assert lowest <= best.lower


def found_point(K, L):
    """H, W_1, ..., W_{L-1} from its file, and the W_L that undoes them."""
    matrices = list(map(np.array, json.loads((POINTS / f"{K}-classes-{L}-layers.json").read_text())))
    features = matrices[0]
    for weight in matrices[1:]:
        features = np.maximum(weight @ features, 0)
    return [*matrices, np.linalg.inv(features)]


@pytest.mark.parametrize(("K", "L"), [(4, 4), (9, 3)])
def test_a_class_beside_a_point_adds_its_cost(K, L):
    """As a block of its own, of ones; (4, 4) has a graph as well, which costs a little more."""
    point = found_point(K - 1, L)
    cost = _product_of_norms(point) ** (1 / len(point))
    blocks = [block_diag(matrix * math.sqrt(cost / (matrix**2).sum()), [[1.0]]) for matrix in point]
    assert _product_of_norms(blocks) ** (1 / len(blocks)) == pytest.approx(cost + 1, rel=1e-12)
    features = blocks[0]
    for weight in blocks[1:-1]:
        features = np.maximum(weight @ features, 0)
    np.testing.assert_allclose(blocks[-1] @ features, np.eye(K), atol=1e-9)
    assert low_rank_cost(K, L) - 1e-3 < cost + 1 <= low_rank_cost(K, L) < K
    if K == 4:
        assert all(low_rank_cost(K, L) < graph_cost(edges, L) < K for edges in _graphs(K))


@pytest.mark.parametrize("loss", ["mse", "ce"])
@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_the_closed_form_is_the_loss_of_full_collapse(loss, layers):
    """Of factors that share out the output's singular values as the lambdas ask, by the objective itself."""
    K, n, d, level = 4, 3, 6, 0.004
    case = problem(num_classes=K, per_class=n, dim=d, layers=layers, loss=loss)
    case = dataclasses.replace(
        case, lambda_weights=tuple(level * (1 + x) for x in range(layers)), lambda_features=level / 2
    )
    best = optimum(case)
    assert best.singular_value > 0.5
    basis = np.eye(K) if loss == "mse" else np.linalg.svd(np.eye(K) - 1 / K)[0][:, : K - 1]
    factors = [np.eye(d)[:, : best.rank] @ basis.T]  # one column a class
    factors += [np.diag([1.0] * best.rank + [0.0] * (d - best.rank))] * (layers - 1)
    factors += [basis @ np.eye(best.rank, d)]
    costs = [n * case.lambda_features, *case.lambda_weights]  # of a squared singular value of each
    level = (best.singular_value**2 * math.prod(costs)) ** (1 / (layers + 1))
    H, *weights = [factor * math.sqrt(level / cost) for factor, cost in zip(factors, costs, strict=True)]
    logits = np.repeat(functools.reduce(lambda below, weight: weight @ below, weights, H), n, 1)
    targets = np.repeat(np.eye(K), n, 1)
    if loss == "mse":
        fit = ((logits - targets) ** 2).sum() / (2 * K * n)
    else:
        fit = (np.log(np.exp(logits).sum(0)) - (logits * targets).sum(0)).mean()
    penalties = [cost / 2 * (m**2).sum() for cost, m in zip(costs, [H, *weights], strict=True)]
    assert fit + sum(penalties) == pytest.approx(best.loss, rel=1e-12)


@pytest.mark.parametrize(("K", "layers", "level"), [(4, 3, 2e-3), (6, 2, 8e-3), (9, 4, 1e-3)])
def test_deep_cross_entropy_is_beaten_where_descents_go_lower(K, layers, level):
    """`lower` is the loss of a point, by the objective itself, and no higher than what descents reach."""
    n, d = 2, 2 * K
    lambdas = tuple(level * (1 + x / 2) for x in range(layers))
    sizes = {"num_classes": K, "per_class": n, "dim": d, "layers": layers, "loss": "ce"}
    case = problem(**sizes, lambda_weights=lambdas, lambda_features=level / 2)
    best = optimum(case)
    assert best.status == "beaten"
    assert best.lower < best.loss * (1 - 1e-2)

    costs = [*reversed(lambdas), n * case.lambda_features]
    found = lowest_found(K, layers + 1, case.penalty, d)[1]
    *weights, H = [factor * math.sqrt(case.penalty / cost) for factor, cost in zip(found, costs, strict=True)]
    logits = np.repeat(functools.reduce(np.matmul, [*weights, H]), n, 1)
    targets = np.repeat(np.eye(K), n, 1)
    fit = (np.log(np.exp(logits).sum(0)) - (logits * targets).sum(0)).mean()
    penalty = sum(cost / 2 * (m**2).sum() for cost, m in zip(costs, [*weights, H], strict=True))
    assert fit + penalty == pytest.approx(best.lower, rel=1e-12)

    descents = minimise(case, range(4), iterations=6000, step=0.5, start=1 / d**0.5, logged=2)
    reached = float(descents.loss[-1].min())
    assert reached < best.loss
    assert best.lower < reached * (1 + 1e-3)


def test_what_is_not_proved_is_not_called_global():
    few = {"loss": "ce", "layers": 2, "num_classes": 3}
    for changes in (few, {"bias": "regularised", "lambda_bias": 0.1, "layers": 2}):
        assert optimum(problem(**changes)).status == "stationary"
