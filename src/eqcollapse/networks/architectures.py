"""Networks other than our ResNet: by torchvision's name or of a user's own, taken apart where they are read.

A network is any `nn.Module` from images N×C×H×W to logits N×K whose last step is an `nn.Linear`: the input of that is
the features. What else it does is its own affair; it is looked at by forward hooks alone.
"""

import copy
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from eqcollapse.networks.config import Network
from eqcollapse.networks.mlp import MLP
from eqcollapse.runtime.nearest import nearest
from eqcollapse.runtime.references import imported_callable, is_reference

TORCHVISION_CHANNELS = 3
"""What the networks of torchvision take; a grey image is repeated."""


def whole(network: Network, channels: int, num_classes: int) -> tuple[nn.Module, int]:
    """Return the network of `network.architecture` with its own classifier, and the channels that it takes.

    Raises ValueError where the callable does not take `(channels, num_classes, **options)` or makes no module.
    """
    name = network.architecture
    if name == "mlp":
        return MLP(channels, num_classes, **network.options), channels
    if is_reference(name):
        return made(name, "network.architecture", network.options, channels=channels, num_classes=num_classes), channels
    if channels not in (1, TORCHVISION_CHANNELS):
        raise ValueError(f"network.architecture: {name} of torchvision takes images of 1 or 3 channels, not {channels}")
    from torchvision.models import get_model  # which takes seconds to import

    if "num_classes" in network.options or "weights" in network.options:
        raise ValueError("network.options: num_classes is that of the data set, and weights are drawn by the seed")
    try:
        return get_model(name, weights=None, num_classes=num_classes, **network.options), TORCHVISION_CHANNELS
    except (TypeError, ValueError) as error:
        raise ValueError(f"network.options: torchvision's {name} refuses {network.options}: {error}") from None


def made(reference: str, key: str, options: dict[str, Any], **arguments: Any) -> nn.Module:
    """Return what the user's own callable makes of `arguments`, by position, and `options`, by name.

    Raises ValueError, with the `key` of params.yaml, where it does not take them or what it makes is no module.
    """
    callable_ = imported_callable(reference)
    check_call(callable_, f"{key}: {reference}", tuple(arguments), options)
    module = callable_(*arguments.values(), **options)
    if not isinstance(module, nn.Module):
        raise ValueError(f"{key}: {reference} must return an nn.Module, and returned {type(module).__name__}")
    return module


def check_call(called: Callable[..., Any], what: str, names: tuple[str, ...], options: dict[str, Any]) -> None:
    """Raise ValueError where `called` cannot be called with as many positional arguments as `names`, and `options`."""
    try:
        signature = inspect.signature(called)
    except (TypeError, ValueError):  # of C code
        return
    try:
        signature.bind(*names, **options)
    except TypeError as error:
        given = ", ".join([*names, *(f"{name}=..." for name in options)])
        raise ValueError(f"{what} is called with ({given}), but its signature is {signature}: {error}") from None


class _CutError(Exception):
    """The cut was reached: no error, but the way out of a network's forward pass."""

    def __init__(self, output: Any):
        self.output = output


def _stop(module: nn.Module, inputs: Any, output: Any) -> None:
    raise _CutError(output)


class Trunk(nn.Module):
    """A network without its last linear layer, or up to the submodule `cut`: images -> N×d, or N×`channels_out`×H×W.

    Images of one channel are repeated to `channels`. Features N×d at a cut are images of one pixel.
    """

    def __init__(self, network: nn.Module, channels: int, *, cut: str = "", last: str = ""):
        super().__init__()
        self.network = network
        self.channels, self.cut, self.last = channels, cut, last
        self.channels_out = 0

    @classmethod
    def to_features(
        cls, network: nn.Module, channels: int, images: Tensor, num_classes: int
    ) -> tuple["Trunk", nn.Linear]:
        """Return `network` up to its last linear layer, and that layer.

        It is the one that makes the output from `images` (N×C×H×W), on which the network is tried in evaluation mode.
        Raises ValueError where there is none.
        """
        name, features = _last_linear(network, images, num_classes)
        linear = network.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        if not name:
            raise ValueError(
                "network.architecture: the network is a linear layer alone, and has no features of its own"
            )
        network.set_submodule(name, nn.Identity())
        trunk = cls(network, channels, last=name)
        if not _same(_tried(trunk, images), features):
            raise ValueError(
                f"network.architecture: without its last linear layer {name} the network computes otherwise"
            )
        return trunk, linear

    @classmethod
    def to_cut(cls, network: nn.Module, channels: int, images: Tensor, cut: str) -> "Trunk":
        """Return `network` up to the submodule `cut`, without the weights that only act behind it.

        Raises ValueError where the network does not get there from `images`, or not with N×C×H×W or N×d.
        """
        names = [name for name, _ in network.named_modules() if name]
        if cut not in names:
            outer = ", ".join(name for name, _ in network.named_children())
            raise ValueError(
                f"network.cut: {cut!r} is no submodule of the network{nearest(cut, names)}; it has {outer}"
            )
        trunk = cls(network, channels, cut=cut)
        output = _tried(trunk, images)
        if output.ndim not in (2, 4):
            raise ValueError(f"network.cut: {cut} returns {_shape(output)}; the equilibrium head reads N×C×H×W or N×d")
        pruned = trunk._pruned(images, output)
        pruned.channels_out = output.shape[1]
        return pruned

    def forward(self, images: Tensor) -> Tensor:
        """Return the features, or what the cut returns."""
        images = images.expand(-1, self.channels, -1, -1)
        if not self.cut:
            return self.network(images)
        handle = self.network.get_submodule(self.cut).register_forward_hook(_stop)
        try:
            self.network(images)
        except _CutError as reached:
            output = reached.output
            if not isinstance(output, Tensor):
                raise ValueError(f"network.cut: {self.cut} returns {type(output).__name__}, not a tensor") from None
            return output[..., None, None] if output.ndim == 2 else output
        finally:
            handle.remove()
        raise ValueError(f"network.cut: {self.cut} is not run by the network's forward pass")

    def _pruned(self, images: Tensor, output: Tensor) -> "Trunk":
        """Return this trunk without the weights behind the cut; itself, where it then computes otherwise."""
        other = copy.deepcopy(self)
        for name in list(_behind(other.network, _started(other, images))):
            other.network.set_submodule(name, nn.Identity())
        try:
            return other if _same(_tried(other, images), output) else self
        except Exception:  # of the network's own code, which reads a weight that no module's call does
            return self

    def stages(self) -> list[str]:
        """Return the names of the submodules of `network` that are its stages.

        Those are the blocks at the first depth that has several of them, without what holds the last linear layer or
        the cut; where there are no blocks, all that has weights.
        """
        inside = ""
        while names := self._parts(inside):
            rest = [name for name in names if name == self.cut or not self._target.startswith(f"{name}.")]
            blocks = [name for name in rest if self._has_parts(name)]
            if not rest:
                inside = names[0]
            elif len(blocks) == 1 and any(map(self._has_parts, self._parts(blocks[0]))):
                inside = blocks[0]
            else:
                return blocks or rest
        return []

    @property
    def _target(self) -> str:
        return f"{self.cut or self.last}."

    def _parts(self, name: str) -> list[str]:
        """Return the names of the children with weights of the submodule `name`."""
        children = self.network.get_submodule(name).named_children()
        return [f"{name}.{inner}".lstrip(".") for inner, child in children if _has_weights(child)]

    def _has_parts(self, name: str) -> bool:
        return any(True for _ in self.network.get_submodule(name).children())


def _last_linear(network: nn.Module, images: Tensor, num_classes: int) -> tuple[str, Tensor]:
    """Return the name of the linear layer that makes the output from `images`, and its input N×d."""
    called: list[tuple[str, Tensor, Tensor]] = []

    def record(name: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda module, inputs, output: called.append((name, inputs[0], output))

    handles = [
        part.register_forward_hook(record(name))
        for name, part in network.named_modules()
        if isinstance(part, nn.Linear)
    ]
    try:
        output = _tried(network, images)
    finally:
        for handle in handles:
            handle.remove()
    if output.shape != (len(images), num_classes):
        raise ValueError(
            f"network.architecture: the network returns {_shape(output)} for {_shape(images)}, not N×{num_classes}"
        )
    if not called or not _same(called[-1][2], output):
        before = f"; {called[-1][0]} is the last, and its output is changed" if called else ""
        raise ValueError(f"network.architecture: the network does not end in a linear layer (nn.Linear){before}")
    name, features, _ = called[-1]
    if features.ndim != 2:
        raise ValueError(f"network.architecture: its last linear layer {name} reads {_shape(features)}, not N×d")
    return name, features


def _started(trunk: Trunk, images: Tensor) -> set[nn.Module]:
    """Return the modules that a forward pass of `trunk` begins to run."""
    started: set[nn.Module] = set()
    handles = [part.register_forward_pre_hook(lambda module, _: started.add(module)) for part in trunk.modules()]
    try:
        _tried(trunk, images)
    finally:
        for handle in handles:
            handle.remove()
    return started


def _behind(module: nn.Module, started: set[nn.Module], prefix: str = "") -> Iterator[str]:
    """Yield the outermost submodules with weights of which none has started."""
    for child_name, child in module.named_children():
        name = f"{prefix}{child_name}"
        if not started.isdisjoint(child.modules()):
            yield from _behind(child, started, f"{name}.")
        elif _has_weights(child):
            yield name


def _has_weights(module: nn.Module) -> bool:
    return any(True for _ in module.parameters())


@torch.no_grad()
def _tried(network: nn.Module, images: Tensor) -> Tensor:
    """Return what `network` makes of `images` in evaluation mode; the mode is put back."""
    training = network.training
    output = network.eval()(images)
    network.train(training)
    if not isinstance(output, Tensor):
        raise ValueError(f"network.architecture: the network returns {type(output).__name__}, not a tensor of logits")
    return output


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal but for rounding."""
    return one.shape == other.shape and torch.allclose(one, other, rtol=1e-4, atol=1e-6, equal_nan=True)


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape))
