"""Small data sets, archives of them, and the real files of ../shared/data where they are."""

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import zstandard
from PIL import Image

from eqcollapse.data.checksums import content_sha256
from eqcollapse.data.config import DatasetSpec
from eqcollapse.data.job import prepare_dataset
from sites import absent

SHARED = Path(__file__).parents[4] / "shared" / "data"


@pytest.fixture
def shared_data():
    """The folder of real data; the test is skipped where it is not."""
    if not SHARED.is_dir():
        absent(f"needs {SHARED}")
    return SHARED


@pytest.fixture
def encode():
    """Encode an array by Pillow: `encode(array, "PNG")`."""

    def encode(pixels: np.ndarray, kind: str = "PNG") -> bytes:
        content = io.BytesIO()
        Image.fromarray(pixels).save(content, kind)
        return content.getvalue()

    return encode


@pytest.fixture
def layout(encode):
    """An image folder of 2 classes of 3 training and 2 test images: {name: PNG bytes}, {name: pixels}."""
    generator = np.random.default_rng(0)
    pixels = {
        f"set/{split}/{label}/{number}.png": generator.integers(0, 256, (6, 5, 3), dtype=np.uint8)
        for split, count in (("train", 3), ("test", 2))
        for label in ("dog", "ant")
        for number in range(count)
    }
    return {name: encode(image) for name, image in pixels.items()}, pixels


@pytest.fixture
def pack():
    """Write the archive that the suffix names: `pack(path, {name: bytes})`."""

    def pack(path: Path, files: dict[str, bytes]) -> Path:
        if path.suffix == ".zip":
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                for name, content in files.items():
                    archive.writestr(name, content)
            return path
        plain = io.BytesIO()
        with tarfile.open(fileobj=plain, mode="w:gz" if path.name.endswith("gz") else "w") as archive:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        content = plain.getvalue()
        path.write_bytes(zstandard.compress(content) if path.suffix == ".zst" else content)
        return path

    return pack


@pytest.fixture
def prepared(tmp_path):
    """Run the stage on an image folder, its hash filled in: `prepared(path, **changes)` -> the two files."""

    def prepared(path, **changes) -> tuple[Path, Path]:
        out = tmp_path / "out"
        mirror = changes.pop("mirror", None)
        spec = {"name": "mine", "source": "imagefolder", "classes": 2}
        spec["sha256"] = content_sha256(path) if Path(path).exists() else None
        train, test = out / "train.safetensors", out / "test.safetensors"
        known = DatasetSpec.model_validate(spec | changes)
        prepare_dataset(known, train, test, path=str(path), mirror=mirror, cache=tmp_path / "cache")
        return train, test

    return prepared


@pytest.fixture
def nothing_written(tmp_path):
    """After the test, no file has a final name in the stage's output folder."""
    yield
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
