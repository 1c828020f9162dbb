"""The optimisers, by the names of params.yaml."""

from collections.abc import Iterable

import torch
from torch import nn

from eqcollapse.training.config import Train


def optimizer(parameters: Iterable[nn.Parameter], settings: Train, fused: bool) -> torch.optim.Optimizer:
    """Return torch's optimiser `train.optimizer`. Fused, it is one kernel for all weights: worth it on a GPU.

    `adamw` decouples the decay from the gradient, so that a step takes lr weight_decay of each weight (Loshchilov &
    Hutter 2019); in the others the decay is added to the gradient.
    """
    if settings.optimizer == "adamw":
        options = settings.optimizer_options
        return torch.optim.AdamW(
            parameters,
            lr=settings.lr,
            betas=(settings.momentum, options["beta2"]),
            eps=options["eps"],
            weight_decay=settings.weight_decay,
            fused=fused,
        )
    return torch.optim.SGD(
        parameters,
        lr=settings.lr,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        nesterov=settings.optimizer == "nesterov",
        fused=fused,
    )
