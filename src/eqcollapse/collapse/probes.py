"""Features of named layers, recorded by forward hooks while a network runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType

import torch
from torch import Tensor, nn


def pooled(output: Tensor) -> Tensor:
    """Return N×d from N×d×...: the mean over all positions."""
    return output if output.ndim <= 2 else output.flatten(2).mean(2)


def flattened(output: Tensor) -> Tensor:
    """Return N×(d*...) from N×d×...: all positions side by side."""
    return output.flatten(1)


READERS: dict[bool | str, Callable[[Tensor], Tensor]] = {True: pooled, "flatten": flattened}


class Probes:
    """Record the outputs of `names`d layers of `model` in every forward pass within the context.

    ::

        with Probes(network, ["stage1", "stage4"]) as probes:
            network(images)
        probes.features["stage4"]  # N×d, detached, on the network's device

    `names` are those of `model.named_modules()`. `pool`: True averages over all positions of N×d×H×W
    outputs, "flatten" puts them side by side. A layer that returns a tuple gives its first tensor.
    Recorded is what the layer returned, whatever is done in place to its output afterwards. `features`
    holds the latest pass; a layer that ran several times in it (the layer of a DEQ) its last output. The
    hooks are gone on exit, also after an error.
    """

    def __init__(self, model: nn.Module, names: Sequence[str], pool: bool | str = True):
        """Raise ValueError for an unknown `pool` or names that the model does not have."""
        if pool not in READERS:
            raise ValueError(f'pool must be True or "flatten", not {pool!r}')
        layers = dict(model.named_modules())
        unknown = [name for name in names if name not in layers]
        if unknown:
            raise ValueError(f"the model has no layers {', '.join(unknown)}; it has {', '.join(filter(None, layers))}")
        self._read = READERS[pool]
        self._layers = {name: layers[name] for name in names}
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self.features: dict[str, Tensor] = {}

    def __enter__(self) -> Probes:
        self._handles = [layer.register_forward_hook(self._recorder(name)) for name, layer in self._layers.items()]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _recorder(self, name: str) -> Callable[[nn.Module, tuple, object], None]:
        def record(module: nn.Module, inputs: tuple, output: object) -> None:
            tensor = output[0] if isinstance(output, (tuple, list)) else output
            if not isinstance(tensor, Tensor) or tensor.ndim < 2:
                raise ValueError(f"layer {name} returns no N×d×... tensor, but {type(tensor).__name__}")
            self.features[name] = _own(self._read(tensor.detach()), tensor)

        return record


def _own(features: Tensor, output: Tensor) -> Tensor:
    """Return `features`, copied if they lie in the memory of `output`, which a later in-place layer overwrites."""
    shared = features.untyped_storage().data_ptr() == output.untyped_storage().data_ptr()
    return features.clone() if shared else features
