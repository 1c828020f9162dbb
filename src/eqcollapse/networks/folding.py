"""Networks for evaluation, in which batch normalisation is part of the convolution before it."""

import copy
from typing import TypeVar, cast

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from eqcollapse.equilibrium import Equilibrium
from eqcollapse.networks.classifier import Classifier
from eqcollapse.networks.deq import EquilibriumHead
from eqcollapse.networks.resnet import BasicBlock, Encoder, Shortcut

Part = TypeVar("Part", bound=nn.Module)

FOLLOWED: dict[type[nn.Module], tuple[tuple[str, str], ...]] = {
    Encoder: (("conv1", "bn1"),),
    BasicBlock: (("conv1", "bn1"), ("conv2", "bn2")),
    Shortcut: (("0", "1"),),
    EquilibriumHead: (("inject", "norm"),),
}
"""Of each module, the convolutions and the batch normalisations that follow them."""


@torch.no_grad()
def folded(network: Classifier) -> Classifier:
    """Return `network` in evaluation mode, with one convolution in place of a convolution and its normalisation.

    It computes the same but for rounding, in fewer passes over the activations. All that is not folded is the
    network's own: equilibria with their statistics, the classifier. Later training does not reach what is folded.
    """
    return _folded(network.eval())


def _folded(module: Part) -> Part:
    if isinstance(module, Equilibrium) or not any(type(part) in FOLLOWED for part in module.modules()):
        return module
    twin = copy.copy(module)
    twin._modules = {name: part and _folded(part) for name, part in module._modules.items()}
    for conv, norm in FOLLOWED.get(type(module), ()):
        parts = cast(tuple[nn.Conv2d, nn.BatchNorm2d], (module.get_submodule(conv), module.get_submodule(norm)))
        twin._modules[conv] = fuse_conv_bn_eval(*parts)
        twin._modules[norm] = nn.Identity()
    return twin
