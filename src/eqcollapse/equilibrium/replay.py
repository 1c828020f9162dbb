"""What keeps a layer one function during a solve.

A fixed point of a map that changes from call to call does not exist. Random numbers (dropout masks) are drawn
once a solve and replayed; normalisation by the batch or by running statistics is refused.
"""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from .exceptions import LayerError
from .solving import Map


def refuse_running_statistics(layer: nn.Module) -> None:
    """Raise a LayerError if a module of `layer` normalises by the batch or keeps running statistics.

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


class Replay:
    """A map whose every evaluation draws the same random numbers.

    The generator of `device` is left where one evaluation leaves it, so the next solve draws new ones. A map
    that draws nothing costs two looks at the generator's state a solve.
    """

    def __init__(self, f: Map, device: torch.device) -> None:
        self._f = f
        self._device = device
        self._state: Tensor | None = None
        self._random: bool | None = None

    def __call__(self, z: Tensor) -> Tensor:
        """Evaluate, as the first call did."""
        if self._random:
            _set_state(self._device, self._state)
        if self._random is not None:
            return self._f(z)
        self._state = _get_state(self._device)
        image = self._f(z)
        self._random = not torch.equal(self._state, _get_state(self._device))
        return image


def _get_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_state(device: torch.device, state: Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
