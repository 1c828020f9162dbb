"""The contraction guarantee: the bounds are above the norms, for any weights."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F  # noqa: N812

from eqcollapse.equilibrium import (
    ConfigError,
    ContractiveConv,
    Equilibrium,
    SolverConfig,
    conv_norm_bound,
    matrix_norm_bound,
)


def operator(kernel: Tensor, size: tuple[int, int]) -> Tensor:
    """The zero-padded convolution as a dense matrix, column by column."""
    inputs = kernel.shape[1] * math.prod(size)
    basis = torch.eye(inputs, dtype=kernel.dtype).view(inputs, kernel.shape[1], *size)
    padding = kernel.shape[-2] // 2, kernel.shape[-1] // 2
    return F.conv2d(basis, kernel, padding=padding).flatten(1).T


def norm(matrix: Tensor) -> float:
    return torch.linalg.matrix_norm(matrix, ord=2).item()


@settings(deadline=None, max_examples=40, derandomize=True)
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


@pytest.mark.parametrize(
    ("taps", "size"),
    [
        # the symbol is largest between two samples: the operator's norm is above every sample
        ([[8, 5, -3]], (1, 24)),
        ([[8], [5], [-3]], (24, 1)),
        ([[8, 0, 0, 0, -8]], (1, 20)),
        ([[64, 40, -24], [40, 25, -15], [-24, -15, 9]], (18, 24)),
        # the symbol at the frequencies of a torus as long as the image misses what the image carries
        ([[3, -4, -8]], (1, 7)),
        ([[3], [-4], [-8]], (7, 1)),
        ([[8, 0, -4, 0, 8]], (1, 6)),
        ([[-6, 5, -7], [5, -1, 4], [-7, 4, -8]], (3, 3)),
        ([[2, -8, 1], [-4, 0, -3], [5, 2, -6]], (4, 4)),
        ([[8, 0, -8], [5, 0, -4], [3, 0, -3]], (11, 2)),
    ],
)
def test_conv_bound_withstands_adversarial_kernels(taps, size):
    """Found by gradient ascent on norm / bound, of a bound without cos(pi r / GRID), or on a torus too short."""
    kernel = torch.tensor(taps, dtype=torch.float32)[None, None]
    assert conv_norm_bound(kernel, size).item() >= norm(operator(kernel.double(), size))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_conv_bound_of_a_kernel_wider_than_the_grid(seed):
    generator = torch.Generator().manual_seed(seed)
    for taps, size in (((15, 1), (16, 16)), ((13, 1), (14, 3)), ((7, 7), (12, 12)), ((25, 1), (40, 1))):
        kernel = torch.randn(1, 1, *taps, generator=generator)
        exact = norm(operator(kernel.double(), size))
        assert exact <= conv_norm_bound(kernel, size).item() <= 2.5 * exact


def test_kernels_of_even_sizes_have_no_bound():
    with pytest.raises(ConfigError, match="4 x 3"):
        conv_norm_bound(torch.randn(1, 1, 4, 3), (8, 8))


@pytest.mark.parametrize("size", [(12, 12), (13, 5), (3, 9), (1, 14), (5, 1), (3, 3)])
def test_conv_bound_withstands_gradient_ascent(size):
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        kernel = torch.randn(1, 1, 3, 3, generator=generator, dtype=torch.float64).requires_grad_()
        optimiser = torch.optim.Adam([kernel], 0.05)
        for _ in range(60):
            ratio = torch.linalg.matrix_norm(operator(kernel, size), ord=2) / conv_norm_bound(kernel, size)
            assert ratio <= 1
            optimiser.zero_grad()
            (-ratio).backward()
            optimiser.step()


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


@pytest.mark.parametrize("scale", [1e-36, 1e-25, 1e-12, 1e12, 1e20, 1e34])
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


@pytest.mark.parametrize("channels", [(3, 2), (2, 3)])
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (4, 3), (16, 16)])
def test_gradients_of_the_conv_bound_are_those_of_finite_differences(channels, size):
    kernel = torch.randn(*channels, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    kernel.requires_grad_()
    assert gradcheck(lambda kernel: conv_norm_bound(kernel, size), (kernel,))
    assert gradgradcheck(lambda kernel: conv_norm_bound(kernel, size), (kernel,))


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (1, 4)])
def test_gradients_of_the_matrix_bound_are_those_of_finite_differences(shape):
    matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    assert gradcheck(matrix_norm_bound, (matrix,))
    assert gradgradcheck(matrix_norm_bound, (matrix,))


@pytest.mark.parametrize("size", [(2, 2), (7, 7)])
def test_the_gradient_in_float32_is_that_in_float64(size):
    kernel = torch.randn(16, 24, 3, 3, generator=torch.Generator().manual_seed(0))
    for scale in (1e-30, 1.0, 1e30):  # the gradient of a norm does not depend on the scale
        single, double = (scale * kernel).requires_grad_(), kernel.double().requires_grad_()
        for leaf in (single, double):
            conv_norm_bound(leaf, size).backward()
        torch.testing.assert_close(single.grad.double(), double.grad, rtol=0, atol=1e-5 * double.grad.norm().item())


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 4), (4, 1), (1, 3)])
@pytest.mark.parametrize("taps", [(1, 1), (3, 3), (5, 3), (9, 1)])
def test_the_bound_on_few_pixels_is_that_of_the_operator_written_out(taps, size):
    kernel = torch.randn(3, 2, *taps, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(conv_norm_bound(kernel, size), matrix_norm_bound(operator(kernel, size)))


def test_a_bound_in_inference_mode_does_not_keep_later_ones_from_their_gradients():
    kernel = torch.randn(2, 2, 3, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    with torch.inference_mode():
        expected = conv_norm_bound(kernel, (6, 5)).item()  # the first of this size
    bound = conv_norm_bound(kernel, (6, 5))
    bound.backward()
    assert bound.item() == pytest.approx(expected)
    assert kernel.grad.isfinite().all()


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


@pytest.mark.parametrize("gain", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (4, 4)])
def test_contractive_conv_is_the_same_for_kernels_of_any_size(size, gain):
    """So that weight decay cannot take its dependence on z away."""
    torch.manual_seed(0)
    layer = ContractiveConv(8, bound=0.9)
    before = layer.operators(size)
    for kernel in before:
        assert 0.8 < norm(operator(kernel.detach().double(), size)) / 0.9**0.5 <= 1
    with torch.no_grad():
        layer.kernel1.mul_(gain)
        layer.kernel2.mul_(gain)
    for kernel, scaled in zip(before, layer.operators(size), strict=True):
        torch.testing.assert_close(scaled, kernel, rtol=1e-5, atol=1e-6)


def test_contraction_holds_through_coarse_training():
    torch.manual_seed(0)
    layer = ContractiveConv(8, bound=0.9)
    config = SolverConfig(tol=1e-3, max_iter=20)
    equilibrium = Equilibrium(layer, config, config)
    head = nn.Linear(8, 3)
    optimiser = torch.optim.SGD([*layer.parameters(), *head.parameters()], lr=0.5, momentum=0.9)
    x, labels = torch.randn(48, 8, 3, 3), torch.arange(48) % 3
    for _ in range(15):
        optimiser.zero_grad()
        loss = F.cross_entropy(head(equilibrium(x).mean((2, 3))), labels)
        loss.backward()
        optimiser.step()
        assert layer.contraction((3, 3)).certified <= 0.9 * (1 + 1e-5)
    summary = equilibrium.statistics.summary()
    assert summary["solver_converged"] == summary["adjoint_converged"] == 1.0
