"""Layers are what they say; diagnostics and policies say what is."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck

from eqcollapse.equilibrium import (
    ConfigError,
    ContractiveConv,
    ConvergencePolicy,
    Equilibrium,
    LinearEquilibrium,
    NotConverged,
    ResidualConv,
    SolverConfig,
    jacobian_regularisation,
    nan_origin,
    solve,
    spectral_radius,
)


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


def test_without_gradients_the_bound_is_computed_once_for_the_same_weights(monkeypatch):
    calls = []
    torch.manual_seed(0)
    layer, x = ContractiveConv(8), torch.randn(2, 8, 4, 4)
    operators = layer.operators
    monkeypatch.setattr(layer, "operators", lambda size: calls.append(size) or operators(size))
    with torch.no_grad():
        for _ in range(3):
            assert torch.equal(layer(x, x), layer.requires_grad_(False)(x, x))
    assert calls == [(4, 4)]


@pytest.mark.parametrize(
    "change",
    [
        lambda layer: layer.kernel1.mul_(-2),
        lambda layer: layer.kernel1.data.mul_(-2),  # changes no version counter
        lambda layer: setattr(layer.kernel2, "data", -layer.kernel2.data),
        lambda layer: layer.load_state_dict({**layer.state_dict(), "kernel2": -layer.kernel2}),
        lambda layer: layer.double(),
    ],
)
def test_changed_weights_have_another_bound(change):
    torch.manual_seed(0)
    layer, x = ContractiveConv(8), torch.randn(2, 8, 4, 4)
    with torch.no_grad():
        before = layer(x, x)
        change(layer)
        x = x.to(layer.kernel1.dtype)
        after = layer(x, x)
        fresh = ContractiveConv(8).to(x.dtype)
        fresh.load_state_dict(layer.state_dict())
        assert torch.equal(after, fresh(x, x))
        assert after.dtype != before.dtype or not torch.equal(after, before)
        assert torch.equal(layer(x[..., :3], x[..., :3]), fresh(x[..., :3], x[..., :3]))


def test_what_is_kept_in_inference_mode_does_not_keep_from_gradients():
    torch.manual_seed(0)
    equilibrium, x = Equilibrium(ContractiveConv(8)), torch.randn(2, 8, 4, 4)
    with torch.inference_mode():
        equilibrium(x)
    with torch.no_grad():
        assert equilibrium.spectral_radius(x).isfinite().all()
    equilibrium(x).sum().backward()


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
    assert report.measured == pytest.approx(torch.linalg.matrix_norm(layer.weight, ord=2).item())

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
    assert exact < 0.8 * torch.linalg.matrix_norm(weight, ord=2)  # a norm would be far off


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_spectral_radius_of_matrices_that_are_far_from_normal(dtype):
    """In the default 60 steps, within 1 %."""
    generator = np.random.default_rng(0)
    for size, tolerance in ((30, 1e-3), (60, 5e-3), (100, 1e-2)):
        above = np.triu(generator.standard_normal((size, size)), 1) * 2 / size**0.5
        turned = np.linalg.qr(generator.standard_normal((size, size)))[0]
        matrix = turned @ (above + np.diag(generator.uniform(-0.9, 0.9, size))) @ turned.T
        exact = np.abs(np.linalg.eigvals(matrix)).max()
        assert np.linalg.norm(matrix, 2) > 3 * exact
        weight = torch.tensor(matrix, dtype=dtype)
        radius = spectral_radius(lambda z, weight=weight: z @ weight.T, torch.zeros(8, size, dtype=dtype))
        assert radius.tolist() == pytest.approx([exact] * 8, rel=tolerance)


def test_spectral_radius_of_what_is_not_finite_is_nan_of_that_sample_alone():
    rates = torch.tensor([0.2, math.inf, math.nan]).view(3, 1)
    radius = spectral_radius(lambda z: rates * z, torch.ones(3, 4))
    assert radius.isnan().tolist() == [False, True, True]
    assert float(radius[0]) == pytest.approx(0.2)
    assert spectral_radius(lambda z: 2 * z, torch.zeros(0, 4)).shape == (0,)


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


def test_nan_origin_names_the_layers_own_parameter():
    layer = ContractiveConv(8)
    z, x = torch.randn(2, 1, 8, 4, 4)
    with torch.no_grad():
        layer.kernel2.fill_(math.nan)
    assert nan_origin(layer, z, x) == "kernel2"


class Linear(nn.Module):
    """W z + x."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        return z @ self.weight.T + x


def test_spectral_radius_at_an_equilibrium():
    equilibrium = Equilibrium(Linear(rotation(0.7, 0.9)))
    x = torch.randn(3, 2, dtype=torch.float64)
    torch.testing.assert_close(equilibrium.spectral_radius(x, steps=40), torch.full((3,), 0.9, dtype=torch.float64))
    assert equilibrium.solution is None
    assert equilibrium.statistics.summary() == {}


def test_spectral_radius_is_taken_at_the_equilibrium_of_the_bound_layer():
    torch.manual_seed(0)
    equilibrium = Equilibrium(ContractiveConv(8)).eval()
    x = torch.randn(4, 8, 3, 3)
    with torch.no_grad():
        z = equilibrium(x)
        radius = equilibrium.spectral_radius(x)
    torch.testing.assert_close(radius, spectral_radius(lambda z: equilibrium.layer(z, x), z))
    assert (radius < 0.9).all()


def test_explain_nan_names_what_goes_wrong_in_a_solve():
    torch.manual_seed(0)
    layer = ResidualConv(8)
    equilibrium = Equilibrium(layer)
    x = torch.randn(2, 8, 4, 4)
    assert equilibrium.explain_nan(x) is None
    assert equilibrium.explain_nan(x * math.nan) == "x"
    with torch.no_grad():
        layer.conv2.weight[0, 0] = math.inf
    equilibrium(x)
    assert equilibrium.solution.residual.isinf().all()
    assert equilibrium.explain_nan(x) == "conv2"
    assert not any(module._forward_hooks for module in layer.modules())


def test_explain_nan_sees_later_iterates_and_bind():
    class Root(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return (1.5 - z).sqrt()

    class Late(nn.Module):
        """1 + x at z = 0; then the root of a negative number."""

        def __init__(self) -> None:
            super().__init__()
            self.root = Root()

        def forward(self, z: Tensor, x: Tensor) -> Tensor:
            return self.root(z) + x

    assert Equilibrium(Late()).explain_nan(torch.ones(2, 3)) == "root"
    expansion = Equilibrium(Linear(1e30 * torch.eye(3)), SolverConfig(method="picard"))
    assert expansion.explain_nan(torch.ones(2, 3)) == ""
    contractive = ContractiveConv(8)
    with torch.no_grad():
        contractive.inject.weight.fill_(math.nan)
    assert Equilibrium(contractive).explain_nan(torch.randn(2, 8, 3, 3)) == "inject"


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
