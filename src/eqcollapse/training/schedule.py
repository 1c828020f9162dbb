"""The learning rate over epochs."""

import math

from eqcollapse.training.config import Schedule


def learning_rate(settings: Schedule, lr: float, epoch: int, epochs: int) -> float:
    """Return the learning rate of `epoch` (from 1 to `epochs`) for the section `train.schedule`.

    constant: `lr`; step: `lr` times `factor` once every `every` epochs; cosine: half a cosine from `lr` towards 0
    (Loshchilov & Hutter 2017, eq. 5). The first `warmup` epochs rise to that value linearly.
    """
    rate = lr * SCHEDULES[settings.kind](settings, epoch, epochs)
    warmup = settings.warmup
    return rate * min(1.0, epoch / (warmup + 1)) if warmup else rate


SCHEDULES = {
    "constant": lambda settings, epoch, epochs: 1.0,
    "step": lambda settings, epoch, epochs: settings.factor ** ((epoch - 1) // settings.every),
    "cosine": lambda settings, epoch, epochs: 0.5 * (1 + math.cos(math.pi * (epoch - 1) / epochs)),
}
