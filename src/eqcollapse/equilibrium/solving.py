"""The loop that all methods share: evaluate, measure, keep the best iterate, decide when to stop."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .config import SolverConfig
from .exceptions import ConfigError, LayerError
from .methods import METHODS, Method
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
        LayerError: a state in half precision, or an f that does not return its argument's shape.
    """
    if config is not None and options:
        raise ConfigError(f"give a config or keywords, not both (got {', '.join(options)} beside a config)")
    return fixed_point(f, z0, config or SolverConfig.from_dict(options), Workspace())


@torch.no_grad()
def fixed_point(
    f: Map, z0: Tensor, config: SolverConfig, workspace: Workspace, relative_to_start: bool = False
) -> Solution:
    """`solve`, with buffers from `workspace`; the relative criterion's ||f(z)|| may be a fixed ||z0|| instead."""
    if z0.dtype not in (torch.float32, torch.float64):
        raise LayerError(f"the state is kept in float32 or float64, not {z0.dtype}: pass z0.float()")
    evaluate = _evaluation(f, z0)
    start = _flat(z0.detach()).clone()  # it may be what is returned
    with _autocast_off(z0.device.type):
        method = METHODS[config.method](start, config, workspace)
        found = _in_units(evaluate, start, method, config, relative_to_start)
        method.close(workspace)
    return replace(found, z=found.z.reshape(z0.shape))


def _in_units(evaluate: Map, z: Tensor, method: Method, config: SolverConfig, relative_to_start: bool) -> Solution:
    fz = evaluate(z)
    unit = _units(z, fz) if config.criterion == "relative" else None
    # without looks nothing may be read, and all is multiplied, exactly, by what is nearly always one
    if unit is None or (config.check_every > 0 and bool((unit == 1).all())):
        reference = _norm(z) if relative_to_start else None
        return _iterate(evaluate, z, fz, method, config, reference)
    reference = _norm(z / unit) if relative_to_start else None
    found = _iterate(lambda y: evaluate(y * unit) / unit, z / unit, fz / unit, method, config, reference)
    return replace(found, z=found.z * unit)


def _iterate(
    evaluate: Map, z: Tensor, fz: Tensor, method: Method, config: SolverConfig, reference: Tensor | None
) -> Solution:
    """Go on from z and its image; a fixed `reference` (B,) takes the place of the relative criterion's ||f(z)||."""
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
    if residual.device.type != "cpu":
        return _ratio(_norm(residual), _norm(fz) if reference is None else reference, config).to(residual.dtype)
    norm = torch.linalg.vector_norm(residual, dim=-1)
    scale = torch.linalg.vector_norm(fz, dim=-1) if reference is None else reference.to(norm.dtype)
    measured = _ratio(norm, scale, config)
    if config.criterion == "absolute" or reference is not None:
        return measured
    clear = (scale >= _faint(norm.dtype)) & measured.isfinite()
    if config.check_every > 0 and bool(clear.all()):
        return measured
    return torch.where(clear, measured, _ratio(_norm(residual), _norm(fz), config).to(norm.dtype))


def _ratio(norm: Tensor, reference: Tensor, config: SolverConfig) -> Tensor:
    if config.criterion == "absolute":
        return norm
    relative = norm / reference.clamp_min(torch.finfo(norm.dtype).tiny)
    # a reference that has overflown would turn any finite residual into a perfect one
    return torch.where(reference.isinf(), torch.nan, relative)


def _norm(states: Tensor) -> Tensor:
    """The 2-norms (B,) in float64, in which no float32 number's square underflows or overflows."""
    return torch.linalg.vector_norm(states, dim=-1, dtype=torch.float64)


def _faint(dtype: torch.dtype) -> float:
    """The size, 3e-10 in float32, from which the square of even a rounding error is a normal number."""
    return torch.finfo(dtype).tiny ** 0.25


def _units(z: Tensor, fz: Tensor) -> Tensor:
    """A power of two a sample (B, 1): 1 where z and f(z) are of a usual size, else what brings them to its edge."""
    if not z.shape[1]:
        return z.new_ones(len(z), 1)
    size = torch.maximum(z.abs().amax(-1, keepdim=True), fz.abs().amax(-1, keepdim=True))
    faint = _faint(z.dtype)
    unit = size / size.clamp(faint, 1 / faint)
    unit = torch.where(unit.isfinite() & (unit > 0), unit, 1.0)
    return unit / (2 * torch.frexp(unit).mantissa)


def _evaluation(f: Map, z0: Tensor) -> Map:
    """F on flattened states (B, D) in z0's precision, under the autocast that the caller runs under."""
    shape, dtype = z0.shape, z0.dtype
    autocast = _autocast_as_now(z0.device.type)

    def evaluate(z: Tensor) -> Tensor:
        with autocast():
            fz = f(z.view(shape))
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
