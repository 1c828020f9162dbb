"""What keeps a layer one function during a solve.

A fixed point of a map that changes from call to call does not exist. Three things are looked at once a solve:

- random numbers (dropout masks), in training and in evaluation mode: drawn once and replayed; while a CUDA graph is
  captured they cannot be, and torch's dropout modules are refused there in training mode;
- modules that normalise by the batch or keep running statistics (torch's BatchNorm family, InstanceNorm that
  tracks them): refused;
- buffers of the layer that its first evaluation writes to or replaces (spectral normalisation's power iteration,
  running means written by hand): refused. What `bind(x)` does to them is done once a solve, and is fine.

Not seen: what changes in a later evaluation only, a state that is no registered buffer (a Python counter, a plain
tensor, `buffer.data`), generators other than torch's default ones, and `F.batch_norm(z, None, None, training=True)`
or any other arithmetic across the batch. The last is one function of the batch, and is solved as such: each sample's
equilibrium then depends on its batch mates.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm

from .exceptions import LayerError
from .solve import Map

Stamp = tuple[int, int | Tensor]


def refuse_running_statistics(layer: nn.Module) -> None:
    """Raise a LayerError if a module of `layer` is a BatchNorm, or an InstanceNorm with running statistics.

    In training each evaluation would move the statistics, and a sample's equilibrium would depend on its
    batch mates.
    """
    for name, module in layer.named_modules():
        running = isinstance(module, _InstanceNorm) and module.track_running_stats
        if isinstance(module, _BatchNorm) or running:
            raise LayerError(
                f"{type(module).__name__} ({name or 'the layer itself'}) changes the layer during a solve: "
                "use GroupNorm, or another norm of one sample"
            )


def refuse_dropout(layer: nn.Module) -> None:
    """Raise a LayerError if a dropout of `layer` is active: a captured CUDA graph draws a new mask an evaluation."""
    for name, module in layer.named_modules():
        if isinstance(module, _DropoutNd) and module.training and module.p > 0:
            raise LayerError(
                f"{type(module).__name__} ({name or 'the layer itself'}) changes the layer during a solve that is "
                "captured as a CUDA graph: solve without capturing, or call eval()"
            )


class OneFunction:
    """A map whose every evaluation draws the same random numbers, and whose first leaves `layer`'s buffers alone.

    The generators are left where one evaluation leaves them, so the next solve draws new numbers. A map that
    draws nothing costs two looks at the generators' states a solve.

    Raises:
        LayerError: at the first evaluation, naming the buffer that it changed.
    """

    def __init__(self, f: Map, layer: nn.Module, device: torch.device) -> None:
        self._f = f
        self._layer = layer
        self._devices = {torch.device("cpu"), device} if device.type == "cuda" else {torch.device("cpu")}
        self._states: dict[torch.device, Tensor] = {}
        self._first = True

    def __call__(self, z: Tensor) -> Tensor:
        """Evaluate, as the first call did."""
        if not self._first:
            for device, state in self._states.items():
                _set_state(device, state)
            return self._f(z)
        self._first = False
        buffers = _stamps(self._layer.named_buffers())
        states = {device: _get_state(device) for device in self._devices}
        image = self._f(z)
        self._states = {device: state for device, state in states.items() if not torch.equal(state, _get_state(device))}
        _refuse_changes(buffers, _stamps(self._layer.named_buffers()))
        return image


def _stamps(buffers: Iterable[tuple[str, Tensor]]) -> dict[str, Stamp]:
    """What changes with a buffer: its identity and its count of in-place writes (its values where it has none)."""
    return {name: (id(buffer), _writes(buffer)) for name, buffer in buffers}


def _writes(buffer: Tensor) -> int | Tensor:
    return buffer.clone() if buffer.is_inference() else buffer._version


def _refuse_changes(before: dict[str, Stamp], after: dict[str, Stamp]) -> None:
    for name in before | after:
        if name not in before or name not in after or not _equal(before[name], after[name]):
            raise LayerError(
                f"an evaluation changes the buffer {name}, and with it the layer during a solve: compute it in "
                "bind(x), once a solve, or use a layer that keeps no state"
            )


def _equal(before: Stamp, after: Stamp) -> bool:
    if isinstance(before[1], Tensor) and isinstance(after[1], Tensor):
        return before[0] == after[0] and torch.equal(before[1], after[1])
    return before == after


def _get_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_state(device: torch.device, state: Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
