"""Upper bounds of operator norms: true ones, cheap, differentiable.

Power iteration approaches a norm from below and can promise nothing. Here a Gram matrix is squared s times
and its Frobenius norm taken, which approaches from above: ||A|| <= ||(A A^*)^(2^s)||_F^(1 / 2^(s+1)), too
large by at most rank^(1 / 2^(s+2)) (Delattre et al. 2023). A convolution is first turned into its symbol.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from .exceptions import ConfigError

SQUARINGS = 5  # at 64 channels the bound of a matrix exceeds its norm by less than 3.4 %
DENSE = 4  # the most pixels for which the operator itself is written out
GRID = 12  # the most frequencies an axis; beyond it a 3×3 kernel's bound grows by (1/cos(pi/12))^2, 7.2 %
ROUNDING = 1e-4  # what float32 (not TF32) may lose in the computation of a bound, generously


@dataclass(frozen=True)
class Contraction:
    """How contractive a layer is, in the 2-norm of a whole sample.

    Attributes:
        bound: the stated Lipschitz constant in z.
        certified: the Lipschitz constant as computed from above for the weights as they are; at most `bound`.
        measured: the norms of the same operators as approached from below, by power iteration.
    """

    bound: float
    certified: float
    measured: float

    @property
    def slack(self) -> float:
        """What the bound gives away: `bound - measured`."""
        return self.bound - self.measured


def matrix_norm_bound(matrix: Tensor, squarings: int = SQUARINGS) -> Tensor:
    """An upper bound of the spectral norm of a matrix (m, n), as a differentiable scalar."""
    with torch.autocast(matrix.device.type, enabled=False):
        return _gram_bound(matrix, squarings)


def conv_norm_bound(kernel: Tensor, size: tuple[int, int], squarings: int = SQUARINGS) -> Tensor:
    """An upper bound of the norm of the zero-padded convolution on images of `size`, differentiable.

    On images of at most DENSE pixels the operator is written out as a matrix. On larger ones it is a
    compression of the circular convolution on a torus longer by the kernel's radius r, whose norm is the
    largest norm of the symbol K(w) = sum_t K_t exp(-i w t) at the torus' frequencies. Where these would be
    more than N = max(GRID, 4 r) an axis, the symbol is sampled at N points instead: being a trigonometric
    polynomial of degree r an axis, it is nowhere larger than its largest sample over cos(pi r / N) an axis
    (Ehlich & Zeller 1964).

    Args:
        kernel: (out, in, h, w), h and w odd.
        size: (H, W) of the images. A tap that no image of that size reaches does not count.
        squarings: of the Gram matrices.

    Returns:
        A scalar tensor. Its gradient is that of the worst frequency's bound.

    Raises:
        ConfigError: a kernel of an even size, which no zero padding centres.
    """
    if kernel.shape[-2] % 2 == 0 or kernel.shape[-1] % 2 == 0:
        raise ConfigError(f"kernel of {kernel.shape[-2]} x {kernel.shape[-1]}: its sides have to be odd")
    with torch.autocast(kernel.device.type, enabled=False):
        if size[0] * size[1] <= DENSE:
            return _gram_bound(_dense(kernel, size), squarings)
        return _symbol_bound(kernel, size, squarings)


def _symbol_bound(kernel: Tensor, size: tuple[int, int], squarings: int) -> Tensor:
    rows = _Axis(kernel.shape[-2], size[0])
    columns = _Axis(kernel.shape[-1], size[1])
    kernel = kernel[..., rows.reach, columns.reach]
    taps = kernel.permute(2, 3, 0, 1).reshape(-1, kernel.shape[0] * kernel.shape[1])
    phases = _phases(rows, columns, kernel.device).to(taps.dtype.to_complex())

    def symbol(waves: Tensor) -> Tensor:
        return (waves @ taps.to(waves.dtype)).unflatten(-1, kernel.shape[:2])

    with torch.no_grad():
        worst = _gram_bound(symbol(phases), squarings).argmax()
    return _gram_bound(symbol(phases.index_select(0, worst.unsqueeze(0))), squarings)[0] * (
        rows.oversampling * columns.oversampling
    )


def _dense(kernel: Tensor, size: tuple[int, int]) -> Tensor:
    """The operator as a matrix, one row an input pixel (and so transposed)."""
    inputs = kernel.shape[1] * size[0] * size[1]
    basis = torch.eye(inputs, dtype=kernel.dtype, device=kernel.device).view(inputs, kernel.shape[1], *size)
    return F.conv2d(basis, kernel, padding=(kernel.shape[-2] // 2, kernel.shape[-1] // 2)).flatten(1)


class _Axis:
    """One axis of a convolution: the taps that count, the torus' length, the price of sampling it."""

    def __init__(self, taps: int, size: int) -> None:
        radius = min(taps // 2, size - 1)
        self.radius = radius
        self.reach = slice(taps // 2 - radius, taps // 2 + radius + 1)
        grid = max(GRID, 4 * radius)  # below 2 r + 1 samples a polynomial is not held at all
        self.exact = size + radius <= grid
        self.length = size + radius if self.exact else grid
        self.oversampling = 1.0 if self.exact else 1 / math.cos(math.pi * radius / grid)


def _phases(rows: _Axis, columns: _Axis, device: torch.device) -> Tensor:
    """exp(-i w t): (frequencies, taps), half the plane: the symbol at -w is the conjugate of that at w."""

    def angles(axis: _Axis, count: int) -> Tensor:
        waves = torch.arange(count, dtype=torch.float64, device=device) * (2 * math.pi / axis.length)
        shifts = torch.arange(-axis.radius, axis.radius + 1, dtype=torch.float64, device=device)
        return torch.outer(waves, shifts)

    vertical = angles(rows, rows.length)[:, None, :, None]
    horizontal = angles(columns, columns.length // 2 + 1)[None, :, None, :]
    total = (vertical + horizontal).flatten(2).flatten(0, 1)
    return torch.polar(torch.ones_like(total), -total)


def _gram_bound(matrices: Tensor, squarings: int) -> Tensor:
    """The bound of each of `matrices` (..., m, n), real or complex."""
    if matrices.shape[-2] > matrices.shape[-1]:
        matrices = matrices.mH
    # The bound is homogeneous: constants here change no gradient. A power of two first, for squares to stay in range.
    unit = _power_of_two(matrices.detach().abs().amax((-2, -1)))
    matrices = matrices / unit[..., None, None]
    scale = _frobenius(matrices).detach()
    matrices = matrices / scale[..., None, None]
    gram = matrices @ matrices.mH
    logarithm: Tensor | float = 0.0
    for power in range(squarings):
        norm = _frobenius(gram)
        logarithm = logarithm + norm.log() / 2**power
        gram = gram / norm[..., None, None]
        gram = gram @ gram
    logarithm = logarithm + _frobenius(gram).log() / 2**squarings
    return (logarithm / 2).exp() * scale * unit * (1 + ROUNDING)


def _power_of_two(size: Tensor) -> Tensor:
    return torch.ldexp(torch.ones_like(size), torch.frexp(size).exponent)


def _frobenius(matrices: Tensor) -> Tensor:
    norm = torch.linalg.matrix_norm(matrices)
    return norm.clamp_min(torch.finfo(norm.dtype).tiny)
