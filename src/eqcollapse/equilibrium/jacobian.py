"""Questions about a layer at a state: is it contractive there, how to make it so, where does a NaN start."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .solve import Map


def spectral_radius(f: Map, z: Tensor, steps: int = 60, seed: int = 0) -> Tensor:
    """Estimate the spectral radius of each sample's Jacobian df/dz at z.

    The largest modulus among the Ritz values of J^T in the Krylov space of a random vector (Arnoldi's method). It is
    exact, but for rounding, where `steps` is no less than the dimension. Otherwise it is an estimate, no bound: it may
    be too low, and for a Jacobian that is far from normal too high, though never above the norm of J. It keeps `steps`
    vectors of z's size.

    Args:
        f: maps (B, ...) to (B, ...), sample by sample.
        z: (B, ...).
        steps: products with J^T.
        seed: of the starting vectors.

    Returns:
        (B,). Below 1 where Picard iteration converges locally; nan where J is not finite.
    """
    with torch.enable_grad():
        leaf = z.detach().requires_grad_()
        image = f(leaf)

    def product(v: Tensor) -> Tensor:
        (result,) = torch.autograd.grad(image, leaf, v.view_as(z).to(image.dtype), retain_graph=True)
        return result.flatten(1).to(v.dtype)

    start = normalised(random_like(z, seed))[0].flatten(1)
    start = start.to(torch.promote_types(z.dtype, torch.float32))
    values = _ritz_values(product, start, max(1, min(steps, start.shape[1])))
    return values.abs().amax(1).to(z)


def _ritz_values(product: Map, start: Tensor, steps: int) -> Tensor:
    """Return the Ritz values (B, steps) of a linear map in the Krylov spaces of unit vectors `start` (B, D).

    A space that the map does not leave ends there: the vectors and values that follow are zero.
    """
    size = start.shape[1]
    basis = start.new_zeros(steps + 1, *start.shape)
    basis[0] = start
    hessenberg = start.new_zeros(len(start), steps + 1, steps)
    for step in range(steps):
        image = product(basis[step])
        scale = torch.linalg.vector_norm(image, dim=1)
        for _ in range(2):  # once leaves rounding errors that the next steps would enlarge
            parts = torch.einsum("kbd,bd->bk", basis[: step + 1], image)
            image = image - torch.einsum("kbd,bk->bd", basis[: step + 1], parts)
            hessenberg[:, : step + 1, step] += parts
        left = torch.linalg.vector_norm(image, dim=1)
        left = torch.where(left > 4 * size**0.5 * torch.finfo(left.dtype).eps * scale, left, 0.0)
        hessenberg[:, step + 1, step] = left
        basis[step + 1] = image / torch.where(left > 0, left, torch.inf)[:, None]
    square = hessenberg[:, :steps].cpu()  # where eigenvalues of small matrices are found anyway
    finite = square.isfinite().all((1, 2))
    values = torch.linalg.eigvals(square.where(finite[:, None, None], 0.0))
    return values.where(finite[:, None], torch.nan)


def jacobian_regularisation(f: Map, z: Tensor, samples: int = 1, seed: int | None = None) -> Tensor:
    """Hutchinson's estimate of the mean over samples of ||df/dz||_F^2 / dim (Bai et al. 2021, equation 8).

    Add a multiple of it to the loss: it holds the Jacobian's size at z down, on average; it guarantees
    nothing.

    Args:
        f: maps (B, ...) to (B, ...), sample by sample.
        z: (B, ...), an equilibrium, taken as a constant.
        samples: random vectors a sample.
        seed: of the random vectors; without one torch's generator draws them.

    Returns:
        A scalar, differentiable in what f depends on.
    """
    with torch.enable_grad():
        leaf = z.detach().requires_grad_()
        image = f(leaf)
        total = image.new_zeros(())
        for index in range(samples):
            v = random_like(image, None if seed is None else seed + index)
            (product,) = torch.autograd.grad(image, leaf, v, create_graph=True)
            total = total + product.square().sum()
    return total / (samples * z.numel())


def nan_origin(layer: nn.Module, z: Tensor, x: Tensor) -> str | None:
    """Name the first module inside `layer` whose output is not finite in layer(z, x) though its inputs are.

    Returns:
        The module's dotted name, `"z"` or `"x"` where an input is not finite already, None where all is finite.
        Where it is the layer's own arithmetic: the name of a parameter of the layer's own that is not finite,
        or else `""`.
    """
    with NanWatch(layer) as watch, torch.no_grad():
        if watch.finite(z, "z") and watch.finite(x, "x"):
            watch.evaluate(lambda z: layer(z, x), z)
    return watch.origin


class NanWatch:
    """While entered, keeps an eye on the outputs of a layer's modules; `origin` is as in `nan_origin`."""

    def __init__(self, layer: nn.Module) -> None:
        self._layer = layer
        self.origin: str | None = None

    def __enter__(self) -> "NanWatch":
        self._handles = [module.register_forward_hook(self._look(name)) for name, module in _inner(self._layer)]
        return self

    def __exit__(self, *exception: object) -> None:
        for handle in self._handles:
            handle.remove()

    def evaluate(self, f: Map, z: Tensor) -> Tensor:
        """Return f(z); what was not finite and no module's doing, is the state's or the layer's own."""
        self.finite(z, "z")
        image = f(z)
        if self.origin is None and not _finite(image):
            own = (name for name, value in self._layer.named_parameters(recurse=False) if not _finite(value))
            self.origin = next(own, "")
        return image

    def finite(self, tensor: Tensor, name: str) -> bool:
        """Say whether `tensor` is finite; if not, it is the origin unless there is one."""
        finite = _finite(tensor)
        if not finite and self.origin is None:
            self.origin = name
        return finite

    def _look(self, name: str) -> Callable[[nn.Module, tuple, object], None]:
        def hook(module: nn.Module, inputs: tuple, output: object) -> None:
            if self.origin is None and not _finite(output) and all(_finite(value) for value in inputs):
                self.origin = name

        return hook


def _inner(layer: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(name, module) for name, module in layer.named_modules() if module is not layer]


def _finite(value: object) -> bool:
    return not isinstance(value, Tensor) or bool(value.isfinite().all())


def random_like(tensor: Tensor, seed: int | None) -> Tensor:
    """Standard normal numbers, drawn on the CPU so that a seed means the same on every device."""
    if seed is None:
        return torch.randn_like(tensor)
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor)


def normalised(v: Tensor) -> tuple[Tensor, Tensor]:
    """Each sample over its 2-norm, and the norms: (B, ...) -> (B, ...), (B,)."""
    norm = torch.linalg.vector_norm(v.flatten(1), dim=-1).clamp_min(torch.finfo(v.dtype).tiny)
    return v / norm.view(-1, *[1] * (v.dim() - 1)), norm
