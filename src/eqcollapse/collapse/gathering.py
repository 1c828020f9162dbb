"""Small batches gathered into one that is worth what a batch costs."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

GATHERED_BYTES = 16 << 20
"""Features that are held back at most: 8192 samples of 512 float32 numbers. A batch of 128 samples of as many classes
has one of each, and costs a look at every class; of this many, there are 64 of each.
"""

Batch = tuple[Tensor, Tensor]


class Gathering:
    """Copies of batches on the CPU, given back as one batch once there are `GATHERED_BYTES` of them, or on demand."""

    def __init__(self) -> None:
        self._features = torch.empty(0, 0)
        self._labels = torch.empty(0, dtype=torch.int64)
        self._held = 0

    def add(self, features: Tensor, labels: Tensor) -> Iterator[Batch]:
        """Yield what is to be taken in now that `features` (N×d) and `labels` (N int64) came, in the order in which all
        came. It is valid until the next step. A batch that is large already is among it, as it is.
        """
        room = GATHERED_BYTES // max(1, features.shape[1] * features.element_size())
        if self._held + len(labels) > room or features.dtype != self._features.dtype:
            yield from self._all_held()
        if len(labels) >= room:
            yield features, labels
            return
        if self._features.shape != (room, features.shape[1]) or self._features.dtype != features.dtype:
            self._features = torch.empty(room, features.shape[1], dtype=features.dtype)
            self._labels = torch.empty(room, dtype=torch.int64)
        end = self._held + len(labels)
        self._features[self._held : end] = features
        self._labels[self._held : end] = labels
        self._held = end

    def rest(self) -> Iterator[Batch]:
        """Yield what is held back, and hold no memory any more."""
        yield from self._all_held()
        self._features, self._labels = self._features[:0, :0].clone(), self._labels[:0].clone()

    def _all_held(self) -> Iterator[Batch]:
        held, self._held = self._held, 0
        if held:
            yield self._features[:held], self._labels[:held]
