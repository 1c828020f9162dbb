"""Layers z, x -> f(z, x) to take an equilibrium of. Each says what it guarantees."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from .exceptions import ConfigError
from .jacobian import normalised, random_like
from .lipschitz import Contraction, conv_norm_bound, matrix_norm_bound

Kernels = Callable[[tuple[int, int]], tuple[Tensor, Tensor]]
"""The kernels of a layer on images of a size (H, W)."""
MEASURING_STEPS = 100


class ResidualConv(nn.Module):
    """The residual block of the study: norm(relu(z + norm(x + conv(norm(relu(conv(z))))))), 3×3 kernels.

    Guarantees nothing: it has an equilibrium when its weights are small, as they start, and may lose it in
    training. Watch `Equilibrium.statistics`; `jacobian_regularisation` or smaller steps keep it longer.

    Args:
        channels: of z and x (B, C, H, W).
        hidden: channels between the convolutions, by default twice `channels`.
        groups: of the group normalisations; has to divide `channels` and `hidden`.
    """

    def __init__(self, channels: int, hidden: int | None = None, groups: int = 8) -> None:
        super().__init__()
        hidden = hidden or 2 * channels
        self.conv1 = nn.Conv2d(channels, hidden, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(hidden, channels, 3, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(groups, hidden)
        self.norm2 = nn.GroupNorm(groups, channels)
        self.norm3 = nn.GroupNorm(groups, channels)
        for conv in (self.conv1, self.conv2):
            nn.init.normal_(conv.weight, std=0.01)

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        """One evaluation; z, x and the result (B, C, H, W)."""
        inner = self.norm2(x + self.conv2(self.norm1(F.relu(self.conv1(z)))))
        return self.norm3(F.relu(z + inner))


class ContractiveConv(nn.Module):
    """relu(x + W2 relu(W1 z + norm(conv(x)))), 3×3 kernels, with ||W1|| ||W2|| held at `bound` from below.

    Guarantees, for any weights and any x: it is Lipschitz in z with constant `bound` < 1 in the 2-norm of a
    sample, so that the equilibrium exists, is the only one, and Picard iteration closes in on it by that
    factor a step. For ReLU has Lipschitz constant 1; W1 and W2, as operators on zero-padded images of x's
    size, are kernels times sqrt(bound) over `conv_norm_bound`; and the normalisation sees x alone. The scaling
    is part of the graph, so that it holds throughout training; it is computed once a solve. It goes both ways:
    the layer is the same for kernels of any size, so that weight decay cannot take its dependence on z away,
    and with it the equilibrium. (Under bfloat16 autocast the kernels are rounded after it, by up to 0.4 %.)

    Args:
        channels: of z and x (B, C, H, W).
        hidden: between W1 and W2, by default `channels`.
        bound: the Lipschitz constant, 0 < bound < 1.
        groups: of the normalisation; has to divide `hidden`.
    """

    def __init__(self, channels: int, hidden: int | None = None, bound: float = 0.9, groups: int = 8) -> None:
        super().__init__()
        hidden = hidden or channels
        self.bound = _contractive(bound)
        self.inject = nn.Conv2d(channels, hidden, 3, padding=1, bias=False)
        self.norm = nn.GroupNorm(groups, hidden)
        self.kernel1 = nn.Parameter(torch.empty(hidden, channels, 3, 3))
        self.kernel2 = nn.Parameter(torch.empty(channels, hidden, 3, 3))
        self._kept = _Kept()
        for kernel in (self.inject.weight, self.kernel1, self.kernel2):
            nn.init.kaiming_normal_(kernel)

    def bind(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """Compute for x (B, C, H, W) what z does not change; return z -> f(z, x)."""
        rows, columns = x.shape[-2:]
        kernel1, kernel2 = self._operators((rows, columns))
        injected = self.norm(self.inject(x))

        def f(z: Tensor) -> Tensor:
            hidden = F.relu(F.conv2d(z, kernel1, padding=1) + injected)
            return F.relu(F.conv2d(hidden, kernel2, padding=1) + x)

        return f

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        """One evaluation; z, x and the result (B, C, H, W)."""
        return self.bind(x)(z)

    def operators(self, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """The kernels in use on images of `size` (H, W): of norm sqrt(bound) by `conv_norm_bound`."""
        kernel1, kernel2 = (
            _scaled(kernel, conv_norm_bound(kernel, size), self.bound**0.5) for kernel in (self.kernel1, self.kernel2)
        )
        return kernel1, kernel2

    def _operators(self, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """The same; without gradients they are computed once for the weights as they are."""
        if torch.is_grad_enabled():
            return self.operators(size)
        return self._kept.get((self.kernel1, self.kernel2), size, self.operators)

    @torch.no_grad()
    def contraction(self, size: tuple[int, int]) -> Contraction:
        """How much of the bound is used on images of `size` (H, W)."""
        kernels = self.operators(size)
        certified = measured = 1.0
        for kernel in kernels:
            certified *= conv_norm_bound(kernel, size).item()
            measured *= _conv_norm(kernel, size)
        return Contraction(self.bound, certified, measured)


class LinearEquilibrium(nn.Module):
    """z* = W z* + x with ||W|| <= bound < 1: the linear DEQ of Sun & Shi (2024), z* = W_DQ z* + H0.

    Guarantees: z* = (I - W)^-1 x is exact, by one dense solve with its ordinary gradients; ||z*|| <= ||x|| /
        (1 - bound).

    Args:
        dim: d, the features of z and x (..., d).
        bound: of the spectral norm, 0 < bound < 1. A larger W is scaled down to it, a smaller one stays as it is.
    """

    def __init__(self, dim: int, bound: float = 0.9) -> None:
        super().__init__()
        self.bound = _contractive(bound)
        self.raw = nn.Parameter(torch.empty(dim, dim))
        nn.init.normal_(self.raw, std=dim**-0.5)

    @property
    def weight(self) -> Tensor:
        """W (d, d), of spectral norm at most `bound`."""
        return _scaled_down(self.raw, matrix_norm_bound(self.raw), self.bound)

    def forward(self, x: Tensor) -> Tensor:
        """Return z* (..., d) for x (..., d)."""
        weight = self.weight
        system = torch.eye(len(weight), dtype=weight.dtype, device=weight.device) - weight
        return (
            torch.linalg.solve(system, x.mT if x.dim() > 1 else x).mT if x.dim() > 1 else torch.linalg.solve(system, x)
        )

    @torch.no_grad()
    def contraction(self) -> Contraction:
        """How much of the bound is used."""
        weight = self.weight
        return Contraction(self.bound, matrix_norm_bound(weight).item(), torch.linalg.matrix_norm(weight, ord=2).item())


class _Kept:
    """What was last computed from some weights, for as long as their values stay.

    Values are compared, not version counters: a write through `.data`, as some optimisers and averages of weights make,
    counts nowhere. Nothing is kept in inference mode or in a captured or compiled graph: their tensors stay inside.
    """

    def __init__(self) -> None:
        self._entry: tuple | None = None

    def get(self, weights: tuple[Tensor, ...], size: tuple[int, int], compute: Kernels) -> tuple[Tensor, Tensor]:
        """Return compute(size), from the last time if `size` and all `weights` are those of then."""
        if torch.is_inference_mode_enabled() or torch.compiler.is_compiling() or _captured(weights[0].device):
            return compute(size)
        entry = self._entry
        if entry is None or entry[0] != size or not all(map(_same, entry[1], weights)):
            entry = self._entry = size, [weight.clone() for weight in weights], compute(size)
        return entry[2]

    def __deepcopy__(self, memo: dict) -> "_Kept":
        return _Kept()


def _captured(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def _same(kept: Tensor, weight: Tensor) -> bool:
    return kept.dtype == weight.dtype and kept.device == weight.device and torch.equal(kept, weight)


def _contractive(bound: float) -> float:
    if not 0 < bound < 1:
        raise ConfigError(f"bound {bound!r}: a contraction needs 0 < bound < 1")
    return float(bound)


def _scaled(weight: Tensor, norm: Tensor, target: float) -> Tensor:
    return weight * (target / norm.clamp_min(torch.finfo(norm.dtype).tiny))


def _scaled_down(weight: Tensor, norm: Tensor, target: float) -> Tensor:
    return weight * (target / norm.clamp_min(target))


def _conv_norm(kernel: Tensor, size: tuple[int, int]) -> float:
    """The norm of the zero-padded convolution, by power iteration: from below."""
    v = random_like(kernel.new_empty(1, kernel.shape[1], *size), seed=0)
    norm = kernel.new_zeros(1)
    for _ in range(MEASURING_STEPS):
        image, norm = normalised(F.conv2d(normalised(v)[0], kernel, padding=1))
        v = F.conv_transpose2d(image, kernel, padding=1)
    return norm.item()
