"""The loop that all methods share: evaluate, measure, keep the best iterate, decide when to stop."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .exceptions import ConfigError, LayerError
from .solver_config import SolverConfig
from .solvers import SOLVERS, Method
from .workspace import Workspace

Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Solution:
    """What a solve found, sample by sample. Nothing in it carries a graph.

    Attributes:
        z: (B, ...), each sample's best finite iterate: the one at which `residual` was measured.
        residual: (B,), the residual at `z` under the config's criterion; inf where f(z0) was not finite.
        steps: (B,) int64, evaluations until the sample converged or failed (or the budget was spent).
        converged: (B,) bool, residual <= tol.
        evaluations: of f, for the whole batch; at most max_iter. (An unrolled gradient reports max_iter + 1: one
            more measures what max_iter steps arrived at.)
    """

    z: Tensor
    residual: Tensor
    steps: Tensor
    converged: Tensor
    evaluations: int


def solve(f: Map, z0: Tensor, config: SolverConfig | None = None, **options: Any) -> Solution:
    """Look for z = f(z) from z0, each sample by itself. No autograd inside.

    Under the relative criterion the scale of the states does not matter, as far as f can compute at it: a sample
    whose z0 and f(z0) are so small or so large that their squares leave the range of the precision is solved
    in units of a power of two.

    Args:
        f: maps (B, ...) to (B, ...), sample by sample, always in the same way. Under autocast it runs under
            autocast, while the state and the solver's arithmetic keep z0's precision.
        z0: (B, ...), float32 or float64.
        config: the settings.
        options: the settings as keywords instead: `solve(f, z0, method="picard", tol=1e-5)`.

    Returns:
        The Solution. A sample whose f(z) is not finite keeps its best iterate so far and is not converged.

    Raises:
        ConfigError: config and keywords together, or an unknown keyword.
        LayerError: a state in half precision or a complex one, or an f that does not return its argument's shape.
    """
    if config is not None and options:
        raise ConfigError(f"give a config or keywords, not both (got {', '.join(options)} beside a config)")
    return fixed_point(f, z0.detach().clone(), config or SolverConfig.from_dict(options), Workspace())


@torch.no_grad()
def fixed_point(
    f: Map, z0: Tensor, config: SolverConfig, workspace: Workspace, relative_to_start: bool = False
) -> Solution:
    """`solve`, with buffers from `workspace`; the relative criterion's ||f(z)|| may be a fixed ||z0|| instead.

    z0 itself may be what is returned.
    """
    if z0.is_complex():
        raise LayerError(f"the state is real, not {z0.dtype}: pass torch.view_as_real(z0)")
    if z0.dtype not in (torch.float32, torch.float64):
        raise LayerError(f"the state is kept in float32 or float64, not {z0.dtype}: pass z0.float()")
    evaluate = _evaluation(f, z0)
    start = _flat(z0.detach())
    with _autocast_off(z0.device.type):
        method = SOLVERS[config.method](start, config, workspace)
        found = _iterate(evaluate, start, method, config, relative_to_start)
        method.close(workspace)
    return replace(found, z=found.z.reshape(z0.shape))


def _iterate(evaluate: Map, z: Tensor, method: Method, config: SolverConfig, relative_to_start: bool) -> Solution:
    fz = evaluate(z)
    unit = _units(z, fz, config)
    if unit is not None:
        evaluate, z, fz = _in_units(evaluate, unit), z / unit, fz / unit
    reference = _reference(torch.linalg.vector_norm(z, dim=-1)) if relative_to_start else None
    best, best_residual = z, z.new_full((len(z),), torch.inf)
    settled = torch.zeros(len(z), dtype=torch.bool, device=z.device)
    steps = torch.zeros(len(z), dtype=torch.int64, device=z.device)
    evaluations = 0
    while evaluations < config.max_iter:
        if evaluations:
            z = method.propose()
            fz = evaluate(z)
        evaluations += 1
        residual = _measure(method.observe(z, fz), fz, config, reference)
        better = residual < best_residual  # false for NaN
        active = ~settled
        if config.freeze:
            better &= active
        steps += active
        settled |= ~(residual > config.tol)  # converged, or NaN and beyond help
        look = config.check_every > 0 and evaluations % config.check_every == 0
        all_settled, all_better = _on_host(settled.all(), better.all()) if look else (False, False)
        # where every sample improves, which is the rule, the iterate itself is kept and nothing is copied
        best = z if all_better else torch.where(better.unsqueeze(-1), z, best)
        best_residual = residual if all_better else torch.where(better, residual, best_residual)
        if all_settled:
            break
    best = best if unit is None else best * unit
    return Solution(best, best_residual, steps, best_residual <= config.tol, evaluations)


def _flat(state: Tensor) -> Tensor:
    """(B, ...) -> (B, D), for an empty batch too."""
    return state.reshape(len(state), math.prod(state.shape[1:]))


def _on_host(*flags: Tensor) -> list[bool]:
    """All flags in one synchronisation."""
    return torch.stack(flags).tolist()


def _measure(residual: Tensor, fz: Tensor, config: SolverConfig, reference: Tensor | None) -> Tensor:
    """The residual (B,) under the criterion; not finite where f(z), or its norm, is not.

    A norm's squares leave float32 where a state has become tiny or huge since the start. A CPU takes three times
    longer for a norm in float64, so there it is taken again only where it was in doubt.
    """
    precise = torch.float64 if residual.device.type != "cpu" else None
    norm = torch.linalg.vector_norm(residual, dim=-1, dtype=precise)
    if config.criterion == "absolute":
        return norm.to(residual.dtype) if precise else _taken_again(norm, residual, config)
    if reference is not None:
        return (norm / reference).to(residual.dtype)
    scale = torch.linalg.vector_norm(fz, dim=-1, dtype=precise)
    if precise:
        return _ratio(norm, scale).to(residual.dtype)
    usual = _clamped(scale)
    if config.check_every > 0 and torch.equal(usual, scale):
        return norm / scale
    norm_again, scale_again = (torch.linalg.vector_norm(part, dim=-1, dtype=torch.float64) for part in (residual, fz))
    return torch.where(usual == scale, norm / scale, _ratio(norm_again, scale_again).to(residual.dtype))


def _taken_again(norm: Tensor, residual: Tensor, config: SolverConfig) -> Tensor:
    usual = _clamped(norm)
    if config.check_every > 0 and torch.equal(usual, norm):
        return norm
    again = torch.linalg.vector_norm(residual, dim=-1, dtype=torch.float64)
    return torch.where(usual == norm, norm, again.to(norm.dtype))


def _ratio(norm: Tensor, scale: Tensor) -> Tensor:
    return norm / _reference(scale)


def _reference(norm: Tensor) -> Tensor:
    """What a residual's norm is divided by: not zero, and NaN for what has overflown, to which all would be small."""
    return torch.where(norm.isinf(), torch.nan, norm.clamp_min(torch.finfo(norm.dtype).tiny))


def _clamped(size: Tensor) -> Tensor:
    """Sizes limited to the usual, 3e-10 to 3e9 in float32: the squares of their rounding errors are normal numbers."""
    faint = torch.finfo(size.dtype).tiny ** 0.25
    return size.clamp(faint, 1 / faint)


def _units(z: Tensor, fz: Tensor, config: SolverConfig) -> Tensor | None:
    """The unit (B, 1), a power of two, to solve each sample in; None where all are solved as they are.

    It is 1 where f(z) is of a usual size, or else brings the larger of z and f(z) to the edge of the usual. Where
    the host may not look, all is multiplied by what is nearly always 1, which changes no bit.
    """
    if config.criterion == "absolute" or not fz.numel():
        return None
    norm = torch.linalg.vector_norm(fz, dim=-1, keepdim=True)
    usual = _clamped(norm)
    if config.check_every > 0 and torch.equal(usual, norm):
        return None
    size = torch.maximum(z.abs().amax(-1, keepdim=True), fz.abs().amax(-1, keepdim=True))
    unit = size / _clamped(size)
    unit = torch.where((norm != usual) & unit.isfinite() & (unit > 0), unit, 1.0)
    unit = unit / (2 * torch.frexp(unit).mantissa)
    return None if config.check_every > 0 and bool((unit == 1).all()) else unit


def _in_units(evaluate: Map, unit: Tensor) -> Map:
    return lambda z: evaluate(z * unit) / unit


def _evaluation(f: Map, z0: Tensor) -> Map:
    """F on flattened states (B, D) in z0's precision, under the autocast that the caller runs under."""
    shape, dtype = z0.shape, z0.dtype
    autocast = _autocast_as_now(z0.device.type)

    def evaluate(z: Tensor) -> Tensor:
        version = None if z.is_inference() else z._version
        with autocast():
            fz = f(z.view(shape))
        if version is not None and z._version != version:
            raise LayerError("f changes its state in place: what is compared with it would be the state itself")
        if fz.shape != shape:
            raise LayerError(f"f maps a state {tuple(shape)} to {tuple(fz.shape)}: it has to keep the shape")
        return _flat(fz.to(dtype))

    return evaluate


def _autocast_off(device_type: str) -> AbstractContextManager:
    if torch.is_autocast_enabled(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()


def _autocast_as_now(device_type: str) -> Callable[[], AbstractContextManager]:
    if not torch.is_autocast_enabled(device_type):
        return nullcontext
    dtype = torch.get_autocast_dtype(device_type)
    # Casts of weights made under no_grad carry no graph; were they cached, a later evaluation with a graph
    # would find them, and the weights would silently get no gradient.
    return lambda: torch.autocast(device_type, dtype=dtype, cache_enabled=False)
