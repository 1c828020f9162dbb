"""Encoded images to uint8 arrays: one at a time, bounded before they are decoded.

Any format that Pillow reads, its first frame; EPS excepted, whose reader runs Ghostscript. Transparency is
dropped and EXIF orientation ignored, as torchvision's ImageFolder does. 16-bit grey is scaled to 8 bits (v /
257, rounded).
"""

import io
import warnings
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from eqcollapse.runtime.errors import EqcollapseError

MAX_PIXELS = 1 << 26
_GREY_MODES = {"1", "L", "LA", "La", "I;16", "I;16L", "I;16B", "I;16N"}
_COLOUR_MODES = {"P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB", "HSV"}
_RUNS_PROGRAMS = {"EPS"}
# A TIFF's tag of what its samples are, and its value for signed integers, which Pillow hands over as unsigned ones.
_SAMPLE_FORMAT, _SIGNED = 339, 2
# Tried before the others, of which some cannot tell at a glance that a file is not theirs.
_FREQUENT = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP")


@dataclass(frozen=True)
class Decoded:
    """An image, and what its file stores.

    `pixels` are uint8: H×W if the file stores grey values, else H×W×3; resized if a size was given. The rest is of the
    file before that: Pillow's `mode`, `width` and `height` in pixels, `bits` a channel (8 or 16), the `lowest` and
    `highest` value, of colour images over their three channels.
    """

    pixels: np.ndarray
    mode: str
    width: int
    height: int
    bits: int
    lowest: int
    highest: int


def decode(content: bytes, name: str, size: int | None) -> Decoded:
    """Decode an encoded image; resize it to size×size if that is given.

    Raises EqcollapseError, naming `name`, for what is no image, is damaged, has more than MAX_PIXELS pixels
    by its header (nothing is decoded then), or stores signed or 32-bit values, whose range no header tells.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=_formats()) as image:
                _check_header(image, name)
                image.load()
                return _described(image, size)
    except EqcollapseError:
        raise
    except Image.UnidentifiedImageError as error:
        raise EqcollapseError(f"{name}: not an image that Pillow reads") from error
    except Image.DecompressionBombError as error:
        raise EqcollapseError(f"{name}: more than {MAX_PIXELS} pixels") from error
    # Pillow's readers meet hostile bytes with whatever exception happens to arise.
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise EqcollapseError(f"{name}: a damaged image ({reason})") from error


def resize_all(images: np.ndarray, size: int | None) -> np.ndarray:
    """Images (uint8, N×C×H×W) resized to size×size as `decode` does; unchanged if `size` is None."""
    if size is None or images.shape[2:] == (size, size):
        return images
    resized = np.empty((*images.shape[:2], size, size), dtype=np.uint8)
    for row, image in enumerate(images):
        for channel, plane in enumerate(image):
            resized[row, channel] = np.asarray(_resized(Image.fromarray(plane), size))
    return resized


def stack(images: list[np.ndarray], channels: int) -> np.ndarray:
    """Images of `decode`, all of one size, as N×channels×H×W; grey ones are repeated for 3 channels.

    `images` is emptied on the way, so that the pixels are not held twice.
    """
    stacked = np.empty((len(images), channels, *images[0].shape[:2]), dtype=np.uint8)
    for row in reversed(range(len(images))):
        image = images.pop()
        stacked[row] = image if image.ndim == 2 else image.transpose(2, 0, 1)
    return stacked


@cache
def _formats() -> list[str]:
    Image.init()
    others = [name for name in Image.ID if name not in _RUNS_PROGRAMS and name not in _FREQUENT]
    return [*_FREQUENT, *others]


def _check_header(image: Image.Image, name: str) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise EqcollapseError(f"{name}: {width} x {height} pixels; at most {MAX_PIXELS} are allowed")
    if isinstance(image, TiffImageFile) and _SIGNED in image.tag_v2.get(_SAMPLE_FORMAT, ()):
        raise EqcollapseError(f"{name}: a TIFF of signed values; store unsigned ones of 8 or 16 bits")
    if image.mode not in _GREY_MODES | _COLOUR_MODES and not _is_wide(image):
        raise EqcollapseError(f"{name}: pixels of mode {image.mode}; store 8 or 16 bits a channel")


def _is_wide(image: Image.Image) -> bool:
    """Whether an image stores 16-bit grey values; those of a PGM, Pillow has as 32-bit ones from 0 to 65535."""
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM")


def _described(image: Image.Image, size: int | None) -> Decoded:
    if _is_wide(image):
        stored, bits = np.asarray(image), 16
        # Pillow's own conversion clips at 255.
        narrow = Image.fromarray(((stored.astype(np.uint32) + 128) // 257).astype(np.uint8))
    else:
        narrow, bits = image.convert("L" if image.mode in _GREY_MODES else "RGB"), 8
        stored = np.asarray(narrow)
    width, height = image.size
    pixels = np.asarray(_resized(narrow, size))
    return Decoded(pixels, image.mode, width, height, bits, int(stored.min()), int(stored.max()))


def _resized(image: Image.Image, size: int | None) -> Image.Image:
    """Pillow's bilinear filter: antialiased when it shrinks. The aspect ratio is not kept."""
    if size is None or image.size == (size, size):
        return image
    return image.resize((size, size), Image.Resampling.BILINEAR)
