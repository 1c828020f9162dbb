"""What an image costs in training on this machine, so that a study's time can be told before it is run."""

import time

import numpy as np
import torch

from eqcollapse.data.splits import Split
from eqcollapse.data.store import Dataset
from eqcollapse.training import backends
from eqcollapse.training.config import TrainSpec
from eqcollapse.training.job import new_cell
from eqcollapse.training.log import TrainingLog
from eqcollapse.training.trainer import descend

_BATCHES = 3


def seconds_an_image(spec: TrainSpec, channels: int, side: int, num_classes: int, device: str = "cpu") -> float:
    """Return the seconds that a training image takes in an epoch of `spec`'s model, measured on noise.

    Two epochs of a few batches are trained, and the second is timed. Images are `side` x `side` pixels.
    """
    place = backends.prepare(device, spec.train.threads, spec.train.deterministic)
    count = _BATCHES * spec.train.batch_size
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (count, channels, side, side), dtype=np.uint8)
    labels = np.arange(count) % num_classes
    noise = Dataset(images, labels, tuple(map(str, range(num_classes))), "noise")
    split = Split(np.arange(count), labels, (), np.arange(0))
    cell = new_cell(spec, noise, noise, split, place)
    for cell.epoch in (1, 2):
        start = time.perf_counter()
        descend(cell, TrainingLog())
        if place.type == "cuda":
            torch.cuda.synchronize(place)
    return (time.perf_counter() - start) / count
