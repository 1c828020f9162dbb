import dataclasses
import itertools
import math
import random

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from eqcollapse.collapse import Moments, collapse_metrics
from eqcollapse.runtime.errors import EqcollapseError
from eqcollapse.theory.ufm.descent import log_spaced, minimise
from eqcollapse.theory.ufm.measure import nc1
from eqcollapse.theory.ufm.optimum import optimum
from eqcollapse.theory.ufm.problem import Problem
from eqcollapse.theory.ufm.samples import rotated


def problem(lam=0.02, **changes):
    values = {
        "num_classes": 3,
        "dim": 4,
        "per_class": 2,
        "layers": 1,
        "activation": "identity",
        "bias": "none",
        "loss": "mse",
    }
    values |= changes
    values |= {"lambda_bias": 0.1 if values["bias"] == "regularised" else 0.0}
    weights = tuple(lam * (1 + layer / 4) for layer in range(values["layers"]))
    return Problem(**values, lambda_weights=weights, lambda_features=lam / 2)


def objective(case, weights, features, bias):
    """The objective as in the papers, for one run, for autograd."""
    hidden = features
    for weight in weights[:-1]:
        hidden = weight @ hidden
        hidden = torch.relu(hidden) if case.activation == "relu" else hidden
    output = weights[-1] @ hidden + bias
    labels = torch.arange(case.num_classes).repeat_interleave(case.per_class)
    targets = torch.eye(case.num_classes, dtype=torch.float64)[:, labels]
    if case.loss == "mse":
        fit = (output - targets).square().sum() / (2 * case.num_samples)
    else:
        fit = cross_entropy(output.T, labels)
    penalty = sum(lam / 2 * w.square().sum() for lam, w in zip(case.lambda_weights, weights, strict=True))
    penalty = penalty + case.lambda_features / 2 * features.square().sum()
    return fit + penalty + case.lambda_bias / 2 * bias.square().sum()


def autograd_descent(case, start, run, iterations, step):
    variables = [w[run].clone() for w in start.weights] + [
        start.features[run].clone(),
        start.bias[run].clone(),
    ]
    for _ in range(iterations):
        leaves = [v.requires_grad_() for v in variables]
        *weights, features, bias = leaves
        loss = objective(case, weights, features, bias)
        grads = torch.autograd.grad(loss, leaves)
        frozen = bias if case.bias == "none" else None
        variables = [(v if v is frozen else v - step * g).detach() for v, g in zip(leaves, grads, strict=True)]
    *weights, features, bias = variables
    return variables, objective(case, weights, features, bias)


@pytest.mark.parametrize(
    ("layers", "activation", "bias", "loss"),
    list(itertools.product([1, 2, 3], ["identity", "relu"], ["none", "free", "regularised"], ["mse", "ce"])),
)
@pytest.mark.parametrize("per_class", [2, 5])
def test_steps_are_those_of_autograd(layers, activation, bias, loss, per_class):
    """per_class 5 leaves K + d = 7 < N = 15: linear models run in rotated coordinates."""
    changes = {"layers": layers, "activation": activation, "bias": bias, "loss": loss, "per_class": per_class}
    cases = [problem(**changes), problem(lam=0.05, **changes)]
    options = {"step": 0.1, "start": 0.5, "logged": 3}
    start = minimise(cases, [3, 4], iterations=0, **options).final
    end = minimise(cases, [3, 4], iterations=7, **options)
    for run in (1, 2):
        expected, loss_value = autograd_descent(cases[run // 2], start, run, 7, 0.1)
        found = [w[run] for w in end.final.weights] + [end.final.features[run], end.final.bias[run]]
        for value, wanted in zip(found, expected, strict=True):
            torch.testing.assert_close(value, wanted, rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(end.loss[-1, run], loss_value, rtol=1e-12, atol=1e-14)


def draw(rng, layers, activation):
    """Return a random setting with a closed form, its step and its start.

    The lambdas keep the singular values near 1 and let what has to vanish do so at 1 - step lambda ~ 0.99. A
    start below its singular values' own size would lose directions for good: from F = 3 factors on, 0 is a
    local minimum of each of them. Spare dimensions keep the least singular value of the start up. Three ReLU layers
    need more of them: with d = 2 K a start has too often no unit left alive for a class (1 of 48 starts came through
    for K = 2, d = 4, n = 4); with d = 4 K at least one in six came through in 80 draws, and two in three on average.
    """
    bias = "none" if activation == "relu" else rng.choice(["none", "free"])
    K, n = rng.randint(2, 2 if activation == "relu" and layers > 2 else 10), rng.randint(1, 4)
    spare = 4 if activation == "relu" and layers > 2 else 1 if layers == 1 else 2
    d = spare * K + rng.randint(0, 4)
    level = rng.uniform(0.1, 0.2) / (K * n ** (1 / (layers + 1)))
    case = Problem(K, d, n, layers, activation, bias, "mse", (level,) * layers, level, 0.0)
    return (
        case,
        min({1: 0.1, 2: 0.1, 3: 0.05}[layers] * K * n, 0.7),
        {1: 0.7, 2: 0.9, 3: 1.0}[layers] / d**0.5,
    )


DEPTHS = [(1, "identity"), (2, "identity"), (3, "identity"), (2, "relu")] * 3 + [(1, "relu"), (3, "relu")]


BATCHES = 5
"""Starts of a setting are drawn at most so often, 3 to 12 at a time."""


def best_of_starts(case, step, start):
    """Descend from fresh starts until one ends at the closed form; return the last batch, its best run and seeds."""
    batch = 12 if not case.is_linear else 10 if case.layers == 3 else 3
    for first in range(0, batch * BATCHES, batch):
        seeds = range(first, first + batch)
        end = minimise(case, seeds, iterations=5000, step=step, start=start, logged=2)
        run = int(end.gap[-1].argmin())
        if abs(float(end.gap[-1, run])) < tolerance(case):
            break
    return end, run, seeds


def tolerance(case):
    """Return how near to its closed form a loss is to be."""
    return (1e-9 if case.is_linear else 1e-4) * optimum(case).loss


def collapse(case, end, run):
    """Return the largest of what must vanish: NC1 and NC3 of all layers, and NC2 (with ReLU of the last layer only)."""
    nc1, nc2, nc3 = (getattr(end, metric)[-1, run] for metric in ("nc1", "nc2", "nc3"))
    return float(torch.cat([nc1, nc2 if case.is_linear else nc2[-1:], nc3]).max())


def check(layers, activation, rng, seed):
    """Hold a drawn setting against its closed form."""
    case, step, start = draw(rng, layers, activation)
    end, run, _ = best_of_starts(case, step, start)
    gap = float(end.gap[-1, run])
    assert abs(gap) < tolerance(case), (seed, case, gap)
    assert float(end.nc1[-1, run].max()) < 1e-6, (seed, case, end.nc1[-1, run])
    assert collapse(case, end, run) < (1e-6 if case.is_linear else 5e-2), (
        seed,
        case,
        end.nc2[-1, run],
        end.nc3[-1, run],
    )


def test_random_settings_reach_their_closed_forms():
    """Relative gap below 1e-9 and NC1, NC2, NC3 of every layer below 1e-6, for linear models.

    Of several starts the best counts, since some end in other stationary values: local minima with units that are dead,
    or directions that are lost; up to BATCHES batches are drawn. For ReLU it is 1e-4 on the loss and, but for NC1, 5e-2
    on the metrics within the 5000 iterations. Its minima form a continuum (two classes may share a direction with
    opposite signs below the ReLU: the nuclear norm of [[1, -a], [-a, 1]] is 2 for all a in [0, 1]), on which the free
    features H are no frame, so that NC2 is asked of the last layer only, and along which descent is slow: the next test
    waits for it.
    """
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for layers, activation in DEPTHS:
        check(layers, activation, rng, seed)


@pytest.mark.slow
def test_relu_too_reaches_its_closed_form_given_time():
    """Relative gap below 1e-9, NC1 and NC3 of both layers and NC2 of the last one below 1e-6, in 12 random settings.

    In a batch with one start that came through. Of 153 draws 92 took 20,000 iterations, 59 100,000 and 2 500,000.
    """
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for _ in range(12):
        case, step, start = draw(rng, 2, "relu")
        *_, seeds = best_of_starts(case, step, start)
        for iterations in (20_000, 100_000, 500_000, 2_500_000):
            end = minimise(case, seeds, iterations=iterations, step=step, start=start, logged=2)
            run = min(range(len(seeds)), key=lambda run: collapse(case, end, run))
            if collapse(case, end, run) < 1e-6:
                break
        print(case, iterations, collapse(case, end, run))
        assert collapse(case, end, run) < 1e-6, (seed, case, end.nc1[-1], end.nc2[-1], end.nc3[-1])
        assert abs(float(end.gap[-1, run])) < 1e-9 * optimum(case).loss, (seed, case, end.gap)


@pytest.mark.slow
def test_every_draw_of_three_relu_layers_comes_through():
    """The setting that starts most often miss, over fixed seeds; those of the review's misses are among them."""
    for seed in range(1000, 1060):
        check(3, "relu", random.Random(seed), seed)


@pytest.mark.parametrize("layers", [1, 2])
def test_a_regularised_bias_reaches_its_closed_form(layers):
    case = Problem(4, 10, 2, layers, "identity", "regularised", "mse", (0.02,) * layers, 0.02, 0.8)
    best = optimum(case)
    end = minimise(case, [0, 1], iterations=5000, step=0.5, start=0.3, logged=2)
    run = int(end.gap[-1].argmin())
    assert float(end.loss[-1, run]) == pytest.approx(best.loss, rel=1e-9)
    torch.testing.assert_close(end.final.bias[run], torch.full((4, 1), best.bias, dtype=torch.float64))
    assert best.mean_value > 0.5
    assert max(float(nc[-1, run].max()) for nc in (end.nc1, end.nc2)) < 1e-6


@pytest.mark.parametrize(("changes", "loss"), [({}, 0.131421356237310), ({"bias": "free"}, 0.098566017177982)])
def test_figures_1_and_2_by_descent(changes, loss):
    case = Problem(**figure_1(**changes))
    end = minimise(case, [0, 1], iterations=30_000, step=0.1, start=1.0, logged=2)
    assert end.loss[-1].tolist() == pytest.approx([loss] * 2, rel=1e-9)
    assert max(float(getattr(end, metric)[-1].max()) for metric in ("nc1", "nc2", "nc3")) < 1e-6


def figure_1(**changes):
    values = {
        "num_classes": 4,
        "dim": 20,
        "per_class": 50,
        "layers": 1,
        "activation": "identity",
        "bias": "none",
        "loss": "mse",
    }
    values |= {"lambda_features": 0.005, "lambda_bias": 0.0} | changes
    return values | {"lambda_weights": (0.005,) * values["layers"]}


def test_deep_relu_descends_below_full_collapse():
    case = Problem(**figure_1(num_classes=10, per_class=1, layers=4, activation="relu"))
    end = minimise(case, range(6), iterations=8000, step=0.3, start=0.3, logged=2)
    run = int(end.loss[-1].argmin())
    assert optimum(case).status == "beaten"
    assert float(end.gap[-1, run]) < -0.01 * optimum(case).loss
    assert int(end.rank[-1, run, 0]) < 10


def test_a_batch_is_its_runs():
    cases = [problem(lam=0.01, layers=2), problem(lam=0.03, layers=2)]
    together = minimise(cases, [5, 6], iterations=50, step=0.2, start=0.5, logged=10)
    alone = minimise(cases[1], [6], iterations=50, step=0.2, start=0.5, logged=10)
    assert together.iterations == alone.iterations
    torch.testing.assert_close(together.loss[:, 3], alone.loss[:, 0], rtol=1e-13, atol=0)
    torch.testing.assert_close(together.nc2[:, 3], alone.nc2[:, 0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "changes", [{}, {"per_class": 20}, {"layers": 3, "activation": "relu"}, {"layers": 2, "loss": "ce", "bias": "free"}]
)
def test_what_is_logged_is_of_that_iteration(changes):
    options = {"step": 0.2, "start": 0.5}
    long = minimise(problem(**changes), [0, 1], iterations=30, logged=8, **options)
    assert len(long.iterations) > 6
    for position, iteration in enumerate(long.iterations):
        short = minimise(problem(**changes), [0, 1], iterations=iteration, logged=2, **options)
        for name in ("loss", "nc1", "nc2", "nc3", "rank"):
            torch.testing.assert_close(getattr(long, name)[position], getattr(short, name)[-1], rtol=1e-12, atol=0)


def test_what_goes_in_is_not_changed_and_what_comes_out_stays():
    seeds, cases = [3, 4], [problem(layers=2), problem(lam=0.05, layers=2)]
    first = minimise(cases, (seed for seed in seeds), iterations=20, step=0.2, start=0.5, logged=3)
    kept = [value.clone() for value in (*first.final.weights, first.final.features, first.loss)]
    minimise(cases, seeds, iterations=40, step=0.2, start=0.5, logged=3)
    for value, before in zip((*first.final.weights, first.final.features, first.loss), kept, strict=True):
        assert torch.equal(value, before)


def test_nc1_of_class_means_that_dead_units_leave_in_few_directions():
    """Directions in which class means differ by rounding alone count as none, as numpy's pinv has it."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.zeros(6, 2, dtype=torch.float64)
    directions[:3] = torch.randn(3, 2, generator=generator, dtype=torch.float64)
    means = directions @ torch.randn(2, 5, generator=generator, dtype=torch.float64) + 7
    deviations = torch.randn(6, 40, generator=generator, dtype=torch.float64) * 0.1
    middle = means - means.mean(1, keepdim=True)
    scatter = (deviations @ deviations.T / 40).numpy()
    expected = np.trace(scatter @ np.linalg.pinv((middle @ middle.T / 5).numpy(), rcond=1e-12, hermitian=True)) / 5
    same = torch.full((6, 5), 0.1, dtype=torch.float64)
    found = nc1(torch.stack([means, same]), torch.stack([deviations, deviations]), 40)
    assert float(found[0]) == pytest.approx(expected, rel=1e-9)
    assert math.isnan(float(found[1]))


def test_metrics_by_hand():
    case = problem(num_classes=3, dim=4, per_class=30)
    end = minimise(case, [0], iterations=0, step=0.1, start=1.0, logged=2)
    features, weight = end.final.features[0], end.final.weights[0][0]
    grouped = features.reshape(4, 3, 30)
    means = grouped.mean(2)
    within = (grouped - means[:, :, None]).reshape(4, 90)
    centred = means - means.mean(1, keepdim=True)
    nc1 = torch.trace(within @ within.T / 90 @ torch.linalg.pinv(centred @ centred.T / 3, hermitian=True)) / 3
    gram = means.T @ means
    nc2 = (gram / gram.norm() - torch.eye(3, dtype=torch.float64) / 3**0.5).norm()
    nc3 = (weight / weight.norm() - means.T / means.norm()).norm()
    for found, wanted in ((end.nc1, nc1), (end.nc2, nc2), (end.nc3, nc3)):
        assert float(found) == pytest.approx(float(wanted), rel=1e-10)


@pytest.mark.parametrize(
    ("layers", "activation", "bias", "loss"),
    list(itertools.product([1, 2], ["identity", "relu"], ["none", "free", "regularised"], ["mse", "ce"])),
)
def test_metrics_are_those_of_networks(layers, activation, bias, loss):
    """Of the same features: at the start, and on the way."""
    case = problem(layers=layers, activation=activation, bias=bias, loss=loss, dim=6, per_class=3)
    end = minimise(case, [0, 1], iterations=40, step=0.2, start=0.8, logged=2)
    start = minimise(case, [0, 1], iterations=0, step=0.2, start=0.8, logged=2).final
    labels = torch.arange(3).repeat_interleave(3)
    frame = "of" if loss == "mse" and bias == "none" else "etf"
    for t, state in ((0, start), (-1, end.final)):
        for run, layer in itertools.product((0, 1), range(layers)):
            features, reader = state.features[run], state.weights[-1][run]
            for weight in state.weights[:layer]:
                features = weight[run] @ features
                features = torch.relu(features) if activation == "relu" else features
            for weight in reversed(state.weights[layer:-1]):
                reader = reader @ weight[run]
            moments = Moments.of(features.T, labels, 3)
            networks = collapse_metrics(moments, reader, preset="tirer2022")
            for name in ("nc1", "nc2", "nc3"):
                wanted = networks[name if name == "nc1" else f"{name}_{frame}"]
                assert float(getattr(end, name)[t, run, layer]) == pytest.approx(wanted, rel=1e-9), name


def test_relu_with_a_free_bias_is_self_dual_about_the_global_mean():
    """Its class means keep a common part, which the bias makes up for."""
    case = Problem(**figure_1(layers=2, activation="relu", bias="free"))
    end = minimise(case, [0, 1], iterations=50_000, step=0.1, start=0.3, logged=2)
    assert float(end.nc3[-1, 1].max()) < 1e-6
    assert float(end.nc3[-1, 0].min()) > 0.1  # behind its ReLU the features of one class are all zero


def test_features_that_vanish_have_rank_0_and_no_metrics():
    case = problem(num_classes=4, dim=6)
    for scale in (0.0, 1e-160):
        end = minimise(case, [0], iterations=0, step=0.1, start=scale, logged=2)
        assert float(end.rank) == 0
        assert all(bool(metric.isnan().all()) for metric in (end.nc1, end.nc2, end.nc3))
    end = minimise(case, [0], iterations=0, step=0.1, start=1e-40, logged=2)
    assert float(end.rank) == 4
    assert all(bool(metric.isfinite().all()) for metric in (end.nc1, end.nc2, end.nc3))


def test_rotation_keeps_means_and_scatter_and_comes_back():
    features = torch.randn(2, 3, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    samples, columns = rotated(features, 4)
    assert columns.shape == (2, 3, 7)
    means, deviations = samples.split(columns)
    grouped = features.unflatten(2, (4, 6))
    torch.testing.assert_close(means, grouped.mean(3))
    within = (grouped - grouped.mean(3, keepdim=True)).flatten(2)
    torch.testing.assert_close(deviations @ deviations.mT, within @ within.mT)


def test_a_step_that_diverges_stops_with_two_ways_out():
    case = Problem(**figure_1(layers=2))
    with pytest.raises(EqcollapseError, match=r"^b-figure-3: .*iteration \d+ .*smaller `step`, or a smaller `start`"):
        minimise(case, [0], iterations=5000, step=0.1, start=1.0, logged=10, name="b-figure-3")


@pytest.mark.parametrize("per_class", [1, 50])
@pytest.mark.parametrize("layers", [3, 4])
def test_a_step_that_kills_all_relus_has_diverged_too(layers, per_class):
    """The output is 0 from then on, and finite, while the weights are enormous."""
    case = Problem(**figure_1(layers=layers, activation="relu", per_class=per_class))
    with pytest.raises(EqcollapseError, match="diverged"):
        minimise(case, range(6), iterations=400, step=0.1, start=1.0, logged=4)


@pytest.mark.parametrize(
    ("layers", "loss", "per_class", "start", "seed"), [(3, "mse", 5, 0.7, 11), (4, "ce", 1, 1.0, 9)]
)
def test_a_step_that_kills_all_relus_has_diverged_also_where_the_loss_falls_again(layers, loss, per_class, start, seed):
    """It rose to less than five times that of the start, 140 of them, and is at 66 after 400 iterations."""
    case = Problem(**figure_1(layers=layers, activation="relu", per_class=per_class, loss=loss))
    with pytest.raises(EqcollapseError, match="diverged"):
        minimise(case, [seed], iterations=400, step=0.1, start=start, logged=5)


def test_features_that_vanish_as_they_should_have_not_diverged():
    case = Problem(**figure_1(layers=2, activation="relu", num_classes=2, dim=3, per_class=1))
    case = dataclasses.replace(case, lambda_weights=(3.0, 3.0), lambda_features=3.0)
    end = minimise(case, [0], iterations=3000, step=0.3, start=0.3, logged=5)
    assert float(end.final.features.abs().max()) == 0
    assert float(end.loss[-1]) == optimum(case).loss


def test_problems_of_different_shapes_do_not_batch():
    with pytest.raises(EqcollapseError, match="lambdas only"):
        minimise([problem(), problem(dim=5)], [0], iterations=1, step=0.1, start=1.0, logged=2)


def test_log_spaced_holds_both_ends():
    assert {0, 1, 1000} <= log_spaced(1000, 20)
    assert len(log_spaced(10**6, 20)) <= 22
    assert log_spaced(0, 20) == {0}
