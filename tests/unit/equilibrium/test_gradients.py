"""Gradients of equilibria, against closed forms, finite differences and long unrolling."""

import gc
import weakref

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck
from torch.nn import functional as F  # noqa: N812

from eqcollapse.equilibrium import (
    ConfigError,
    ContractiveConv,
    DoubleBackwardError,
    Equilibrium,
    ResidualConv,
    SolverConfig,
)
from eqcollapse.equilibrium.solvers import SOLVERS

EXACT = SolverConfig(tol=1e-13, max_iter=300, ridge=1e-12)


class Tanh(nn.Module):
    """tanh(W z + V x)."""

    def __init__(self, dim: int = 6, norm: float = 0.9) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        weight = torch.randn(dim, dim, generator=generator)
        self.weight = nn.Parameter(weight * norm / torch.linalg.matrix_norm(weight, ord=2))
        self.inject = nn.Parameter(torch.randn(dim, dim, generator=generator))

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(F.linear(z, self.weight) + F.linear(x, self.inject))


class Scale(nn.Module):
    """a z + x: z* = x / (1 - a), dz*/dx = 1 / (1 - a), dz*/da = x / (1 - a)^2."""

    def __init__(self, a: float = 0.5) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a))

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        return self.a * z + x


def inputs(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=dtype).requires_grad_()


def gradients(loss: Tensor, *leaves: Tensor) -> Tensor:
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, leaves)])


@pytest.mark.parametrize("method", SOLVERS)
def test_gradcheck_inputs_and_parameters(method):
    """The cotangents of gradcheck are one-hot: all but one row of each is zero."""
    layer = Tanh(4).double()
    config = SolverConfig(method=method, tol=1e-13, max_iter=300, ridge=1e-12)
    equilibrium = Equilibrium(layer, config, config)
    x = inputs(3, 4, dtype=torch.float64)

    def function(x, weight, inject):
        return torch.func.functional_call(equilibrium, {"layer.weight": weight, "layer.inject": inject}, (x,))

    assert gradcheck(function, (x, layer.weight, layer.inject))


@pytest.mark.parametrize("build", [lambda: ResidualConv(4, groups=2), lambda: ContractiveConv(4, groups=2)])
def test_gradcheck_of_the_convolution_layers(build):
    torch.manual_seed(0)
    layer = build().double()
    equilibrium = Equilibrium(layer, EXACT, EXACT)
    x = inputs(2, 4, 3, 3, dtype=torch.float64)
    names = [name for name, _ in layer.named_parameters()]

    def function(x, *parameters):
        state = {f"layer.{name}": value for name, value in zip(names, parameters, strict=True)}
        return torch.func.functional_call(equilibrium, state, (x,))

    assert gradcheck(function, (x, *layer.parameters()), fast_mode=True)


@pytest.mark.parametrize("method", SOLVERS)
def test_equals_long_unrolling(method):
    layer = Tanh().double()
    config = SolverConfig(method=method, tol=1e-13, max_iter=300, ridge=1e-12)
    long = SolverConfig(max_iter=400)
    x = inputs(5, 6, dtype=torch.float64)
    leaves = x, *layer.parameters()
    implicit = gradients(Equilibrium(layer, config, config)(x).square().sum(), *leaves)
    unrolled = gradients(Equilibrium(layer, long, gradient="unrolled")(x).square().sum(), *leaves)
    torch.testing.assert_close(implicit, unrolled, rtol=1e-8, atol=1e-9)


def test_one_step_is_the_gradient_of_one_evaluation():
    layer = Tanh().double()
    x = inputs(5, 6, dtype=torch.float64)
    z = Equilibrium(layer, EXACT)(x).detach()
    equilibrium = Equilibrium(layer, EXACT, gradient="one-step")
    leaves = x, *layer.parameters()
    found = gradients(equilibrium(x).square().sum(), *leaves)
    expected = gradients((2 * z * layer(z, x)).sum(), *leaves)
    torch.testing.assert_close(found, expected)
    assert equilibrium.adjoint is None


def test_unrolled_is_max_iter_plain_steps():
    layer = Scale()
    x = inputs(3, 2)
    equilibrium = Equilibrium(layer, SolverConfig(max_iter=3), gradient="unrolled")
    z = equilibrium(x)
    torch.testing.assert_close(z, (1 + 0.5 + 0.25) * x)
    torch.testing.assert_close(gradients(z.sum(), x), torch.full((6,), 1.75))
    residual = (layer(z, x) - z).norm(dim=1) / layer(z, x).norm(dim=1)
    torch.testing.assert_close(equilibrium.solution.residual, residual.detach())
    assert equilibrium.solution.evaluations == 4  # three steps, and one that measures
    with torch.no_grad():  # and the same network in evaluation, under whatever method
        torch.testing.assert_close(equilibrium.eval()(x), z.detach())


@pytest.mark.parametrize("method", SOLVERS)
@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_linear_in_the_scale_of_the_loss(method, factor):
    layer = Tanh(32)
    config = SolverConfig(method=method)
    equilibrium = Equilibrium(layer, config, config)
    x = inputs(16, 32)
    leaves = x, *layer.parameters()
    plain = gradients(equilibrium(x).square().mean(), *leaves)
    steps = equilibrium.adjoint.steps
    scaled = gradients(factor * equilibrium(x).square().mean(), *leaves)
    assert torch.equal(equilibrium.adjoint.steps, steps)
    torch.testing.assert_close(scaled / factor, plain, rtol=1e-4, atol=1e-4 * plain.abs().max().item())


@pytest.mark.parametrize("method", SOLVERS)
@pytest.mark.parametrize("factor", [1e-30, 1e-22, 1e25])
def test_cotangents_whose_squares_leave_float32(method, factor):
    layer = Tanh(16)
    config = SolverConfig(method=method)
    equilibrium = Equilibrium(layer, config, config)
    x = inputs(8, 16)
    cotangent = torch.randn(8, 16, generator=torch.Generator().manual_seed(2))
    plain = gradients((cotangent * equilibrium(x)).sum(), x)
    steps = equilibrium.adjoint.steps
    scaled = gradients((factor * cotangent * equilibrium(x)).sum(), x)
    assert torch.equal(equilibrium.adjoint.steps, steps)
    torch.testing.assert_close(scaled / factor, plain, rtol=1e-3, atol=1e-3 * plain.abs().max().item())


@pytest.mark.parametrize("gradient", ["implicit", "one-step", "unrolled"])
def test_what_is_returned_may_be_changed_in_place(gradient):
    equilibrium = Equilibrium(Tanh(), gradient=gradient)
    x = inputs(3, 6)
    expected = gradients(F.relu(equilibrium(x)).square().sum(), x)
    changed = F.relu(equilibrium(x), inplace=True)
    kept = equilibrium.solution.z.clone()
    torch.testing.assert_close(gradients(changed.square().sum(), x), expected)
    assert (kept < 0).any()
    assert torch.equal(equilibrium.solution.z, kept)
    with torch.no_grad():
        equilibrium(x).zero_()
    assert (equilibrium.solution.z != 0).all()


def test_adjoint_tolerance_is_relative_to_each_cotangent():
    layer = Tanh(16)
    equilibrium = Equilibrium(layer)
    z = equilibrium(inputs(4, 16))
    cotangent = torch.randn(4, 16) * torch.tensor([1e-5, 1.0, 0.0, 1e5]).view(4, 1)
    z.backward(cotangent)
    found = equilibrium.adjoint
    leaf = equilibrium.solution.z.requires_grad_()
    (product,) = torch.autograd.grad(layer(leaf, inputs(4, 16)), leaf, found.z)
    residual = (cotangent + product - found.z).norm(dim=1)
    assert (residual <= 1.01e-3 * cotangent.norm(dim=1)).all()
    assert found.converged.all()
    assert (found.z[2] == 0).all()
    assert found.steps[2] == 1


def test_zero_cotangent_gives_zero():
    layer = Tanh()
    equilibrium = Equilibrium(layer)
    z = equilibrium(inputs(3, 6))
    assert (gradients((0 * z).sum(), *layer.parameters()) == 0).all()


def test_one_module_twice_in_a_graph():
    """First z = 2x, then 2z: the derivative by x is 4, by a it is 2 x / (1 - a)^3 = 16 x."""
    layer = Scale().double()
    equilibrium = Equilibrium(layer, EXACT, EXACT)
    x = torch.ones(1, 1, dtype=torch.float64, requires_grad=True)
    by_x, by_a = torch.autograd.grad(equilibrium(equilibrium(x)).sum(), [x, layer.a])
    torch.testing.assert_close(by_x, torch.full_like(x, 4.0))
    torch.testing.assert_close(by_a, torch.tensor(16.0, dtype=torch.float64))


def test_backward_twice_through_a_retained_graph():
    layer = Tanh()
    z = Equilibrium(layer)(inputs(3, 6))
    z.sum().backward(retain_graph=True)
    once = layer.weight.grad.clone()
    z.sum().backward()
    torch.testing.assert_close(layer.weight.grad, 2 * once)


@pytest.mark.parametrize("gradient", ["implicit", "one-step"])
def test_a_second_derivative_raises(gradient):
    layer = Tanh()
    x = inputs(3, 6)
    z = Equilibrium(layer, gradient=gradient)(x)
    with pytest.raises(DoubleBackwardError, match="unrolled"):
        torch.autograd.grad(z.sum(), x, create_graph=True)


def test_unrolled_has_second_derivatives():
    layer = Scale(0.5)
    x = inputs(2, 2)
    (first,) = torch.autograd.grad(
        Equilibrium(layer, SolverConfig(max_iter=60), gradient="unrolled")(x).sum(),
        layer.a,
        create_graph=True,
    )
    (second,) = torch.autograd.grad(first, layer.a)
    torch.testing.assert_close(second, 2 * x.detach().sum() / 0.5**3, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("gradient", ["implicit", "one-step", "unrolled"])
@pytest.mark.parametrize("backward", [False, True])
def test_nothing_leaks_without_the_garbage_collector(gradient, backward):
    layer = Tanh()
    equilibrium = Equilibrium(layer, gradient=gradient)
    gc.collect()
    gc.disable()
    try:
        x = inputs(3, 6)
        encoded = x + 1  # held by nothing but the graph
        z = equilibrium(encoded)
        watched = [weakref.ref(z), weakref.ref(encoded)]
        if backward:
            z.sum().backward()
        del z, encoded
        assert [reference() for reference in watched] == [None, None]
    finally:
        gc.enable()


def test_the_kept_solutions_carry_no_graph():
    equilibrium = Equilibrium(Tanh())
    z = equilibrium(inputs(3, 6))
    z.sum().backward()
    for solution in (equilibrium.solution, equilibrium.adjoint):
        assert not solution.z.requires_grad
        assert solution.z.grad_fn is None
    assert equilibrium.solution.z is not z


def test_evaluation_mode_has_gradients_and_equal_results():
    layer = Tanh()
    equilibrium = Equilibrium(layer)
    x = inputs(3, 6)
    training = gradients(equilibrium(x).sum(), x)
    equilibrium.eval()
    torch.testing.assert_close(gradients(equilibrium(x).sum(), x), training)
    with torch.no_grad():
        assert not equilibrium(x).requires_grad
    equilibrium.requires_grad_(False)
    assert not equilibrium(x.detach()).requires_grad


def test_evaluation_mode_freezes():
    torch.manual_seed(0)
    layer = Tanh(32, norm=1.2)
    equilibrium = Equilibrium(layer, SolverConfig(freeze=False)).eval()
    x = inputs(16, 32) * torch.logspace(-2, 1, 16).view(16, 1)
    with torch.no_grad():
        together = equilibrium(x)
        alone = torch.cat([equilibrium(row) for row in x.split(1)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def test_converging_at_once_still_gives_the_implicit_gradient():
    layer = Scale()
    x = inputs(3, 2)
    equilibrium = Equilibrium(layer)
    z = equilibrium(x, z0=2 * x.detach())
    assert equilibrium.solution.evaluations == 1
    torch.testing.assert_close(gradients(z.sum(), x), torch.full((6,), 2.0), rtol=1e-3, atol=1e-3)


def test_a_layer_that_ignores_its_state():
    class Constant(nn.Module):
        def forward(self, z, x):
            return 3 * x

    x = inputs(3, 2)
    torch.testing.assert_close(gradients(Equilibrium(Constant())(x).sum(), x), torch.full((6,), 3.0))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype):
    """The state stays float32; every parameter gets its gradient, near that without autocast."""
    torch.manual_seed(0)
    layer = ContractiveConv(8)
    equilibrium = Equilibrium(layer, SolverConfig(tol=1e-2), SolverConfig(tol=1e-2))
    x = inputs(4, 8, 4, 4)
    leaves = x, *layer.parameters()
    plain = gradients(equilibrium(x).square().mean(), *leaves)
    with torch.autocast("cpu", dtype=dtype):
        z = equilibrium(F.conv2d(x, torch.eye(8).view(8, 8, 1, 1)))  # as an encoder's half-precision output
        assert z.dtype == torch.float32
        loss = z.square().mean()
    cast = gradients(loss, *leaves)
    assert F.cosine_similarity(cast, plain, dim=0) > 0.99
    assert all((part != 0).any() for part in torch.autograd.grad(_loss_again(equilibrium, x, dtype), leaves))


def _loss_again(equilibrium: Equilibrium, x: Tensor, dtype: torch.dtype) -> Tensor:
    with torch.autocast("cpu", dtype=dtype):
        return equilibrium(x).square().mean()


def test_unknown_gradient_is_an_error():
    with pytest.raises(ConfigError, match="phantom"):
        Equilibrium(Tanh(), gradient="phantom")


def test_equal_bytes_from_equal_input():
    torch.manual_seed(0)
    layer = ResidualConv(8)
    x = inputs(4, 8, 4, 4)
    leaves = x, *layer.parameters()
    runs = [gradients(Equilibrium(layer)(x).square().sum(), *leaves) for _ in range(2)]
    assert torch.equal(*runs)


@pytest.mark.parametrize("check_every", [0, 4])
def test_looking_less_often_changes_no_gradient(check_every):
    layer = Tanh(16)
    x = inputs(8, 16)
    leaves = x, *layer.parameters()
    seldom = SolverConfig(check_every=check_every)
    expected = gradients(Equilibrium(layer)(x).square().sum(), *leaves)
    assert torch.equal(gradients(Equilibrium(layer, seldom, seldom)(x).square().sum(), *leaves), expected)


def test_a_tensor_that_is_neither_input_nor_parameter_gets_its_gradient():
    """The layer closes over `shift`: d/dc of z* = z*/2 + x + c is 2, and without a graph there would be none."""
    shift = torch.zeros(3, requires_grad=True)

    class Closing(torch.nn.Module):
        def forward(self, z, x):
            return z / 2 + x + shift

    equilibrium = Equilibrium(Closing(), SolverConfig(tol=1e-7, max_iter=40), SolverConfig(tol=1e-7, max_iter=40))
    equilibrium(torch.ones(1, 3)).sum().backward()
    assert torch.allclose(shift.grad, torch.full((3,), 2.0))
    with torch.no_grad():
        assert not equilibrium(torch.ones(1, 3)).requires_grad
