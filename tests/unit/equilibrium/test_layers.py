"""Layers keep what they promise; diagnostics and policies say what is."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import gradcheck
from torch.nn import functional as F  # noqa: N812

from eqcollapse.equilibrium import (
    ConfigError,
    ContractiveConv,
    ConvergencePolicy,
    Equilibrium,
    LinearEquilibrium,
    NotConverged,
    ResidualConv,
    SolverConfig,
    conv_norm_bound,
    jacobian_regularisation,
    matrix_norm_bound,
    nan_origin,
    solve,
    spectral_radius,
)


def operator(kernel: Tensor, size: tuple[int, int]) -> Tensor:
    """The zero-padded convolution as a dense matrix, column by column."""
    inputs = kernel.shape[1] * math.prod(size)
    basis = torch.eye(inputs, dtype=kernel.dtype).view(inputs, kernel.shape[1], *size)
    padding = kernel.shape[-2] // 2, kernel.shape[-1] // 2
    return F.conv2d(basis, kernel, padding=padding).flatten(1).T


def norm(matrix: Tensor) -> float:
    return torch.linalg.matrix_norm(matrix, ord=2).item()


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    st.integers(0, 10**6),
    st.sampled_from([(1, 1), (3, 3), (1, 3), (5, 3)]),
    st.tuples(st.integers(1, 14), st.integers(1, 14)),
    st.sampled_from([(1, 1), (3, 2), (2, 4)]),
    st.sampled_from(["normal", "low-pass", "shift"]),
)
def test_conv_bound_is_never_below_the_operator_norm(seed, taps, size, channels, kind):
    generator = torch.Generator().manual_seed(seed)
    kernel = torch.randn(*channels, *taps, generator=generator)
    if kind == "low-pass":  # all in phase at one frequency: the bound has no room
        kernel = kernel.abs()
    if kind == "shift":
        kernel = torch.zeros(*channels, *taps)
        kernel[0, 0, 0, 0] = 1.0
    exact = norm(operator(kernel.double(), size))
    bound = conv_norm_bound(kernel, size).item()
    assert bound >= exact
    assert bound <= 4 * exact + 1e-6


@pytest.mark.parametrize("size", [(3, 3), (8, 8), (20, 20)])
def test_conv_bound_is_close_where_the_worst_wave_fits_the_image(size):
    """A kernel of ones: norm of the operator is that of one tridiagonal Toeplitz matrix of ones, squared."""
    kernel = torch.ones(1, 1, 3, 3)
    exact = (1 + 2 * math.cos(math.pi / (size[0] + 1))) ** 2
    assert exact <= conv_norm_bound(kernel, size).item() <= 9 * 1.08


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (64, 64), (1, 1)])
def test_matrix_bound_is_above_and_near(shape):
    matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    exact = norm(matrix.double())
    assert exact <= matrix_norm_bound(matrix).item() <= 1.034 * exact


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_bounds_follow_any_scale(scale):
    kernel = torch.randn(4, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    expected = scale * conv_norm_bound(kernel, (5, 5))
    torch.testing.assert_close(conv_norm_bound(scale * kernel, (5, 5)), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("size", [(2, 2), (8, 8)])
def test_bounds_are_computed_outside_autocast(size):
    kernel = torch.randn(4, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = conv_norm_bound(kernel, size), matrix_norm_bound(kernel[..., 0, 0])
    assert inside == (conv_norm_bound(kernel, size), matrix_norm_bound(kernel[..., 0, 0]))


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (8, 8)])
def test_a_zero_kernel_has_finite_gradients(size):
    layer = ContractiveConv(8)
    nn.init.zeros_(layer.kernel1)
    sum(kernel.sum() for kernel in layer.operators(size)).backward()
    assert layer.kernel1.grad.isfinite().all()


@pytest.mark.parametrize("size", [(2, 2), (4, 3), (16, 16)])
def test_gradient_of_the_conv_bound(size):
    kernel = torch.randn(3, 2, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert gradcheck(lambda kernel: conv_norm_bound(kernel, size), (kernel.requires_grad_(),))


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (4, 4), (5, 3)])
@pytest.mark.parametrize("gain", [1.0, 50.0])
def test_contractive_conv_is_a_contraction_for_any_weights(size, gain):
    torch.manual_seed(0)
    layer = ContractiveConv(8, hidden=16, bound=0.8)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(gain)
    kernels = layer.operators(size)
    assert math.prod(norm(operator(kernel.detach().double(), size)) for kernel in kernels) <= 0.8
    x, a, b = (gain * torch.randn(20, 8, *size) for _ in range(3))
    f = layer.bind(x)
    ratio = (f(a) - f(b)).flatten(1).norm(dim=1) / (a - b).flatten(1).norm(dim=1)
    assert (ratio <= 0.8).all()
    report = layer.contraction(size)
    assert report.measured <= report.certified <= report.bound * (1 + 1e-5)
    assert report.slack == report.bound - report.measured


def test_contractive_conv_leaves_small_weights_alone():
    layer = ContractiveConv(8)
    with torch.no_grad():
        layer.kernel1.mul_(0.01)
    assert torch.equal(layer.operators((4, 4))[0], layer.kernel1)


def test_contraction_holds_through_coarse_training():
    torch.manual_seed(0)
    layer = ContractiveConv(8, bound=0.9)
    config = SolverConfig(tol=1e-3, max_iter=20)
    equilibrium = Equilibrium(layer, config, config)
    head = nn.Linear(8, 3)
    optimiser = torch.optim.SGD([*layer.parameters(), *head.parameters()], lr=0.5, momentum=0.9)
    x, labels = torch.randn(48, 8, 3, 3), torch.arange(48) % 3
    for _ in range(30):
        optimiser.zero_grad()
        loss = F.cross_entropy(head(equilibrium(x).mean((2, 3))), labels)
        loss.backward()
        optimiser.step()
        assert layer.contraction((3, 3)).certified <= 0.9 * (1 + 1e-5)
    summary = equilibrium.statistics.summary()
    assert summary["solver_converged"] == summary["adjoint_converged"] == 1.0


def test_bind_equals_forward():
    torch.manual_seed(0)
    layer = ContractiveConv(8)
    z, x = torch.randn(2, 3, 8, 4, 4)
    assert torch.equal(layer.bind(x)(z), layer(z, x))


def test_bound_is_computed_once_a_solve(monkeypatch):
    calls = []
    layer = ContractiveConv(8)
    operators = layer.operators
    monkeypatch.setattr(layer, "operators", lambda size: calls.append(size) or operators(size))
    equilibrium = Equilibrium(layer)
    equilibrium(torch.randn(2, 8, 4, 4)).sum().backward()
    assert equilibrium.solution.evaluations > 1
    assert calls == [(4, 4)]


@pytest.mark.parametrize("shape", [(6,), (5, 6), (2, 3, 6)])
def test_linear_equilibrium_is_the_closed_form(shape):
    torch.manual_seed(0)
    layer = LinearEquilibrium(6, bound=0.7).double()
    x = torch.randn(*shape, dtype=torch.float64)
    z = layer(x)
    torch.testing.assert_close(z, z @ layer.weight.T + x)
    rows = x.reshape(-1, 6)
    solved = solve(lambda z: z @ layer.weight.T + rows, torch.zeros_like(rows), tol=1e-12, max_iter=100)
    torch.testing.assert_close(z.reshape(-1, 6), solved.z)
    report = layer.contraction()
    assert report.measured <= report.certified <= 0.7 * (1 + 1e-5)
    assert report.measured == pytest.approx(norm(layer.weight))

    def function(x: Tensor, raw: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"raw": raw}, (x,))

    assert gradcheck(function, (x.requires_grad_(), layer.raw))


@pytest.mark.parametrize("build", [ContractiveConv, LinearEquilibrium])
@pytest.mark.parametrize("bound", [0.0, 1.0, -0.5])
def test_bounds_outside_the_unit_interval_are_errors(build, bound):
    with pytest.raises(ConfigError, match="bound"):
        build(8, bound=bound)


def test_residual_conv_starts_with_an_equilibrium():
    torch.manual_seed(0)
    layer = ResidualConv(16)
    x = torch.randn(4, 16, 4, 4)
    assert solve(lambda z: layer(z, x), torch.zeros_like(x)).converged.all()


def rotation(angle: float, factor: float) -> Tensor:
    cosine, sine = math.cos(angle), math.sin(angle)
    return factor * torch.tensor([[cosine, -sine], [sine, cosine]], dtype=torch.float64)


@pytest.mark.parametrize("angle", [0.0, 0.3, 1.0, math.pi / 2, math.pi])
def test_spectral_radius_of_a_rotation(angle):
    weight = rotation(angle, 0.9)
    radius = spectral_radius(lambda z: z @ weight.T, torch.zeros(3, 2, dtype=torch.float64))
    torch.testing.assert_close(radius, torch.full((3,), 0.9, dtype=torch.float64))


def test_spectral_radius_of_a_full_matrix():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(30, 30, generator=generator, dtype=torch.float64) / 30**0.5
    exact = torch.linalg.eigvals(weight).abs().max()
    radius = spectral_radius(lambda z: z @ weight.T, torch.zeros(2, 30, dtype=torch.float64), steps=400)
    torch.testing.assert_close(radius, exact.expand(2), rtol=0.02, atol=0)
    assert exact < 0.8 * norm(weight)  # a norm would be far off


def test_spectral_radius_is_by_sample_and_zero_for_a_constant():
    rates = torch.tensor([0.2, 1.5]).view(2, 1)
    radius = spectral_radius(lambda z: rates * z, torch.zeros(2, 4))
    torch.testing.assert_close(radius, rates.flatten())
    assert (spectral_radius(lambda z: 0 * z + 1, torch.zeros(2, 4)) < 1e-6).all()


def test_jacobian_regularisation_estimates_the_frobenius_norm():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(10, 10, generator=generator, dtype=torch.float64).requires_grad_()
    z = torch.zeros(400, 10, dtype=torch.float64)
    estimate = jacobian_regularisation(lambda z: z @ weight.T, z, samples=20, seed=0)
    torch.testing.assert_close(estimate, weight.square().sum() / 10, rtol=0.03, atol=0)
    (gradient,) = torch.autograd.grad(estimate, weight)
    torch.testing.assert_close(gradient, 2 * weight.detach() / 10, rtol=0.2, atol=0.05)
    again = jacobian_regularisation(lambda z: z @ weight.T, z, samples=20, seed=0)
    assert torch.equal(estimate, again)


def test_nan_origin_names_the_module():
    layer = ResidualConv(8)
    z, x = torch.randn(2, 1, 8, 4, 4)
    assert nan_origin(layer, z, x) is None
    assert nan_origin(layer, z * math.nan, x) == "z"
    assert nan_origin(layer, z, x * math.inf) == "x"
    with torch.no_grad():
        layer.norm2.weight.fill_(math.nan)
    assert nan_origin(layer, z, x) == "norm2"
    assert not any(module._forward_hooks for module in layer.modules())


def test_statistics_are_those_of_the_solves():
    torch.manual_seed(0)
    equilibrium = Equilibrium(ContractiveConv(8))
    solutions, adjoints = [], []
    for batch in (4, 2):
        equilibrium(torch.randn(batch, 8, 3, 3)).square().sum().backward()
        solutions.append(equilibrium.solution)
        adjoints.append(equilibrium.adjoint)
    summary = equilibrium.statistics.summary()
    for kind, found in (("solver", solutions), ("adjoint", adjoints)):
        residual = torch.cat([solution.residual for solution in found])
        steps = torch.cat([solution.steps for solution in found]).double()
        assert summary[f"{kind}_steps"] == pytest.approx(steps.mean().item())
        assert summary[f"{kind}_residual"] == pytest.approx(residual.mean().item())
        assert summary[f"{kind}_residual_max"] == residual.max().item()
        assert summary[f"{kind}_converged"] == 1.0
        assert summary[f"{kind}_evaluations"] == sum(solution.evaluations for solution in found) / 2
    assert all(type(value) is float for value in summary.values())
    equilibrium.statistics.reset()
    assert equilibrium.statistics.summary() == {}
    equilibrium(torch.zeros(0, 8, 3, 3)).sum().backward()
    assert equilibrium.statistics.summary() == {}
    equilibrium.statistics.enabled = False
    equilibrium(torch.randn(2, 8, 3, 3))
    assert equilibrium.statistics.summary() == {}


def poor() -> tuple[Equilibrium, dict[str, float]]:
    return Equilibrium(ResidualConv(8)), {"solver_converged": 0.4, "adjoint_converged": 1.0}


def test_policy_is_silent_when_enough_converged(recwarn):
    equilibrium, _ = poor()
    assert ConvergencePolicy(action="stop").apply(equilibrium, {"solver_converged": 0.995}) is None
    assert ConvergencePolicy(action="stop").apply(equilibrium, {}) is None
    assert not recwarn.list


def test_policy_warns_by_default():
    with pytest.warns(RuntimeWarning, match="solver_converged 0.400, below 0.99"):
        assert "solver_converged" in ConvergencePolicy().apply(*poor())


def test_policy_stops():
    with pytest.raises(NotConverged, match="max_iter"):
        ConvergencePolicy(action="stop").apply(*poor())


def test_policy_switches_the_method_once():
    equilibrium, summary = poor()
    policy = ConvergencePolicy(action="switch")
    with pytest.warns(RuntimeWarning, match="from here on the solver is broyden"):
        policy.apply(equilibrium, summary)
    assert equilibrium.forward_solver == SolverConfig(method="broyden")
    assert equilibrium.backward_solver == SolverConfig(method="broyden")
    with pytest.warns(RuntimeWarning, match="not equilibria"):
        policy.apply(equilibrium, summary)


@pytest.mark.parametrize("options", [{"share": 1.5}, {"action": "shout"}, {"method": "newton"}])
def test_policy_options_are_checked(options):
    with pytest.raises(ConfigError):
        ConvergencePolicy(**options)
