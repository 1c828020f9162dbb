"""Solving: what is reported is true, for each sample, under every method, whatever f does."""

import math

import pytest
import torch
from torch import Tensor, nn

from eqcollapse.equilibrium import ConfigError, LayerError, Solution, SolverConfig, solve
from eqcollapse.equilibrium.solver_config import METHODS
from eqcollapse.equilibrium.solvers import SOLVERS, mixing_weights

EVERY_METHOD = pytest.mark.parametrize("method", SOLVERS)


def linear(dim: int, norm: float, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """W of spectral norm `norm`, and b (5, dim)."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(dim, dim, generator=generator, dtype=torch.float64)
    bias = torch.randn(5, dim, generator=generator, dtype=torch.float64)
    return (weight * norm / torch.linalg.matrix_norm(weight, ord=2)).to(dtype), bias.to(dtype)


def affine(weight: Tensor, bias: Tensor):
    return lambda z: z @ weight.T + bias


def residual_of(f, solution: Solution, criterion: str) -> Tensor:
    image = f(solution.z)
    difference = (image - solution.z).flatten(1).norm(dim=1)
    return difference if criterion == "absolute" else difference / image.flatten(1).norm(dim=1)


@EVERY_METHOD
def test_linear_closed_form(method):
    weight, bias = linear(20, 0.8)
    solution = solve(affine(weight, bias), torch.zeros_like(bias), method=method, tol=1e-12, max_iter=200)
    exact = torch.linalg.solve(torch.eye(20, dtype=torch.float64) - weight, bias.T).T
    assert solution.converged.all()
    torch.testing.assert_close(solution.z, exact, rtol=1e-10, atol=1e-10)


@EVERY_METHOD
@pytest.mark.parametrize("criterion", ["relative", "absolute"])
@pytest.mark.parametrize("max_iter", [1, 2, 3, 20])
@pytest.mark.parametrize("norm", [0.5, 3.0])
def test_reported_residual_is_that_of_the_returned_state(method, criterion, max_iter, norm):
    f = affine(*linear(12, norm))
    solution = solve(f, torch.ones(5, 12, dtype=torch.float64), method=method, criterion=criterion, max_iter=max_iter)
    torch.testing.assert_close(solution.residual, residual_of(f, solution, criterion))
    assert torch.equal(solution.converged, solution.residual <= 1e-3)


@EVERY_METHOD
@pytest.mark.parametrize("max_iter", [1, 2, 3, 7])
def test_at_most_max_iter_evaluations(method, max_iter):
    calls = []
    f = affine(*linear(12, 0.9))

    def counted(z):
        calls.append(z)
        return f(z)

    solution = solve(counted, torch.zeros(5, 12, dtype=torch.float64), method=method, max_iter=max_iter, tol=0)
    assert len(calls) == solution.evaluations == max_iter
    assert (solution.steps == max_iter).all()
    start = solve(f, torch.zeros(5, 12, dtype=torch.float64), max_iter=1).residual
    assert (solution.residual < start).all() == (max_iter > 1)


@pytest.mark.parametrize("method", ["picard", "anderson"])
def test_two_evaluations_move_away_from_the_start(method):
    f = affine(*linear(12, 0.5))
    zeros = torch.zeros(5, 12, dtype=torch.float64)
    assert torch.equal(solve(f, zeros, method=method, max_iter=2).z, f(zeros))


def test_an_expansion_is_reported_as_not_converged():
    """On the way to infinity ||f(z)|| overflows before ||f(z) - z|| does."""
    solution = solve(lambda z: 3 * z + 1, torch.zeros(4, 2), method="picard", max_iter=200)
    assert not solution.converged.any()
    assert solution.z.isfinite().all()
    assert solution.residual.isfinite().all()


@pytest.mark.parametrize("method", ["anderson", "broyden"])
def test_where_picard_fails(method):
    """A rotation by a right angle scaled by 1.2: eigenvalues ±1.2 i, so Picard diverges; I - W is regular."""
    weight = 1.2 * torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    bias = torch.tensor([[1.0, 2.0], [-3.0, 0.5]], dtype=torch.float64)
    exact = torch.linalg.solve(torch.eye(2, dtype=torch.float64) - weight, bias.T).T
    options = {"tol": 1e-9, "max_iter": 30, "ridge": 1e-12}
    found = solve(affine(weight, bias), torch.zeros_like(bias), method=method, **options)
    assert found.converged.all()
    torch.testing.assert_close(found.z, exact, rtol=1e-7, atol=1e-7)
    assert not solve(affine(weight, bias), torch.zeros_like(bias), method="picard", **options).converged.any()


@pytest.mark.parametrize("rate", [0.9, 0.99, 0.999])
def test_geometric_decay_is_extrapolated(rate):
    """Two residuals tell Anderson the limit of z <- rate z + (1 - rate); Picard needs ln(tol)/ln(rate)."""
    f = lambda z: rate * z + (1 - rate)  # noqa: E731
    solution = solve(f, torch.zeros(3, 4, dtype=torch.float64), tol=1e-9, max_iter=8, ridge=1e-14)
    assert solution.converged.all()
    torch.testing.assert_close(solution.z, torch.ones(3, 4, dtype=torch.float64), rtol=1e-5, atol=1e-5)


def test_broyden_converges_where_a_short_window_does_not():
    generator = torch.Generator().manual_seed(1)
    rotation = torch.linalg.qr(torch.randn(30, 30, generator=generator, dtype=torch.float64))[0]
    bias = torch.randn(4, 30, generator=generator, dtype=torch.float64)
    f = affine(1.3 * rotation, bias)
    zeros = torch.zeros_like(bias)
    assert solve(f, zeros, method="broyden", max_iter=100).converged.all()
    assert not solve(f, zeros, method="anderson", max_iter=100).converged.any()


@pytest.mark.parametrize("ridge", [1e-12, 1e-6, 1e-2])
def test_mixing_weights_are_optimal(ridge):
    """They minimise a^T (G + ridge diag G) a under sum a = 1: no feasible direction descends; scale-free."""
    residuals = torch.randn(6, 4, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    gram = residuals @ residuals.mT
    weights = mixing_weights(gram, ridge)
    torch.testing.assert_close(weights.sum(-1), torch.ones(6, dtype=torch.float64))
    ridged = gram + ridge * torch.diag_embed(gram.diagonal(dim1=-2, dim2=-1))
    gradient = (ridged @ weights.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(gradient, gradient.mean(-1, keepdim=True).expand_as(gradient))
    torch.testing.assert_close(mixing_weights(1e-12 * gram, ridge), weights)


def test_mixing_weights_of_degenerate_residuals_are_finite():
    gram = torch.zeros(3, 2, 2, dtype=torch.float64)
    gram[1] = 1.0  # collinear
    gram[2, 0, 0] = 4.0  # the second residual is exactly zero
    weights = mixing_weights(gram, 1e-4)
    torch.testing.assert_close(weights[2], torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert weights.isfinite().all()
    assert mixing_weights(gram, 0.0).isfinite().all()


@EVERY_METHOD
def test_nan_in_one_sample_keeps_its_best_and_leaves_the_others_alone(method):
    f = affine(*linear(12, 0.8, dtype=torch.float32))
    calls = []

    def poisoned(z):
        calls.append(z)
        image = f(z)
        if len(calls) == 4:
            image = image.clone()
            image[2] = math.nan
        return image

    options = {"method": method, "tol": 1e-5, "max_iter": 40}
    clean = solve(f, torch.zeros(5, 12), **options)
    hurt = solve(poisoned, torch.zeros(5, 12), **options)
    others = torch.tensor([0, 1, 3, 4])
    assert torch.equal(hurt.z[others], clean.z[others])
    assert torch.equal(hurt.residual[others], clean.residual[others])
    assert torch.equal(hurt.z[2], calls[2][2])
    torch.testing.assert_close(hurt.residual[2], residual_of(f, hurt, "relative")[2])
    assert hurt.converged.tolist() == [True, True, False, True, True]
    assert hurt.steps[2] == 4


@EVERY_METHOD
def test_nan_everywhere_returns_the_start_unconverged(method):
    solution = solve(lambda z: z * math.nan, torch.ones(3, 2), method=method)
    assert torch.equal(solution.z, torch.ones(3, 2))
    assert solution.residual.isinf().all()
    assert solution.evaluations == 1


@EVERY_METHOD
@pytest.mark.parametrize("scale", [1e-6, 1e-4, 1e4, 1e6])
def test_scale_of_the_state_changes_nothing(method, scale):
    weight, bias = linear(12, 0.8, dtype=torch.float32)
    bias = bias.tanh()
    f = affine(weight, bias)
    plain = solve(f, torch.zeros(5, 12), method=method)
    scaled = solve(lambda z: scale * f(z / scale), torch.zeros(5, 12), method=method)
    assert torch.equal(scaled.steps, plain.steps)
    torch.testing.assert_close(scaled.z / scale, plain.z, rtol=1e-3, atol=1e-4)


@EVERY_METHOD
@pytest.mark.parametrize("scale", [1e-30, 1e-25, 1e25])
@pytest.mark.parametrize("check_every", [0, 1])
def test_squares_that_leave_float32_change_nothing(method, scale, check_every):
    """The middle sample alone is tiny or huge; the residual is checked in float64."""
    weight, bias = linear(12, 0.8, dtype=torch.float32)
    scales = torch.ones(5, 1).index_fill_(0, torch.tensor(2), scale)
    options = {"method": method, "check_every": check_every, "max_iter": 12}
    plain = solve(affine(weight, bias), torch.zeros(5, 12), **options)
    scaled = solve(affine(weight, scales * bias), torch.zeros(5, 12), **options)
    others = torch.tensor([0, 1, 3, 4])
    assert torch.equal(scaled.z[others], plain.z[others])
    assert torch.equal(scaled.residual[others], plain.residual[others])
    assert torch.equal(scaled.steps, plain.steps)
    torch.testing.assert_close(scaled.z / scales, plain.z, rtol=1e-3, atol=1e-4)
    exact = Solution(scaled.z.double(), *[None] * 4)
    expected = residual_of(affine(weight.double(), (scales * bias).double()), exact, "relative")
    torch.testing.assert_close(scaled.residual.double(), expected, rtol=1e-2, atol=2e-7)


def test_a_state_that_becomes_tiny_is_not_taken_for_a_solution():
    """From 1 to 1e-25 in one step, and on by halves: the relative residual stays 1."""
    solution = solve(lambda z: torch.where(z > 0.5, 1e-25 * z, 0.5 * z), torch.ones(2, 3), method="picard", max_iter=6)
    assert not solution.converged.any()
    torch.testing.assert_close(solution.residual, torch.ones(2))
    assert solve(lambda z: 0 * z, torch.ones(2, 3)).converged.all()


@EVERY_METHOD
def test_float64_at_any_scale(method):
    weight, bias = linear(12, 0.8)
    plain = solve(affine(weight, bias), torch.zeros_like(bias), method=method)
    scaled = solve(affine(weight, 2.0**-800 * bias), torch.zeros_like(bias), method=method)
    assert torch.equal(scaled.steps, plain.steps)
    torch.testing.assert_close(2.0**800 * scaled.z, plain.z)


@EVERY_METHOD
def test_a_sample_alone_and_in_a_batch(method):
    """Easy and hard samples in one batch: with freezing each ends where it would end alone."""
    rates = torch.tensor([0.1, 0.5, 0.9, 0.97]).view(4, 1)
    bias = torch.randn(4, 16, generator=torch.Generator().manual_seed(3))

    def over(rows: slice):
        return lambda z: torch.tanh(rates[rows] * z.roll(1, dims=-1) + bias[rows])

    together = solve(over(slice(None)), torch.zeros(4, 16), method=method, max_iter=60)
    for row in range(4):
        rows = slice(row, row + 1)
        alone = solve(over(rows), torch.zeros(1, 16), method=method, max_iter=60)
        torch.testing.assert_close(together.z[rows], alone.z, rtol=0, atol=1e-6)
        assert together.steps[row] == alone.steps[0] == alone.evaluations
    going_on = solve(over(slice(None)), torch.zeros(4, 16), method=method, max_iter=60, freeze=False)
    assert (going_on.residual <= together.residual).all()
    assert (going_on.residual < together.residual).any()


@EVERY_METHOD
@pytest.mark.parametrize("check_every", [0, 3, 50])
def test_looking_less_often_finds_the_same(method, check_every):
    weight, bias = linear(12, 0.9, dtype=torch.float32)
    f = affine(weight, bias)
    often = solve(f, torch.zeros(5, 12), method=method, max_iter=40)
    seldom = solve(f, torch.zeros(5, 12), method=method, max_iter=40, check_every=check_every)
    for name in ("z", "residual", "steps", "converged"):
        assert torch.equal(getattr(seldom, name), getattr(often, name))
    spent = {0: 40, 3: 3 * math.ceil(often.evaluations / 3), 50: 40}
    assert seldom.evaluations == spent[check_every]


def test_unlooked_at_loop_never_reads_back(monkeypatch):
    def read(self):
        raise AssertionError("a tensor was read on the host")

    for name in ("item", "tolist", "__bool__"):
        monkeypatch.setattr(Tensor, name, read)
    for name in ("equal", "allclose"):
        monkeypatch.setattr(torch, name, lambda one, other: read(one))
    for method in SOLVERS:
        solve(lambda z: 0.5 * z + 1, torch.zeros(3, 4), method=method, check_every=0, max_iter=5)


@EVERY_METHOD
def test_f_may_write_every_result_to_the_same_place(method):
    """As a captured CUDA graph does; the fixed point of z/2 + 1 is 2."""
    buffer = torch.zeros(2, 3)
    solution = solve(
        lambda z: torch.mul(z, 0.5, out=buffer).add_(1), torch.zeros(2, 3), method=method, tol=1e-6, max_iter=40
    )
    assert solution.converged.all()
    assert torch.allclose(solution.z, torch.full((2, 3), 2.0), atol=1e-5)


@EVERY_METHOD
def test_f_may_not_change_its_state(method):
    with pytest.raises(LayerError, match="in place"):
        solve(lambda z: z.mul_(0.5).add_(1), torch.zeros(2, 3), method=method, tol=1e-6, max_iter=40)


def test_anderson_solves_its_system_in_float64():
    """Residuals that differ by 1e-5 of their size: float32's Gram matrix cannot tell them apart."""
    weight, bias = linear(32, 0.999, dtype=torch.float32)
    f = affine(weight, bias)
    truth = torch.linalg.solve(torch.eye(32, dtype=torch.float64) - weight.double(), bias.double().T).T
    found = solve(f, torch.zeros_like(bias), tol=1e-6, max_iter=200, memory=10, ridge=0.0)
    assert (found.z - truth).norm() < 1e-2 * truth.norm()


@EVERY_METHOD
@pytest.mark.parametrize("noisy", [torch.float32, torch.bfloat16])
def test_past_the_noise_floor_nothing_gets_worse(method, noisy):
    weight, bias = linear(32, 0.8, dtype=torch.float32)
    f = lambda z: ((z.to(noisy) @ weight.to(noisy).T) + bias.to(noisy)).float()[:, :32]  # noqa: E731
    residuals = [
        solve(f, torch.zeros(5, 32), method=method, tol=0, max_iter=steps).residual.max().item()
        for steps in (10, 30, 100)
    ]
    assert residuals == sorted(residuals, reverse=True)
    assert residuals[-1] < (1e-6 if noisy is torch.float32 else 2e-2)


@EVERY_METHOD
def test_the_start_does_not_matter_for_a_contraction(method):
    weight, bias = linear(12, 0.7)
    f = affine(weight, bias)
    starts = torch.zeros_like(bias), torch.randn_like(bias), bias
    ends = [solve(f, start, method=method, tol=1e-10, max_iter=100).z for start in starts]
    torch.testing.assert_close(ends[0], ends[1])
    torch.testing.assert_close(ends[0], ends[2])


@EVERY_METHOD
def test_shapes_of_any_rank_and_the_empty_batch(method):
    f = lambda z: 0.5 * z + 1  # noqa: E731
    for shape in ((4,), (4, 3), (4, 3, 2, 2), (0, 3, 2)):
        solution = solve(f, torch.zeros(shape), method=method, tol=1e-6, max_iter=50)
        torch.testing.assert_close(solution.z, torch.full(shape, 2.0), rtol=1e-4, atol=1e-4)
        assert solution.residual.shape == solution.steps.shape == solution.converged.shape == shape[:1]


def test_autocast_reaches_f_and_nothing_else():
    layer, seen = nn.Linear(16, 16), []

    def f(z):
        image = layer(z) * 0.5
        seen.append((z.dtype, image.dtype))
        return image

    with torch.autocast("cpu", dtype=torch.bfloat16):
        for method in SOLVERS:
            solution = solve(f, torch.zeros(4, 16), method=method)
            assert solution.z.dtype == solution.residual.dtype == torch.float32
    assert set(seen) == {(torch.float32, torch.bfloat16)}


def test_the_result_does_not_share_the_starts_memory():
    z0 = torch.full((2, 3), 2.0)
    solution = solve(lambda z: 0.5 * z + 1, z0)
    z0.zero_()
    assert (solution.z == 2).all()


def test_no_graph_is_kept():
    weight, bias = linear(6, 0.5)
    weight.requires_grad_()
    z0 = torch.zeros_like(bias).requires_grad_()
    solution = solve(affine(weight, bias), z0)
    assert not solution.z.requires_grad
    assert not solution.residual.requires_grad


def test_half_precision_states_and_wrong_shapes_are_refused():
    with pytest.raises(LayerError, match="float32 or float64"):
        solve(lambda z: z, torch.zeros(2, 2, dtype=torch.bfloat16))
    with pytest.raises(LayerError, match=r"^the state is real, not torch.complex64: [^\n]*view_as_real"):
        solve(lambda z: z / 2, torch.ones(2, 2, dtype=torch.complex64))
    with pytest.raises(LayerError, match="keep the shape"):
        solve(lambda z: z[:, :1], torch.zeros(2, 2))


def test_unknown_options_are_errors():
    options = {"tol": 1e-4, "stop_mode": "rel"}
    with pytest.raises(ConfigError, match="unknown solver option 'stop_mode'"):
        SolverConfig.from_dict(options)
    assert options == {"tol": 1e-4, "stop_mode": "rel"}
    with pytest.raises(ConfigError, match="toll"):
        solve(lambda z: z, torch.zeros(2, 2), toll=1)
    with pytest.raises(ConfigError, match="not both"):
        solve(lambda z: z, torch.zeros(2, 2), SolverConfig(), tol=1)
    assert SolverConfig.from_dict({"method": "picard", "max_iter": 3}) == SolverConfig(method="picard", max_iter=3)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("method", "newton"),
        ("criterion", "rel"),
        ("tol", -1.0),
        ("tol", math.nan),
        ("tol", "1e-3"),
        ("ridge", -1.0),
        ("max_iter", 0),
        ("max_iter", 2.5),
        ("memory", 0),
        ("check_every", -1),
        ("freeze", "yes"),
    ],
)
def test_values_out_of_range_name_their_key(key, value):
    with pytest.raises(ConfigError, match=f"solver option {key}"):
        SolverConfig.from_dict({key: value})


@pytest.mark.parametrize("check_every", [0, 1])
@pytest.mark.parametrize("size", [1e-24, 1e25])
def test_an_absolute_residual_is_right_where_its_square_leaves_the_precision(size, check_every):
    """Of z / 2 + size it is size / 2^(n - 1) a number after n Picard evaluations, but for the rounding of states."""
    options = {"method": "picard", "criterion": "absolute", "max_iter": 10, "check_every": check_every}
    found = solve(lambda z: 0.5 * z + size, torch.zeros(2, 3), tol=size / 100, **options)
    torch.testing.assert_close(found.residual, torch.full((2,), 3**0.5 * size / 2**8), rtol=1e-3, atol=0)
    assert found.converged.all()
    assert found.steps.tolist() == [9, 9]


def test_every_solver_has_its_name_in_the_config():
    assert set(SOLVERS) == set(METHODS)
