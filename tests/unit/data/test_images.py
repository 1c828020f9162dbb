import io
import struct
import zlib
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image

from eqcollapse.data import images
from eqcollapse.data.images import decode, resize_all, stack
from eqcollapse.runtime.errors import EqcollapseError

PIXELS = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)


def saved(image, kind, **options):
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def png_header(width, height):
    """A PNG that is nothing but a header, of RGB pixels."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "GIF", "TGA"])
def test_lossless_formats_give_the_pixels(kind):
    image = Image.fromarray(PIXELS)
    if kind == "GIF":
        image = image.quantize(256)
    assert np.array_equal(decode(saved(image, kind), "x", None), np.asarray(image.convert("RGB")))


def test_jpeg_gives_what_pillow_gives():
    content = saved(Image.fromarray(PIXELS), "JPEG")
    assert np.array_equal(decode(content, "x", None), np.asarray(Image.open(io.BytesIO(content))))


def test_resizing_is_that_of_pillow_and_antialiased():
    checks = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    shrunk = decode(saved(Image.fromarray(checks), "PNG"), "x", 8)
    assert shrunk.shape == (8, 8)
    assert np.abs(shrunk.astype(int) - 127).max() <= 2
    expected = Image.fromarray(PIXELS).resize((5, 5), Image.Resampling.BILINEAR)
    assert np.array_equal(decode(saved(Image.fromarray(PIXELS), "PNG"), "x", 5), np.asarray(expected))
    together = resize_all(PIXELS.transpose(2, 0, 1)[None], 5)
    assert np.array_equal(together[0].transpose(1, 2, 0), np.asarray(expected))


def test_grey_files_are_grey_and_colour_files_are_not():
    grey = Image.fromarray(PIXELS[..., 0])
    for image in (grey, grey.convert("LA"), grey.convert("1")):
        assert decode(saved(image, "PNG"), "x", None).shape == (7, 9)
    for mode in ("RGB", "P", "RGBA"):
        assert decode(saved(grey.convert(mode), "PNG"), "x", None).shape == (7, 9, 3)
    assert decode(saved(Image.fromarray(PIXELS).convert("CMYK"), "TIFF"), "x", None).shape == (7, 9, 3)


def test_sixteen_bits_are_scaled_not_clipped():
    deep = np.array([[0, 257, 128 * 257, 65535, 300, 129]], dtype=np.uint16)
    content = saved(Image.fromarray(deep), "PNG")
    assert decode(content, "x", None).tolist() == [[0, 1, 128, 255, 1, 1]]


def test_32_bit_images_are_refused():
    content = saved(Image.fromarray(np.ones((2, 2), dtype=np.float32)), "TIFF")
    with pytest.raises(EqcollapseError, match="x: pixels of mode F"):
        decode(content, "x", None)


@pytest.mark.parametrize("side", [100_000, 9_000])
def test_a_giant_header_is_refused_before_decoding(side, monkeypatch):
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(EqcollapseError, match=r"a/bomb\.png: .* pixels"):
        decode(png_header(side, side), "a/bomb.png", 32)


def test_what_is_no_image_is_refused():
    for content in (
        b"",
        b"just text, " * 100,
        b"cos\nsystem\n(S'echo'\ntR.",
        b"<svg/>",
        b"\x80\x04\x95" + b"x" * 50,
    ):
        with pytest.raises(EqcollapseError, match=r"train/a/1\.jpg: not an image that Pillow reads"):
            decode(content, "train/a/1.jpg", None)


def test_postscript_is_never_interpreted(monkeypatch):
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_: pytest.fail("ran Ghostscript"))
    content = saved(Image.fromarray(PIXELS), "EPS")
    with pytest.raises(EqcollapseError, match="not an image"):
        decode(content, "x", None)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP"])
def test_damaged_images_end_in_one_line_or_in_pixels(kind):
    content = bytearray(saved(Image.fromarray(np.tile(PIXELS, (4, 4, 1))), kind))
    generator = np.random.default_rng(1)
    refused = []
    for _ in range(60):
        damaged = bytearray(content[: generator.integers(1, len(content))] if generator.random() < 0.5 else content)
        for place in generator.integers(0, len(damaged), generator.integers(1, 9)):
            damaged[place] = generator.integers(256)
        refused.append(True)
        with suppress(EqcollapseError):
            assert decode(bytes(damaged), "x", None).dtype == np.uint8
            refused[-1] = False
    assert sum(refused) > 10


def test_stacking_repeats_grey_and_empties_the_list():
    grey, colour = PIXELS[..., 0], PIXELS
    parts = [grey, colour]
    stacked = stack(parts, 3)
    assert np.array_equal(stacked[1], colour.transpose(2, 0, 1))
    assert all(np.array_equal(stacked[0, channel], grey) for channel in range(3))
    assert parts == []
    assert stack([grey], 1).shape == (1, 1, 7, 9)


def test_the_pixel_limit_counts_pixels(monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 7 * 9)
    decode(saved(Image.fromarray(PIXELS), "PNG"), "x", None)
    monkeypatch.setattr(images, "MAX_PIXELS", 7 * 9 - 1)
    with pytest.raises(EqcollapseError, match="9 x 7 pixels; at most 62"):
        decode(saved(Image.fromarray(PIXELS), "PNG"), "x", None)
