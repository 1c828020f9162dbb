"""Upper bounds of operator norms: true ones, cheap, differentiable.

Power iteration approaches a norm from below and can promise nothing. Here a Gram matrix is squared s times
and its Frobenius norm taken, which approaches from above: ||A|| <= ||(A A^*)^(2^s)||_F^(1 / 2^(s+1)), too
large by at most rank^(1 / 2^(s+2)) (Delattre et al. 2023). A convolution is first turned into its symbol.
"""

import itertools
import math
from dataclasses import dataclass
from functools import cache, reduce
from typing import Any

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
    rows = _Axis.of(kernel.shape[-2], size[0])
    columns = _Axis.of(kernel.shape[-1], size[1])
    kernel = kernel[..., rows.reach, columns.reach]
    taps = kernel.permute(2, 3, 0, 1).reshape(-1, kernel.shape[0] * kernel.shape[1])
    phases = (_kept_phases if kernel.device.type == "cpu" else _phases)(rows, columns, kernel.device)
    phases = phases.to(taps.dtype.to_complex())

    def symbol(waves: Tensor) -> Tensor:
        return (waves @ taps.to(waves.dtype)).unflatten(-1, kernel.shape[:2])

    with torch.no_grad():
        found = _Powers.of(symbol(phases), squarings)
        worst = found.bound.argmax().unsqueeze(0)
    at_worst = symbol(phases.index_select(0, worst))
    return _GramBound.apply(at_worst, found.at(worst))[0] * (rows.oversampling * columns.oversampling)


def _dense(kernel: Tensor, size: tuple[int, int]) -> Tensor:
    """The operator as a matrix (out H W, in H W): of each output pixel, the taps that its input pixels meet."""
    centre = [max(taps // 2, length - 1) for taps, length in zip(kernel.shape[2:], size, strict=True)]
    rows, columns = (middle - taps // 2 for middle, taps in zip(centre, kernel.shape[2:], strict=True))
    padded = F.pad(kernel, (columns, columns, rows, rows))
    pixels = itertools.product(
        *(range(middle, middle - length, -1) for middle, length in zip(centre, size, strict=True))
    )
    blocks = [padded[..., row : row + size[0], column : column + size[1]] for row, column in pixels]
    return torch.cat(blocks).flatten(1)


@dataclass(frozen=True)
class _Axis:
    """One axis of a convolution: the taps that count, the torus' length, the price of sampling it."""

    taps: int
    radius: int
    length: int
    oversampling: float

    @classmethod
    def of(cls, taps: int, size: int) -> "_Axis":
        """The axis of a kernel of so many taps on an image of so many pixels."""
        radius = min(taps // 2, size - 1)
        grid = max(GRID, 4 * radius)  # below 2 r + 1 samples a polynomial is not held at all
        exact = size + radius <= grid
        length = size + radius if exact else grid
        oversampling = 1.0 if exact else 1 / math.cos(math.pi * radius / grid)
        return cls(taps, radius, length, oversampling)

    @property
    def reach(self) -> slice:
        """The taps that count."""
        return slice(self.taps // 2 - self.radius, self.taps // 2 + self.radius + 1)


@cache
@torch.inference_mode(False)  # a tensor made in that mode could not be used outside it
def _kept_phases(rows: _Axis, columns: _Axis, device: torch.device) -> Tensor:
    return _phases(rows, columns, device)


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
    return _GramBound.apply(matrices, _Powers.of(matrices.detach(), squarings))


@dataclass(frozen=True)
class _Powers:
    """Matrices A (..., m, n) with the bounds of their norms, and the powers that these come from.

    Attributes:
        matrices: A, or A^* where that is wider, over `unit`.
        unit: (...), a power of two that keeps squares in range.
        grams: G = A A^*, G^2, G^4, ..., G^(2^s), each over a positive number.
        bound: (...), ||G^(2^s)||_F^(1 / 2^(s+1)), of A as it was.
    """

    matrices: Tensor
    unit: Tensor
    grams: list[Tensor]
    bound: Tensor

    @classmethod
    def of(cls, matrices: Tensor, squarings: int) -> "_Powers":
        """Square the Gram matrices of `matrices` `squarings` times."""
        unit = _power_of_two(matrices.detach())
        matrices = _wide(matrices * unit.reciprocal()[..., None, None])
        grams = [matrices @ matrices.mH]
        logarithm = torch.zeros_like(unit)
        for power in range(squarings):
            norm = _frobenius(grams[-1])
            logarithm = logarithm + norm.log() / 2**power
            grams[-1] = grams[-1] * norm.reciprocal()[..., None, None]
            grams.append(grams[-1] @ grams[-1])
        logarithm = logarithm + _frobenius(grams[-1]).log() / 2**squarings
        return cls(matrices, unit, grams, (logarithm / 2).exp() * unit * (1 + ROUNDING))

    def at(self, index: Tensor) -> "_Powers":
        """Those of the matrices at `index`, of a batch of matrices."""
        matrices, unit, bound, *grams = (
            part.index_select(0, index) for part in (self.matrices, self.unit, self.bound, *self.grams)
        )
        return _Powers(matrices, unit, grams, bound)


class _GramBound(torch.autograd.Function):
    """The bound b of A as a function of A, with its gradient in closed form; both are zero at zero.

    b^(2 q) = tr G^q with q = 2^(s+1), so db/dA = b P A / tr(P A A^*) with P = G^(q - 1), the product of all the powers
    that there are. A factor in any of them cancels, and so does a unit of A.
    """

    @staticmethod
    def forward(ctx: Any, matrices: Tensor, powers: _Powers) -> Tensor:
        ctx.powers = powers
        ctx.save_for_backward(matrices)
        return powers.bound.clone()

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None]:
        (matrices,) = ctx.saved_tensors
        powers = ctx.powers
        if torch.is_grad_enabled():  # true exactly under create_graph: the gradient then has a graph itself
            powers = _Powers.of(matrices, len(powers.grams) - 1)
        product = reduce(torch.matmul, powers.grams) @ powers.matrices
        trace = _not_zero((product * powers.matrices.conj()).real.sum((-2, -1)))
        gradient = product * (cotangent * powers.bound / powers.unit / trace)[..., None, None]
        return (gradient if gradient.shape == matrices.shape else gradient.mH), None


def _wide(matrices: Tensor) -> Tensor:
    return matrices.mH if matrices.shape[-2] > matrices.shape[-1] else matrices


def _power_of_two(matrices: Tensor) -> Tensor:
    """A power of two (...) near the largest entry of matrices (..., m, n)."""
    size = _not_zero(_parts(matrices).abs().amax((-3, -2, -1)))
    return torch.ldexp(torch.ones_like(size), torch.frexp(size).exponent)


def _frobenius(matrices: Tensor) -> Tensor:
    return _not_zero(torch.linalg.vector_norm(_parts(matrices), dim=(-3, -2, -1)))


def _parts(matrices: Tensor) -> Tensor:
    """Real and imaginary parts (..., m, n, 2 or 1): of complex numbers, norms take many times longer."""
    return torch.view_as_real(matrices.resolve_conj()) if matrices.is_complex() else matrices.unsqueeze(-1)


def _not_zero(size: Tensor) -> Tensor:
    return size.clamp_min(torch.finfo(size.dtype).tiny)
