"""Encoded images to uint8 arrays: one at a time, bounded before they are decoded.

Any format that Pillow reads, its first frame; EPS excepted, whose reader runs Ghostscript. Transparency is
dropped and EXIF orientation ignored, as torchvision's ImageFolder does. 16-bit grey is scaled to 8 bits (v /
257, rounded).
"""

import io
import warnings
from functools import cache

import numpy as np
from PIL import Image

from eqcollapse.runtime.errors import EqcollapseError

MAX_PIXELS = 1 << 26
_GREY_MODES = {"1", "L", "LA", "La", "I;16", "I;16L", "I;16B", "I;16N"}
_COLOUR_MODES = {"P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB", "HSV"}
_RUNS_PROGRAMS = {"EPS"}
# Tried before the others, of which some cannot tell at a glance that a file is not theirs.
_FREQUENT = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP")


def decode(content: bytes, name: str, size: int | None) -> np.ndarray:
    """The image as uint8: H×W if its file stores grey values, else H×W×3; resized to size×size if given.

    Raises EqcollapseError, naming `name`, for what is no image, is damaged, has more than MAX_PIXELS pixels
    by its header (nothing is decoded then), or stores 32-bit values, whose range no header tells.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=_formats()) as image:
                _check_header(image, name)
                image.load()
                return np.asarray(_resized(_eight_bits(image), size))
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
    for row in range(len(images)):
        image = images[row]
        stacked[row] = image if image.ndim == 2 else image.transpose(2, 0, 1)
        images[row] = None
    images.clear()
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
    if image.mode not in _GREY_MODES | _COLOUR_MODES:
        raise EqcollapseError(f"{name}: pixels of mode {image.mode}; store 8 or 16 bits a channel")


def _eight_bits(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        # Pillow's own conversion clips at 255.
        return Image.fromarray(((np.asarray(image).astype(np.uint32) + 128) // 257).astype(np.uint8))
    return image.convert("L" if image.mode in _GREY_MODES else "RGB")


def _resized(image: Image.Image, size: int | None) -> Image.Image:
    """Pillow's bilinear filter: antialiased when it shrinks. The aspect ratio is not kept."""
    if size is None or image.size == (size, size):
        return image
    return image.resize((size, size), Image.Resampling.BILINEAR)
