import dataclasses
import math

import numpy as np
import pytest
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

from eqcollapse.errors import EqcollapseError
from eqcollapse.theory import Problem, optimum
from eqcollapse.theory.lowrank import _graphs, factors, graph_cost, low_rank_cost
from eqcollapse.theory.optimum import DESCENTS_GO_LOWER


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
    assert [status(K, 3) for K in (3, 10, 15)] == ["stationary", "stationary", "beaten"]
    assert [status(K, 4) for K in (3, 4, 10)] == ["stationary", "beaten", "beaten"]


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


@pytest.mark.parametrize(("K", "L"), [(4, 4), (6, 4), (10, 4), (9, 5)])
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


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_classes": 1}, "num_classes"),
        ({"activation": "tanh"}, "activation"),
        ({"bias": "yes"}, "bias"),
        ({"loss": "hinge"}, "loss"),
        ({"lambda_weights": (0.1, 0.1)}, "lambda_weights"),
        ({"lambda_features": 0.0}, "positive"),
        ({"lambda_bias": 0.1}, "lambda_bias"),
        ({"bias": "regularised"}, "lambda_bias"),
    ],
)
def test_errors_name_what_is_wrong(changes, words):
    with pytest.raises(EqcollapseError, match=words):
        problem(**changes)


@pytest.mark.slow
def test_three_relu_layers_go_below_full_collapse_from_eleven_classes_on():
    """What `beaten` stands on where nothing is written down: a point below full collapse for K = 11, L = 3.

    Its factors, with W_3 replaced so that the output is the identity, have norms whose geometric mean is below K: it is
    lower whatever the lambdas, and more classes of cost 1 each can be put beside it.
    """
    K, d = DESCENTS_GO_LOWER, 17
    case = problem(num_classes=K, dim=d, per_class=1, layers=3, activation="relu", lambda_features=0.003)
    case = dataclasses.replace(case, lambda_weights=(0.003,) * 3)
    shapes = [(d, K), (d, d), (d, d), (K, d)]

    def unpack(x):
        return [part.reshape(s) for part, s in zip(np.split(x, np.cumsum([d * K, d * d, d * d])), shapes, strict=True)]

    def objective(x):
        H, V, W, U = unpack(x)
        A = np.maximum(V @ H, 0)
        B = np.maximum(W @ A, 0)
        error = (U @ B - np.eye(K)) / K
        to_B = (U.T @ error) * (B > 0)
        to_A = (W.T @ to_B) * (A > 0)
        slopes = [V.T @ to_A, to_A @ H.T, to_B @ A.T, error @ B.T]
        return K / 2 * (error**2).sum() + 0.0015 * x @ x, np.concatenate([s.ravel() for s in slopes]) + 0.003 * x

    # The descents end in many places, and where one ends hangs on the last digits: the lowest of some is what counts.
    def descent(seed):
        rng = np.random.default_rng(seed)
        start = np.concatenate([0.3 * rng.standard_normal(a * b) / np.sqrt(d / 4) for a, b in shapes])
        return minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 5000, "maxfun": 6000})

    with threadpool_limits(1):  # small matrices: more threads take ten times as long
        end = min((descent(seed) for seed in range(20)), key=lambda each: each.fun)
    assert end.fun < 0.985 * optimum(case).loss
    H, V, W, _ = unpack(end.x)
    B = np.maximum(W @ np.maximum(V @ H, 0), 0)
    assert _product_of_norms([H, V, W, np.linalg.pinv(B)]) ** (1 / 4) < K
