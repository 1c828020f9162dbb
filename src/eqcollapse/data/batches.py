"""Batches of a data set that lies on the device as uint8: shuffled, cropped, flipped and normalised there."""

import hashlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from eqcollapse.runtime.errors import EqcollapseError


class Batches:
    """Batches (x, y) of `images` (uint8, N×C×H×W) and `labels` (int64, N), both on the device already.

    x is float32 n×C×H×W, (pixel / 255 - mean) / std per channel; y is int64 n. `crop` p: a random
    H×W window of the image with p black pixels on each side; `flip`: a horizontal mirror image with probability
    1/2. The order and the augmentation of an epoch are drawn on the CPU from (seed,
    epoch) alone: the same on any device, and after a resumed run.

    No sample is dropped. A last batch of one sample, on which batch normalisation over 1×1 maps has no
    variance, joins the batch before it, which so has `batch_size` + 1 samples.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        batch_size: int,
        *,
        crop: int = 0,
        flip: bool = False,
        mean: Sequence[float],
        std: Sequence[float],
        seed: int,
    ):
        _check(images, labels, batch_size, crop)
        self.images, self.labels = images, labels
        self.crop, self.flip = crop, flip
        self.seed = seed
        self._batch_size = batch_size
        self._bounds = batch_bounds(len(labels), batch_size)
        channels = (1, images.shape[1], 1, 1)
        self._mean = torch.tensor(mean, dtype=torch.float32, device=images.device).reshape(channels)
        self._std = torch.tensor(std, dtype=torch.float32, device=images.device).reshape(channels)

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self._bounds)

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of this epoch (from 0): shuffled and augmented as (seed, epoch) has it."""
        generator = torch.Generator().manual_seed(epoch_seed(self.seed, epoch))
        device, count = self.images.device, len(self.labels)
        order = torch.randperm(count, generator=generator).to(device)
        offsets = torch.randint(2 * self.crop + 1, (2, count), generator=generator).to(device)
        mirrored = torch.randint(2, (count,), generator=generator).bool().to(device)
        for start, stop in self._bounds:
            chosen = order[start:stop]
            images = self.images[chosen]
            if self.crop or self.flip:
                images = self._augmented(images, offsets[:, start:stop], mirrored[start:stop])
            yield self._normalised(images), self.labels[chosen]

    def ordered(self, batch_size: int | None = None, chosen: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """All samples in their own order, or the `chosen`, without augmentation; of `batch_size`, if it is given."""
        count = len(self.labels) if chosen is None else len(chosen)
        for start, stop in batch_bounds(count, batch_size or self._batch_size):
            part = slice(start, stop) if chosen is None else chosen[start:stop]
            yield self._normalised(self.images[part]), self.labels[part]

    def _augmented(self, images: Tensor, offsets: Tensor, mirrored: Tensor) -> Tensor:
        height, width = images.shape[2:]
        padded = pad(images, (self.crop,) * 4)
        rows = offsets[0, :, None] + torch.arange(height, device=images.device)
        columns = torch.arange(width, device=images.device).expand(len(images), width)
        if self.flip:
            columns = torch.where(mirrored[:, None], width - 1 - columns, columns)
        columns = columns + offsets[1, :, None]
        sample = torch.arange(len(images), device=images.device)[:, None, None, None]
        channel = torch.arange(images.shape[1], device=images.device)[None, :, None, None]
        return padded[sample, channel, rows[:, None, :, None], columns[:, None, None, :]]

    def _normalised(self, images: Tensor) -> Tensor:
        return images.float().div_(255).sub_(self._mean).div_(self._std)


def batch_bounds(count: int, batch_size: int) -> list[tuple[int, int]]:
    """(start, stop) of the batches of `count` samples; a single last sample joins the batch before it."""
    if not count:
        return []
    starts = list(range(0, count, batch_size))
    if len(starts) > 1 and batch_size > 1 and count - starts[-1] == 1:
        starts.pop()
    return list(zip(starts, [*starts[1:], count], strict=True))


def channel_statistics(images: Tensor, indices: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of `images[indices]` (uint8, N×C×H×W), on the scale 0 to 1.

    Exact: from integer histograms, so the same on every device. The deviation is the population's (divided by
    N); it is at least 1/255, one grey level, so that a constant channel can be divided by it.
    """
    if len(indices) == 0:
        raise EqcollapseError("channel statistics of no images: the split keeps no training samples")
    chosen = torch.as_tensor(indices, device=images.device)
    moments = [_moments(images[:, channel][chosen]) for channel in range(images.shape[1])]
    means, deviations = zip(*moments, strict=True)
    return means, deviations


def _moments(pixels: Tensor) -> tuple[float, float]:
    histogram = torch.bincount(pixels.flatten(), minlength=256).tolist()
    count = sum(histogram)
    total = sum(level * times for level, times in enumerate(histogram))
    squares = sum(level * level * times for level, times in enumerate(histogram))
    # In integers, count² times the variance: no cancellation.
    deviation = (count * squares - total * total) ** 0.5 / count
    return total / count / 255, max(deviation, 1.0) / 255


def epoch_seed(seed: int, epoch: int) -> int:
    """Return the seed, below 2^63, of all draws in an epoch of the run `seed`."""
    return int.from_bytes(hashlib.sha256(f"{seed}/epoch/{epoch}".encode()).digest()[:8]) >> 1


def _check(images: Tensor, labels: Tensor, batch_size: int, crop: int) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4 or len(images) != len(labels) or not len(labels):
        raise ValueError(f"images are {images.dtype} {tuple(images.shape)} for {len(labels)} labels, not uint8 N×C×H×W")
    if batch_size < 1:
        raise ValueError(f"batch_size = {batch_size}: at least 1")
    if crop < 0:
        raise ValueError(f"crop = {crop}: at least 0 pixels")
