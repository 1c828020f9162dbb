import math
from dataclasses import replace

import pytest
import torch

from eqcollapse.collapse import Moments, collapse_metrics
from eqcollapse.runtime.errors import EqcollapseError
from eqcollapse.theory.layer_peeled.descent import MODELS, Imbalance, geometry, minimise_peeled
from eqcollapse.theory.layer_peeled.optimum import _loss, _Sizes, collapse_threshold, lower_bound, peeled_optimum

SIZES = {"num_classes": 10, "dim": 20, "bound_weight": 1.0, "bound_features": 1.0, "step": 0.5, "start": 0.3}


@pytest.mark.parametrize("model", MODELS)
def test_pull_back_is_autograd_through_the_solution(model):
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, dtype=torch.float64, generator=generator)  # noqa: E731
    layer, free, upstream = 0.2 * draw(2, 5, 5), draw(2, 5, 3), draw(2, 5, 3)
    leaves = [layer.clone().requires_grad_(), free.clone().requires_grad_()]
    eye = torch.eye(5, dtype=torch.float64)
    solution = leaves[0] @ leaves[1] if model == "explicit" else torch.linalg.solve(eye - leaves[0], leaves[1])
    wanted = torch.autograd.grad((solution * upstream).sum(), leaves)
    operator = MODELS[model].operator(layer)
    features = operator @ free
    torch.testing.assert_close(features, solution.detach())
    for found, expected in zip(MODELS[model].pull_back(operator, free, features, upstream), wanted, strict=True):
        torch.testing.assert_close(found, expected)


def test_the_deq_solves_its_fixed_point():
    result = minimise_peeled("deq", [Imbalance(3, 5.0, 0)], iterations=50, **(SIZES | {"step": 0.1}))
    free = result.features - result.layer @ result.features
    iterate = torch.zeros_like(free)
    for _ in range(3000):
        iterate = result.layer @ iterate + free
    torch.testing.assert_close(iterate, result.features)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("bound", "step"), [(0.01, 0.05), (1.0, 0.5), (3.0, 0.5)])
def test_balanced_models_reach_the_lower_bound(model, bound, step):
    sizes = SIZES | {"bound_weight": bound, "bound_features": bound, "step": step}
    cells = [Imbalance(5, 1.0, seed) for seed in (0, 1)]
    result = minimise_peeled(model, cells, iterations=3000, **sizes)
    assert result.loss.tolist() == pytest.approx([lower_bound(10, bound)] * 2, abs=1e-6)
    assert (result.loss >= lower_bound(10, bound) - 1e-14).all()
    norms = [result.weight.square().sum((1, 2)), result.features.square().sum((1, 2))]
    for norm in norms:
        torch.testing.assert_close(norm, torch.full_like(norm, 10 * bound))
    if bound >= 1:
        measured = geometry(result, cells)
        for name in ("nc2", "nc3", "etf_features", "seli_weight", "seli_features", "self_duality"):
            assert float(measured[name].max()) < 1e-5, name


def test_self_duality_is_that_of_networks():
    cells = [Imbalance(5, 10.0, seed) for seed in (0, 1)]
    sizes = SIZES | {"bound_weight": 1.0, "bound_features": 1.0, "step": 0.5}
    result = minimise_peeled("explicit", cells, iterations=20, **sizes)
    measured = geometry(result, cells)["self_duality"]
    for run in (0, 1):
        moments = Moments.of(result.features[run].T, torch.arange(10), 10)
        assert float(measured[run]) == pytest.approx(collapse_metrics(moments, result.weight[run])["nc3_duality"])


def test_the_seli_geometry_under_imbalance_is_that_of_the_samples():
    """Thrampoulidis et al. 2022: of I - 11^T/K = U S V^T, a column a sample, W W^T is U S U^T and H^T H is V S V^T."""
    cell, sizes = Imbalance(3, 10.0, 0), [10] * 3 + [1] * 7
    labels = torch.tensor(sizes).to(torch.int64)
    samples = torch.repeat_interleave(torch.arange(10), labels)
    encoded = (torch.eye(10, dtype=torch.float64) - 0.1)[:, samples]
    left, values, right = torch.linalg.svd(encoded, full_matrices=False)
    root = values[:9].sqrt()
    weight, features = torch.zeros(1, 10, 20).double(), torch.zeros(1, 20, 10).double()
    weight[0, :, :9] = left[:, :9] * root
    first = torch.cumsum(labels, 0) - labels
    features[0, :9] = root[:, None] * right[:9, first]
    result = replace(minimise_peeled("explicit", [cell], iterations=1, **SIZES), weight=weight, features=features)
    measured = geometry(result, [cell])
    assert float(measured["seli_weight"]) < 1e-12
    assert float(measured["seli_features"]) < 1e-12
    assert float(measured["etf_features"]) > 0.1


def test_both_models_end_on_the_exact_minimum_and_its_geometry():
    cells = [Imbalance(k, r, 0) for k in (3, 7) for r in (1.2, 10.0)]
    for model in MODELS:
        result = minimise_peeled(model, cells, iterations=3000, **SIZES)
        measured = geometry(result, cells)
        for run, cell in enumerate(cells):
            exact = peeled_optimum(10, cell.majority, cell.ratio, 1.0)
            assert float(result.loss[run]) == pytest.approx(exact.loss, abs=1e-6)
            assert float(measured["minority_cosine"][run]) == pytest.approx(
                exact.minority_cosine, abs=1e-2, nan_ok=True
            )
            assert float(measured["norm_ratio"][run]) == pytest.approx(exact.norm_ratio, abs=1e-2)


@pytest.mark.parametrize("model", MODELS)
def test_minority_cosines_of_fang_et_al_2021(model):
    """Their convex programme at K = 10, KA = 5, E_W = 1, E_H = 5, to the four digits that it gives."""
    published = {1.0: -0.1111, 10.0: 0.5174, 39.8: 1.0}
    cells = [Imbalance(5, ratio, 0) for ratio in published]
    result = minimise_peeled(model, cells, iterations=4000, **(SIZES | {"bound_features": 5.0, "step": 1.0}))
    cosines = geometry(result, cells)["minority_cosine"].tolist()
    assert cosines == pytest.approx(list(published.values()), abs=2e-4)
    exact = [peeled_optimum(10, 5, ratio, math.sqrt(5)).minority_cosine for ratio in published]
    assert exact == pytest.approx(list(published.values()), abs=2e-4)


def test_the_exact_minimum_at_its_ends():
    for majority in (2, 5, 8):
        for bound in (0.001, 0.01, 0.3, 1.0, 4.0):
            best = peeled_optimum(10, majority, 1.0, bound)
            assert best.loss == pytest.approx(lower_bound(10, bound), abs=1e-13)
            assert best.minority_cosine == pytest.approx(-1 / 9, abs=1e-3)
            assert best.norm_ratio == pytest.approx(1, abs=1e-2)


def test_the_exact_minimum_is_certified():
    """Slack is a Frank-Wolfe gap, from derivatives that finite differences confirm."""
    for majority in (2, 5, 7):
        for bound in (0.01, 1.0, 2.0, 5.0):
            for ratio in (1.0, 1.001, 1.5, 4.0, 50.0, 1000.0):
                assert peeled_optimum(10, majority, ratio, bound).slack < 1e-8 * bound
    sizes, here = _Sizes.of(10, 3, 7.0), torch.tensor([1.3, 0.4, 0.9, -0.6], dtype=torch.float64)
    slopes = _loss(sizes, *here.tolist())[1]
    for direction, slope in zip(torch.eye(4, dtype=torch.float64), slopes, strict=True):
        above, below = (_loss(sizes, *(here + s * 1e-6 * direction).tolist())[0] for s in (1, -1))
        assert (above - below) / 2e-6 == pytest.approx(slope, abs=1e-9)


def test_the_exact_loss_is_the_cross_entropy_of_its_logits():
    exact = peeled_optimum(10, 3, 7.0, 1.5)
    ones_a, ones_b = torch.zeros(10, dtype=torch.float64), torch.ones(10, dtype=torch.float64)
    ones_a[:3], ones_b[:3] = 1, 0
    centre_a = torch.diag(ones_a) - torch.outer(ones_a, ones_a) / 3
    centre_b = torch.diag(ones_b) - torch.outer(ones_b, ones_b) / 7
    between = (ones_a / 3 - ones_b / 7) / (1 / 3 + 1 / 7) ** 0.5
    logits = exact.a * centre_a + exact.b * centre_b
    logits += torch.outer(between, exact.q_a * ones_a / 3**0.5 + exact.q_b * ones_b / 7**0.5)
    assert float(torch.linalg.svdvals(logits).sum()) == pytest.approx(15)
    losses = torch.logsumexp(logits, 0) - logits.diagonal()
    shares = (7 * ones_a + ones_b) / 28
    assert float((shares * losses).sum()) == pytest.approx(exact.loss, abs=1e-13)


@pytest.mark.parametrize(("majority", "bound"), [(3, 0.1), (3, 1.0), (5, 2.0), (7, 2.0)])
def test_minority_collapse_begins_at_the_threshold(majority, bound):
    threshold = collapse_threshold(10, majority, bound)
    below = peeled_optimum(10, majority, 1 + (threshold - 1) * 0.99, bound)
    above = peeled_optimum(10, majority, 1 + (threshold - 1) * 1.01, bound)
    assert below.b > 1e-5 * below.a > above.b * 10
    assert above.minority_cosine == pytest.approx(1, abs=1e-6) or math.isnan(above.minority_cosine)


@pytest.mark.slow
@pytest.mark.parametrize(("majority", "bound"), [(3, 1.0), (7, 2.0), (5, 0.1)])
def test_threshold_and_minimum_agree_with_the_convex_relaxation(majority, bound):
    """The layer-peeled relaxation (Fang et al. 2021) over the 2K x 2K Gram matrix of W and H, by cvxpy."""
    threshold = collapse_threshold(10, majority, bound)
    for factor, collapsed in ((0.9, False), (1.1, True)):
        ratio = 1 + (threshold - 1) * factor
        loss, cosine_gap = relaxation(10, majority, ratio, bound)
        assert loss == pytest.approx(peeled_optimum(10, majority, ratio, bound).loss, abs=1e-5)
        assert bool(cosine_gap < 2e-3) is collapsed, (ratio, cosine_gap)


def relaxation(K, majority, ratio, bound):
    """Return the least loss and the spread of the minority classifiers, relative to the majority ones."""
    import cvxpy as cp
    import numpy as np

    gram = cp.Variable((2 * K, 2 * K), PSD=True)
    sizes = np.array([ratio] * majority + [1.0] * (K - majority))
    logits = gram[:K, K:]
    losses = [cp.log_sum_exp(logits[:, k]) - logits[k, k] for k in range(K)]
    objective = sum(share * loss for share, loss in zip(sizes / sizes.sum(), losses, strict=True))
    bounds = [cp.trace(gram[:K, :K]) <= K * bound, cp.trace(gram[K:, K:]) <= K * bound]
    loss = cp.Problem(cp.Minimize(objective), bounds).solve(solver=cp.CLARABEL)
    weights = gram.value[:K, :K]
    minority = weights[majority:, majority:]
    spread = np.trace(minority) - minority.sum() / len(minority)
    return loss, spread / np.trace(weights[:majority, :majority])


def test_minority_collapse_of_the_descent_lies_at_the_threshold():
    threshold = collapse_threshold(10, 3, 1.0)
    cells = [Imbalance(3, 1 + (threshold - 1) * factor, 0) for factor in (0.7, 1.3)]
    result = minimise_peeled("explicit", cells, iterations=4000, **SIZES)
    below, above = geometry(result, cells)["minority_cosine"].tolist()
    assert below < 0.8
    assert above > 0.99


TINY = SIZES | {"bound_weight": 0.01, "bound_features": 0.01, "step": 0.05}


def cosine_errors(model, cells, iterations):
    """Return how far the minority cosines end from the exact minimum's, whose loss is reached."""
    result = minimise_peeled(model, cells, iterations=iterations, **TINY)
    exact = [peeled_optimum(10, cell.majority, cell.ratio, 0.01) for cell in cells]
    gains = math.log(10) - result.optimum
    assert float(((result.loss - result.optimum) / gains).max()) < 1e-6
    return geometry(result, cells)["minority_cosine"] - torch.tensor([best.minority_cosine for best in exact])


@pytest.mark.parametrize(("model", "iterations", "within"), [("explicit", 8000, 5e-2), ("deq", 2500, 1e-2)])
def test_minority_collapse_is_reached_under_a_tiny_bound(model, iterations, within):
    """Either side of the threshold; plain descent ends up to 0.6 away."""
    cells = [Imbalance(3, 1.002, 0), Imbalance(3, 1.004, 0), Imbalance(7, 1.0015, 0), Imbalance(7, 1.002, 0)]
    assert float(cosine_errors(model, cells, iterations).abs().max()) < within


@pytest.mark.slow
def test_the_default_sweep_is_converged_under_a_tiny_bound():
    """Nan where the exact minimum's minority classifiers have vanished, too."""
    ratios = (1.001, 1.0015, 1.002, 1.0025, 1.003, 1.004, 1.01)
    cells = [Imbalance(k, r, 0) for k in (3, 5, 7) for r in ratios]
    errors = cosine_errors("explicit", cells, 20_000)
    assert float(errors.nan_to_num(0.0).abs().max()) < 1e-2
    vanished = [math.isnan(peeled_optimum(10, c.majority, c.ratio, 0.01).minority_cosine) for c in cells]
    assert errors.isnan().tolist() == vanished


def test_errors_name_what_is_wrong():
    with pytest.raises(EqcollapseError, match="beyond 1e"):
        peeled_optimum(10, 3, 2e7, 1.0)
    with pytest.raises(EqcollapseError, match="ratio of at least 1"):
        minimise_peeled("deq", [Imbalance(3, 0.5, 0)], iterations=1, **SIZES)
    with pytest.raises(EqcollapseError, match=r"e5: .*diverged by iteration \d+"):
        minimise_peeled("explicit", [Imbalance(3, 1.0, 0)], iterations=200, name="e5", **(SIZES | {"step": 1e300}))
