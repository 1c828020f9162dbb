"""What the files of an image folder store, before they are converted: sizes, modes, bits and the range of values."""

from collections import Counter
from typing import Any

from .images import Decoded


class Stored:
    """Facts of the images of one split, taken up image by image."""

    def __init__(self) -> None:
        self._modes: Counter[str] = Counter()
        self._sizes: Counter[tuple[int, int]] = Counter()
        self._ranges: dict[int, tuple[int, int]] = {}

    def add(self, image: Decoded) -> None:
        """Take up one image."""
        self._modes[image.mode] += 1
        self._sizes[image.width, image.height] += 1
        low, high = self._ranges.get(image.bits, (image.lowest, image.highest))
        self._ranges[image.bits] = min(low, image.lowest), max(high, image.highest)

    def facts(self) -> dict[str, Any]:
        """Return what there is to say, as JSON has it.

        `modes`: images by Pillow's mode. `ranges`: the lowest and highest value by bits a channel. `width`, `height`
        (pixels) and `aspect` (width / height): the least and the most.
        """
        widths, heights = zip(*self._sizes, strict=True)
        aspects = [width / height for width, height in self._sizes]
        return {
            "modes": dict(sorted(self._modes.items())),
            "ranges": {str(bits): list(found) for bits, found in sorted(self._ranges.items())},
            "width": [min(widths), max(widths)],
            "height": [min(heights), max(heights)],
            "aspect": [round(min(aspects), 4), round(max(aspects), 4)],
        }
