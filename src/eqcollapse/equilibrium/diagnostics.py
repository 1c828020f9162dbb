"""Questions about a layer at a state: is it contractive there, how to make it so, where does a NaN start."""

import torch
from torch import Tensor, nn

from .solving import Map


def spectral_radius(f: Map, z: Tensor, steps: int = 60, seed: int = 0) -> Tensor:
    """Estimate the spectral radius of each sample's Jacobian df/dz at z.

    By Gelfand's formula on J^T, as the geometric mean growth of ||(J^T)^k v|| over the second half of the
    steps: a Rayleigh quotient would be wrong for complex pairs (it reads 0.49 for 0.9 times a rotation).

    Args:
        f: maps (B, ...) to (B, ...), sample by sample.
        z: (B, ...).
        steps: products with J^T.
        seed: of the starting vectors.

    Returns:
        (B,). Below 1 where Picard iteration converges locally.
    """
    with torch.enable_grad():
        leaf = z.detach().requires_grad_()
        image = f(leaf)
    v = random_like(z, seed)
    growth = torch.zeros(len(z), dtype=z.dtype, device=z.device)
    for step in range(steps):
        v, norm = normalised(v)
        if step > steps // 2:
            growth += norm.log()
        (v,) = torch.autograd.grad(image, leaf, v.to(image.dtype), retain_graph=True)
    growth += normalised(v)[1].log()
    return (growth / (steps - steps // 2)).exp()


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
        The module's dotted name, `"z"` or `"x"` where an input is not finite already, `""` where it is the
        layer's own arithmetic, None where all is finite.
    """
    for name, tensor in (("z", z), ("x", x)):
        if not _finite(tensor):
            return name
    found: list[str] = []

    def look(name: str):
        def hook(module: nn.Module, inputs: tuple, output: object) -> None:
            if not found and not _finite(output) and all(_finite(value) for value in inputs):
                found.append(name)

        return hook

    handles = [module.register_forward_hook(look(name)) for name, module in layer.named_modules()]
    try:
        with torch.no_grad():
            layer(z, x)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None


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
