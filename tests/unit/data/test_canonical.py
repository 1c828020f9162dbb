"""Canonical sets against independent readers: small archives of the publishers' formats, and real MNIST."""

import gzip
import hashlib
import io
import struct
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import torchvision.datasets as tv
from pydantic import ValidationError
from sklearn.datasets import load_digits
from torchvision.datasets.mnist import read_image_file, read_label_file

from eqcollapse.data.config import DatasetSpec
from eqcollapse.data.job import prepare_dataset
from eqcollapse.data.registry import CANONICAL
from eqcollapse.data.store import read_dataset
from eqcollapse.runtime.errors import EqcollapseError


@pytest.fixture
def stage(tmp_path):
    """Run the stage: `stage(name, mirror, size)` -> the training and the test set."""

    def stage(name, mirror=None, size=None):
        spec = DatasetSpec(name=name, source=name, size=size)
        files = tmp_path / "out" / "train.safetensors", tmp_path / "out" / "test.safetensors"
        prepare_dataset(spec, *files, mirror=mirror and str(mirror), cache=tmp_path / "cache")
        return tuple(map(read_dataset, files))

    return stage


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Have the registry expect other contents: `small(name, {role: bytes})` -> a mirror that has them."""

    def small(name, contents):
        known = CANONICAL[name]
        files = {}
        for role, file in known.files.items():
            # No canonical address: a test must not reach for the network.
            content = contents[role]
            (tmp_path / "mirror").mkdir(exist_ok=True)
            (tmp_path / "mirror" / file.name).write_bytes(content)
            pinned = {"md5": hashlib.md5(content).hexdigest(), "sha256": hashlib.sha256(content).hexdigest()}
            if file.content_bytes:
                raw = gzip.decompress(content)
                pinned |= {"content_sha256": hashlib.sha256(raw).hexdigest(), "content_bytes": len(raw)}
            pinned = {key: value if getattr(file, key) else None for key, value in pinned.items()}
            files[role] = replace(file, urls=(), **pinned)
        monkeypatch.setitem(CANONICAL, name, replace(known, counts={"train": 20, "test": 5}, files=files))
        return tmp_path / "mirror"

    return small


def idx(array):
    return struct.pack(f">I{array.ndim}I", 0x0800 + array.ndim, *array.shape) + array.tobytes()


def idx_contents(generator, level=9):
    contents = {}
    for split, count in (("train", 20), ("test", 5)):
        images = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        contents[f"{split} images"] = idx(images)
        contents[f"{split} labels"] = idx(np.arange(count, dtype=np.uint8) % 10)
    return {role: gzip.compress(content, level, mtime=0) for role, content in contents.items()}


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_idx_files_read_as_torchvision_reads_them(tmp_path, small, stage, name):
    contents = idx_contents(np.random.default_rng(0))
    mirror = small(name, contents)
    for split, found in zip(("train", "test"), stage(name, mirror), strict=True):
        for part, reader, mine in (
            ("images", read_image_file, found.images[:, 0]),
            ("labels", read_label_file, found.labels),
        ):
            (tmp_path / part).write_bytes(gzip.decompress(contents[f"{split} {part}"]))
            assert np.array_equal(reader(str(tmp_path / part)).numpy(), mine)
        assert found.classes == CANONICAL[name].classes


def test_a_mirror_may_compress_mnist_anew_and_the_bytes_are_the_same(tmp_path, small, stage):
    contents = idx_contents(np.random.default_rng(0))
    mirror = small("mnist", contents)
    stage("mnist", mirror)
    before = (tmp_path / "out" / "train.safetensors").read_bytes()
    for file in CANONICAL["mnist"].files.values():
        path = mirror / file.name
        path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), 1, mtime=7))
    stage("mnist", mirror)
    assert (tmp_path / "out" / "train.safetensors").read_bytes() == before


def test_fashion_mnist_is_accepted_by_its_md5_alone(small, stage):
    mirror = small("fashion_mnist", idx_contents(np.random.default_rng(0)))
    path = mirror / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), 1))
    with pytest.raises(EqcollapseError, match="has the md5"):
        stage("fashion_mnist", mirror)


def test_the_data_sets_own_folder_of_a_mirror_comes_first(small, stage):
    contents = idx_contents(np.random.default_rng(0))
    mirror = small("mnist", contents)
    (mirror / "mnist").mkdir()
    for file in CANONICAL["mnist"].files.values():
        (mirror / file.name).rename(mirror / "mnist" / file.name)
        (mirror / file.name).write_bytes(b"that of Fashion-MNIST")
    assert len(stage("mnist", mirror)[0].labels) == 20


@pytest.mark.parametrize("damage", ["truncated", "altered", "magic number", "count", "labels"])
def test_damaged_idx_files_are_refused_by_name(tmp_path, small, stage, damage):
    contents = idx_contents(np.random.default_rng(0))
    if damage == "magic number":
        contents["train images"] = gzip.compress(b"\0\0\x08\x01" + gzip.decompress(contents["train images"])[4:])
    elif damage == "count":
        contents["train images"] = gzip.compress(gzip.decompress(contents["train images"])[:-1])
    elif damage == "labels":
        contents["train labels"] = gzip.compress(idx(np.full(20, 10, dtype=np.uint8)))
    mirror = small("mnist", contents)
    path = mirror / "train-images-idx3-ubyte.gz"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "altered":
        path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-1] + b"\0"))
    with pytest.raises(EqcollapseError, match=r"train-(images|labels)-idx[13]-ubyte"):
        stage("mnist", mirror)
    assert not (tmp_path / "out").exists()


def cifar(name, generator):
    """A CIFAR binary archive as the publisher's page describes it, and {split: [(image, label)]}."""
    coarse = name == "cifar100"
    folder = "cifar-100-binary" if coarse else "cifar-10-batches-bin"
    parts = (
        {"train.bin": 20, "test.bin": 5}
        if coarse
        else {f"data_batch_{i}.bin": 4 for i in range(1, 6)} | {"test_batch.bin": 5}
    )
    content, arrays = io.BytesIO(), {"train": [], "test": []}
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for file, count in {"batches.meta.txt": 0, **parts}.items():
            records = b""
            for _ in range(count):
                label, image = (
                    generator.integers(100 if coarse else 10),
                    generator.integers(0, 256, (3, 32, 32)),
                )
                records += bytes([label // 5] if coarse else []) + bytes([label]) + image.astype(np.uint8).tobytes()
                arrays["test" if "test" in file else "train"].append((image, label))
            member = tarfile.TarInfo(f"{folder}/{file}")
            member.size = len(records)
            archive.addfile(member, io.BytesIO(records))
    return content.getvalue(), arrays


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_binary_archives(small, stage, name):
    content, arrays = cifar(name, np.random.default_rng(0))
    for split, found in zip(("train", "test"), stage(name, small(name, {"archive": content})), strict=True):
        images, labels = zip(*arrays[split], strict=True)
        assert np.array_equal(found.images, np.stack(images))
        assert found.labels.tolist() == list(labels)
        assert len(found.classes) == int(name.removeprefix("cifar"))


@pytest.mark.parametrize("damage", ["missing file", "short file", "truncated"])
def test_damaged_cifar_archives_are_refused(tmp_path, small, stage, pack, damage):
    if damage == "truncated":
        content = cifar("cifar10", np.random.default_rng(0))[0][:-100]
    else:
        files = {f"cifar-10-batches-bin/data_batch_{i}.bin": bytes(4 * 3073) for i in range(1, 6)}
        files |= {"cifar-10-batches-bin/test_batch.bin": bytes(5 * 3073 - 1)} if damage == "short file" else {}
        content = pack(tmp_path / "x.tar.gz", files).read_bytes()
    with pytest.raises(EqcollapseError, match=r"cifar-10-binary\.tar\.gz"):
        stage("cifar10", small("cifar10", {"archive": content}))
    assert not (tmp_path / "out").exists()


def test_an_altered_archive_is_not_opened(small, stage, monkeypatch):
    mirror = small("cifar10", {"archive": cifar("cifar10", np.random.default_rng(0))[0]})
    path = mirror / "cifar-10-binary.tar.gz"
    path.write_bytes(path.read_bytes() + b"\0")
    monkeypatch.setattr("tarfile.open", lambda *_, **__: pytest.fail("opened"))
    with pytest.raises(EqcollapseError, match=r"cifar-10-binary\.tar\.gz of cifar10: not to be had.* has the md5"):
        stage("cifar10", mirror)


def test_digits_are_those_of_scikit_learn(stage):
    train, test = stage("digits")
    assert train.images.shape == (1497, 1, 8, 8)
    assert np.bincount(test.labels).tolist() == [30] * 10
    digits = load_digits()
    rows = {(*image.ravel(), label) for image, label in zip(digits.images, digits.target, strict=True)}
    mine = [
        (*np.round(image.ravel() / 255 * 16), label)
        for part in (train, test)
        for image, label in zip(part.images, part.labels, strict=True)
    ]
    assert len(mine) == 1797
    assert set(mine) == rows
    assert sorted(set(train.images.ravel())) == [round(v * 255 / 16) for v in range(17)]


def test_digits_can_be_resized(stage):
    assert stage("digits", size=16)[0].images.shape == (1497, 1, 16, 16)


def test_the_registry_agrees_with_torchvision():
    fashion = {(file.name, file.md5) for file in CANONICAL["fashion_mnist"].files.values()}
    assert fashion == set(tv.FashionMNIST.resources)
    assert {file.name for file in CANONICAL["mnist"].files.values()} == {name for name, _ in tv.MNIST.resources}
    assert CANONICAL["mnist"].files["train images"].urls[0].startswith(tv.MNIST.mirrors[0])
    assert list(CANONICAL["fashion_mnist"].classes) == tv.FashionMNIST.classes
    for name, count in (("cifar10", 10), ("cifar100", 100), ("digits", 10)):
        assert len(set(CANONICAL[name].classes)) == count
        assert list(CANONICAL[name].classes) == sorted(CANONICAL[name].classes)


def test_real_mnist(shared_data, stage):
    train, test = stage("mnist", shared_data / "mnist")
    for split, found in (("train", train), ("t10k", test)):
        raw = gzip.decompress((shared_data / "mnist" / f"{split}-images-idx3-ubyte.gz").read_bytes())
        assert found.images.tobytes() == raw[16:]
        raw = gzip.decompress((shared_data / "mnist" / f"{split}-labels-idx1-ubyte.gz").read_bytes())
        assert np.array_equal(found.labels, np.frombuffer(raw, dtype=np.uint8, offset=8))
    # What every MNIST tutorial quotes.
    assert train.images.mean() / 255 == pytest.approx(0.1307, abs=1e-4)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"source": "imagenet"}, "source"),
        ({"classes": 10}, "classes: is only for source imagefolder"),
        ({"size": 0}, "size"),
        ({"name": "../x"}, "name"),
        ({"extra": 1}, "is not a key"),
        ({"source": "imagefolder", "classes": 2}, r"sha256: is needed where .* `python -m eqcollapse hash PATH`"),
    ],
)
def test_a_wrong_spec_is_refused_by_key(change, named):
    with pytest.raises(ValidationError, match=named):
        DatasetSpec.model_validate({"name": "digits", "source": "digits"} | change)


@pytest.mark.parametrize(
    ("path", "named"),
    [
        (None, r"datasets\.mine\.path is not set"),
        ("x.rar", r"path = x\.rar: must be a folder or one of \.tar"),
    ],
)
def test_a_place_without_an_image_folder_is_refused(tmp_path, path, named):
    spec = DatasetSpec(name="mine", source="imagefolder", sha256="0" * 64, classes=2)
    with pytest.raises(EqcollapseError, match=named):
        prepare_dataset(spec, tmp_path / "a", tmp_path / "b", path=path, mirror=None, cache=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_mirror_that_is_none_is_named(tmp_path, stage):
    with pytest.raises(EqcollapseError, match=r"^mirror = .*nowhere: neither a folder nor"):
        stage("mnist", tmp_path / "nowhere")
