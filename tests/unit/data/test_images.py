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
    assert np.array_equal(decode(saved(image, kind), "x", None).pixels, np.asarray(image.convert("RGB")))


def test_jpeg_gives_what_pillow_gives():
    content = saved(Image.fromarray(PIXELS), "JPEG")
    assert np.array_equal(decode(content, "x", None).pixels, np.asarray(Image.open(io.BytesIO(content))))


def test_resizing_is_that_of_pillow_and_antialiased():
    checks = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    shrunk = decode(saved(Image.fromarray(checks), "PNG"), "x", 8).pixels
    assert shrunk.shape == (8, 8)
    assert np.abs(shrunk.astype(int) - 127).max() <= 2
    expected = Image.fromarray(PIXELS).resize((5, 5), Image.Resampling.BILINEAR)
    assert np.array_equal(decode(saved(Image.fromarray(PIXELS), "PNG"), "x", 5).pixels, np.asarray(expected))
    together = resize_all(PIXELS.transpose(2, 0, 1)[None], 5)
    assert np.array_equal(together[0].transpose(1, 2, 0), np.asarray(expected))


def test_grey_files_are_grey_and_colour_files_are_not():
    grey = Image.fromarray(PIXELS[..., 0])
    for image in (grey, grey.convert("LA"), grey.convert("1")):
        assert decode(saved(image, "PNG"), "x", None).pixels.shape == (7, 9)
    for mode in ("RGB", "P", "RGBA"):
        assert decode(saved(grey.convert(mode), "PNG"), "x", None).pixels.shape == (7, 9, 3)
    assert decode(saved(Image.fromarray(PIXELS).convert("CMYK"), "TIFF"), "x", None).pixels.shape == (7, 9, 3)


def test_sixteen_bits_are_scaled_not_clipped():
    deep = np.array([[0, 257, 128 * 257, 65535, 300, 129]], dtype=np.uint16)
    content = saved(Image.fromarray(deep), "PNG")
    assert decode(content, "x", None).pixels.tolist() == [[0, 1, 128, 255, 1, 1]]


def pgm(values, largest, kind):
    """A grey image of the Netpbm family: P5 (binary, big-endian beyond 255) or P2 (decimal numbers)."""
    values = np.asarray(values)
    header = f"{kind}\n{values.shape[1]} {values.shape[0]}\n{largest}\n".encode()
    if kind == "P5":
        return header + values.astype(">u2" if largest > 255 else "u1").tobytes()
    return header + "\n".join(" ".join(map(str, row)) for row in values).encode() + b"\n"


@pytest.mark.parametrize("kind", ["P5", "P2"])
@pytest.mark.parametrize("largest", [255, 1023, 4095, 65535])
def test_a_pgm_of_any_depth_is_scaled_by_its_largest_value(kind, largest):
    levels = np.linspace(0, largest, 12).round().astype(int).reshape(3, 4)
    decoded = decode(pgm(levels, largest, kind), "x", None)
    assert np.abs(decoded.pixels - levels * (255 / largest)).max() <= 0.51
    assert decoded.bits == (8 if largest == 255 else 16)


def tiff(values, order="<"):
    """A TIFF of one strip of grey values, as its baseline specification has it, whatever integers they are."""
    bits, signed = values.dtype.itemsize * 8, 1 + (values.dtype.kind == "i")
    height, width = values.shape
    fields = [(256, width), (257, height), (258, bits), (259, 1), (262, 1), (273, 0), (277, 1), (278, height),
              (279, values.nbytes), (339, signed)]  # fmt: skip
    start = 8 + 2 + 12 * len(fields) + 4
    entries = b"".join(struct.pack(order + "HHIHH", tag, 3, 1, start if tag == 273 else value, 0)
                       for tag, value in fields)  # fmt: skip
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(fields))
    return head + entries + bytes(4) + values.astype(values.dtype.newbyteorder(order)).tobytes()


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", ["int8", "int16", "int32"])
def test_signed_values_are_refused_by_that_word(kind, order):
    with pytest.raises(EqcollapseError, match="x: a TIFF of signed values; store unsigned"):
        decode(tiff(np.array([[-1, 100]], dtype=kind), order), "x", None)


@pytest.mark.parametrize("order", "<>")
def test_unsigned_values_of_a_tiff_are_read(order):
    assert decode(tiff(np.array([[1, 255]], dtype=np.uint8), order), "x", None).pixels.tolist() == [[1, 255]]
    assert decode(tiff(np.array([[257, 65535]], dtype=np.uint16), order), "x", None).pixels.tolist() == [[1, 255]]


@pytest.mark.parametrize(("kind", "mode"), [(np.float32, "F"), (np.uint32, "I")])
def test_32_bit_images_are_refused(kind, mode):
    content = (
        tiff(np.ones((2, 2), dtype=np.uint32)) if mode == "I" else saved(Image.fromarray(np.ones((2, 2), kind)), "TIFF")
    )
    with pytest.raises(EqcollapseError, match=f"x: pixels of mode {mode}"):
        decode(content, "x", None)


def test_what_the_file_stores_is_said_beside_the_pixels():
    deep = np.array([[0, 4095, 2048]] * 2, dtype=np.uint16)
    found = decode(saved(Image.fromarray(deep), "PNG"), "x", 2)
    assert (found.mode, found.width, found.height, found.bits) == ("I;16", 3, 2, 16)
    assert (found.lowest, found.highest) == (0, 4095)
    assert found.pixels.shape == (2, 2)
    colours = np.array([[[3, 4, 5], [7, 200, 9]]], dtype=np.uint8)
    found = decode(saved(Image.fromarray(colours), "PNG"), "x", None)
    assert (found.mode, found.width, found.height, found.bits) == ("RGB", 2, 1, 8)
    assert (found.lowest, found.highest) == (3, 200)


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
            assert decode(bytes(damaged), "x", None).pixels.dtype == np.uint8
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
