"""Hundreds of altered archives and images: each is refused in a line or read as what it is, in bounded memory."""

import gzip
import io
import os
import pickle
import random
import struct
import subprocess
import sys
import tarfile
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import zstandard
from PIL import Image

from eqcollapse.data.checksums import content_sha256
from eqcollapse.data.config import DatasetSpec
from eqcollapse.data.job import prepare_dataset
from eqcollapse.data.store import read_dataset
from eqcollapse.runtime.errors import EqcollapseError
from hostile import bounded, draws, size, tree
from projects import environment_here

pytestmark = pytest.mark.faults

CONTAINERS = (".tar", ".tar.gz", ".tgz", ".tar.zst", ".zip", "")
KINDS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA", "ICO", "PCX", "SGI", "JPEG2000")
SIDE = 12
NAMES = [
    f"set/{split}/{label}/{number}" for split in ("train", "test") for label in ("ant", "dog") for number in (0, 1)
]


def encoded(pixels: np.ndarray, kind: str) -> bytes:
    """Return the image as a file of this kind."""
    content = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.quantize(256) if kind in ("GIF", "PCX") else image).save(content, kind)
    return content.getvalue()


def images(kind: str = "PNG") -> dict[str, bytes]:
    """Return a data set of two classes, by name."""
    generator = np.random.default_rng(0)
    return {
        f"{name}.{kind.lower()}": encoded(generator.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8), kind)
        for name in NAMES
    }


def packed(suffix: str, files: list[tuple[str, bytes]]) -> bytes:
    """Return the archive of these files, which may have equal names."""
    plain = io.BytesIO()
    if suffix == ".zip":
        with warnings.catch_warnings(), zipfile.ZipFile(plain, "w", zipfile.ZIP_DEFLATED) as archive:
            warnings.simplefilter("ignore")  # of equal names
            for name, content in files:
                archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
        return plain.getvalue()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return compressed(suffix, plain.getvalue())


def compressed(suffix: str, plain: bytes) -> bytes:
    """Compress a tar as its suffix says."""
    if suffix in (".tar.gz", ".tgz"):
        return gzip.compress(plain, mtime=0)
    return zstandard.compress(plain) if suffix == ".tar.zst" else plain


def placed(folder: Path, suffix: str, files: list[tuple[str, bytes]]) -> Path:
    """Write the files to `folder` as an archive, or as a folder where there is no suffix."""
    path = folder / f"data{suffix}"
    if suffix:
        path.write_bytes(packed(suffix, files))
        return path
    for name, content in files:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def spec_of(path: Path) -> DatasetSpec:
    return DatasetSpec(name="mine", source="imagefolder", classes=2, sha256=content_sha256(path))


def read(path: Path, folder: Path, seconds: int = 20) -> list | str:
    """Run the stage on what lies at `path`; return images and labels of both splits, or the line that refused it.

    It has 1 GiB and `seconds`; what is refused leaves nothing behind, and nothing but the outputs is written.
    """
    outputs = [folder / "out" / name for name in ("train.safetensors", "test.safetensors")]
    for output in outputs:
        output.unlink(missing_ok=True)
    before = tree(folder)
    try:
        with bounded(seconds=seconds):
            prepare_dataset(spec_of(path), *outputs, path=str(path), mirror=None, cache=folder / "cache")
    except EqcollapseError as error:
        said = str(error)
    else:
        said = None
    if said is not None:
        assert said.isprintable(), repr(said)
        assert len(said) < 1000
        assert tree(folder) == before
        return said
    found = [read_dataset(output) for output in outputs]
    for output in outputs:
        output.unlink()
    assert tree(folder) == before
    for dataset in found:
        assert dataset.images.dtype == np.uint8
        assert len(dataset.images) == len(dataset.labels) > 0
        assert set(dataset.labels.tolist()) == {0, 1}
    return [(dataset.images.tobytes(), dataset.labels.tobytes()) for dataset in found]


def damaged(content: bytes, draw: random.Random) -> bytes:
    """Return bytes with some lost, flipped, doubled, overwritten or added."""
    held = bytearray(content)
    for _ in range(draw.choice([1, 1, 1, 5])):
        start = draw.randrange(len(held))
        match draw.randrange(6):
            case 0:
                held = held[: max(start, 1)]
            case 1 | 2:
                held[start] ^= 1 << draw.randrange(8)
            case 3:
                held[start:start] = held[start : start + 64]
            case 4:
                held[start : start + 4] = draw.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff"])
            case _:
                del held[start : start + draw.choice([1, 16, 512])]
                held += b"" if held else b"\0"
    return bytes(held)


def test_damaged_archives(tmp_path):
    """Where the archive has checksums, what passes has the pixels and labels of the undamaged one."""
    draw = draws("archives")
    files = list(images().items())
    whole = read(placed(tmp_path, ".zip", files), tmp_path)
    refused = 0
    for number in range(size(1200, 120)):
        suffix = CONTAINERS[number % 5]
        path = tmp_path / f"x{suffix}"
        path.write_bytes(damaged(packed(suffix, files), draw))
        answer = read(path, tmp_path)
        refused += isinstance(answer, str)
        if not isinstance(answer, str) and suffix != ".tar":
            assert answer == whole, f"{path} of {number}"
    print(f"{refused} of {number + 1} damaged archives were refused; the others read as the undamaged one")


def test_damaged_images(tmp_path):
    """One of eight images is damaged: in a format with checksums it is refused or read as it was."""
    draw = draws("images")
    files = {kind: images(kind) for kind in KINDS}
    refused = 0
    for number in range(size(1800, 180)):
        kind = KINDS[number % len(KINDS)]
        name = draw.choice(list(files[kind]))
        altered = files[kind] | {name: damaged(files[kind][name], draw)}
        answer = read(placed(tmp_path, ".tar", list(altered.items())), tmp_path)
        refused += isinstance(answer, str)
        if isinstance(answer, str):
            assert name in answer or "pixels" in answer, answer
    print(f"{refused} of {number + 1} data sets with a damaged image were refused by its name; the others read")


def png(width: int, height: int, *more: tuple[bytes, bytes], pixels: bytes = b"") -> bytes:
    """Return a PNG by its chunks: whatever its header says."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    middle = b"".join(chunk(*one) for one in more)
    return b"\x89PNG\r\n\x1a\n" + header + middle + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


class Planted:
    """Unpickled, it writes a file."""

    def __reduce__(self):
        return os.system, ("touch planted",)


GIANT_BMP = b"BM" + struct.pack("<IHHIIiiHHI", 0, 0, 0, 54, 40, 60_000, 60_000, 1, 24, 0) + bytes(24)
GIANT_GIF = b"GIF89a" + b"\xff" * 4 + b"\x80" + bytes(8) + b"," + bytes(4) + b"\xff" * 4 + b"\0\x02\x02\x44\x01\0;"
HOSTILE_IMAGES = {
    "a header of 100,000 x 100,000": png(100_000, 100_000),
    "a header of 2^31 x 1": png((1 << 31) - 1, 1),
    "a header of 8,000 x 8,000 and no pixels": png(8000, 8000),
    "a header of nothing": png(0, 0),
    "a text chunk of 256 MB": png(SIDE, SIDE, (b"zTXt", b"x\0\0" + zlib.compress(bytes(1 << 28)))),
    "a colour profile of 256 MB": png(SIDE, SIDE, (b"iCCP", b"x\0\0" + zlib.compress(bytes(1 << 28)))),
    "a BMP of 60,000 x 60,000": GIANT_BMP,
    "a PPM of 10^12 pixels": b"P6 1000000 1000000 255\n",
    "a PPM of 10^100 pixels": b"P6 " + b"9" * 100 + b" 1 255\n",
    "a GIF of 65,535 x 65,535": GIANT_GIF,
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(planted) (w) file\n",
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>",
    "XML that laughs": b"<!DOCTYPE x [<!ENTITY a 'lol'><!ENTITY b '&a;&a;&a;&a;'>]><x>&b;</x>",
    "a pickle with code": pickle.dumps(Planted()),
    "a shell script": b"#!/bin/sh\ntouch planted\n",
    "nothing": b"",
    "a zip": packed(".zip", [("x", b"y")]),
}


@pytest.mark.parametrize("what", HOSTILE_IMAGES)
def test_hostile_images(tmp_path, monkeypatch, what):
    monkeypatch.chdir(tmp_path)
    name = "set/train/ant/9.png"
    for suffix in size((".tar.gz", ".zip", ""), (".zip",)):
        answer = read(placed(tmp_path, suffix, [*images().items(), (name, HOSTILE_IMAGES[what])]), tmp_path)
        assert isinstance(answer, str)
        assert name in answer
        assert not (tmp_path / "planted").exists()


def test_more_pixels_than_the_header_says(tmp_path):
    """What a PNG holds beyond its pixels is not read: 256 MB of it are no image of 144 pixels more."""
    surplus = png(SIDE, SIDE, pixels=bytes(1 << 28))
    files = [*images().items(), ("set/train/ant/9.png", surplus)]
    (pixels, labels), _ = read(placed(tmp_path, ".zip", files), tmp_path)
    assert len(pixels) == 5 * 3 * SIDE * SIDE
    assert len(labels) == 5 * 8


def member(name: str, **attributes) -> bytes:
    """Return a tar whose last header, after a good image, is one as tarfile would not write it."""
    name_of_good, good = next(iter(images().items()))
    plain = packed(".tar", [(name_of_good, good)]).rstrip(b"\0")
    one = tarfile.TarInfo(name)
    for key, value in attributes.items():
        setattr(one, key, value)
    return plain + bytes(-len(plain) % 512) + one.tobuf(tarfile.GNU_FORMAT, errors="surrogateescape") + bytes(10240)


def zeros(suffix: str) -> bytes:
    """Return an archive whose one member is 3 GiB of zeros."""
    header = tarfile.TarInfo("set/train/ant/big.png")
    header.size = 3 << 30
    press = zstandard.ZstdCompressor().compressobj() if suffix == ".tar.zst" else zlib.compressobj(1, wbits=31)
    parts = [press.compress(header.tobuf(tarfile.GNU_FORMAT))]
    parts += [press.compress(bytes(1 << 24)) for _ in range(3 << 6)]
    return b"".join([*parts, press.flush()])


def stated_size(number: int) -> bytes:
    """Return a zip whose directory states `number` bytes for its first file."""
    content = bytearray(packed(".zip", list(images().items())))
    place = content.index(b"PK\x01\x02") + 24
    content[place : place + 4] = number.to_bytes(4, "little")
    return bytes(content)


def overlapping() -> bytes:
    """Return a zip of many names for the same bytes."""
    content = packed(".zip", [("set/train/ant/0.png", bytes(1 << 24))])
    place, end = content.index(b"PK\x01\x02"), content.index(b"PK\x05\x06")
    entry = content[place:end]
    entries = [entry.replace(b"/0.png", b"/" + f"{n:x}".encode() + b".png") for n in range(16)]
    directory = b"".join(entries)
    tail = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 16, 16, len(directory), place, 0)
    return content[:place] + directory + tail


SLOWEST = "a bomb of 3 GiB, tar.gz"  # to make
X = "set/train/ant/x.png"
PLAIN = list(images().items())
CAT = ("set/train/cat/0.png", PLAIN[0][1])
HOSTILE_ARCHIVES = {
    "a bomb of 3 GiB, tar.gz": (".tar.gz", lambda: zeros(".tar.gz"), "3221225472 bytes; at most"),
    "a bomb of 3 GiB, tar.zst": (".tar.zst", lambda: zeros(".tar.zst"), "3221225472 bytes; at most"),
    "a zip in which many names share bytes": (".zip", overlapping, "0.png"),
    "a zip that states 4 GB": (".zip", lambda: stated_size(0xFFFFFFF0), "4294967280 bytes; at most"),
    "a zip that states 0": (".zip", lambda: stated_size(0), "set/train/ant/0.png"),
    "a member of 8 GiB that is not there": (".tar", lambda: member(X, size=1 << 33), "8589934592 bytes; at most"),
    "a member of a negative size": (".tar", lambda: member(X, size=-512), "-512 bytes; at most"),
    "a path that climbs": (".tar", lambda: member("set/train/../../../x.png"), "climbs out"),
    "an absolute path": (".tar", lambda: member("/tmp/planted.png"), "an absolute path"),
    "a link out": (
        ".tar",
        lambda: member(X, type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        f"'{X}' in data.tar: a link",
    ),
    "a hard link": (".tar", lambda: member(X, type=tarfile.LNKTYPE, linkname="/etc/passwd"), "a link"),
    "a device": (".tar", lambda: member(X, type=tarfile.BLKTYPE), "device"),
    "a pipe": (".tar", lambda: member(X, type=tarfile.FIFOTYPE), "device"),
    "a sparse file": (".tar", lambda: member(X, type=tarfile.GNUTYPE_SPARSE), "data.tar"),
    "a long name of 8 GiB": (".tar", lambda: member("x", type=tarfile.GNUTYPE_LONGNAME, size=1 << 33), "data.tar"),
    "equal names, tar": (
        ".tar",
        lambda: packed(".tar", [*PLAIN, PLAIN[0]]),
        f"{PLAIN[0][0]} in data.tar: occurs twice",
    ),
    "equal names, zip": (
        ".zip",
        lambda: packed(".zip", [*PLAIN, PLAIN[0]]),
        f"{PLAIN[0][0]} in data.zip: occurs twice",
    ),
    "a class only in train": (".zip", lambda: packed(".zip", [*PLAIN, CAT]), "class cat has images in train/"),
    "a wrong label": (
        ".zip",
        lambda: packed(".zip", [(name.replace("test/dog", "test/cat"), content) for name, content in PLAIN]),
        "class cat has images in test/",
    ),
    "a class too few": (
        ".zip",
        lambda: packed(".zip", [(name, content) for name, content in PLAIN if "dog" not in name]),
        "datasets.mine.classes = 2, but data.zip has 1",
    ),
    "no images": (".tar.gz", lambda: packed(".tar.gz", []), "no images"),
    "a pickle with code": (".tar.gz", lambda: pickle.dumps(Planted()), "truncated or damaged"),
    "a gzip of nothing": (".tar.gz", lambda: gzip.compress(b""), "truncated or damaged"),
    "zstd with a window of 2 GiB": (".tar.zst", lambda: b"\x28\xb5\x2f\xfd\x00\xa8\1" + bytes(66), "damaged"),
}


@pytest.mark.parametrize("what", [what for what in HOSTILE_ARCHIVES if size(True, what != SLOWEST)])
def test_hostile_archives(tmp_path, monkeypatch, what):
    monkeypatch.chdir(tmp_path)
    suffix, make, cause = HOSTILE_ARCHIVES[what]
    path = tmp_path / f"data{suffix}"
    path.write_bytes(make())
    answer = read(path, tmp_path, seconds=60)
    assert isinstance(answer, str), "it was read"
    assert path.name in answer
    assert cause in answer
    assert not (tmp_path / "planted").exists()


@pytest.mark.parametrize("what", size(["a pickle with code", "a link out", "a bomb of 3 GiB, tar.zst"], ["a link out"]))
def test_the_command_says_one_line(tmp_path, what):
    suffix, make, cause = HOSTILE_ARCHIVES[what]
    path = tmp_path / f"data{suffix}"
    path.write_bytes(make())
    answer = subprocess.run(
        [
            sys.executable, "-m", "eqcollapse", "data", "--digest", "0123456789",
            "--spec", spec_of(path).model_dump_json(), "--path", str(path),
            "--outputs", "out/train.safetensors", "out/test.safetensors",
        ],
        cwd=tmp_path, env=environment_here() | {"PYTHONPATH": str(Path(__file__).parents[2] / "src")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    said = [line for line in answer.stderr.splitlines() if line and "images/s" not in line]
    assert answer.returncode == 1
    assert len(said) == 1, answer.stderr
    assert said[0].startswith("eqcollapse data: ")
    assert cause in said[0]
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [path.name]
