import json

import numpy as np
import pytest
import safetensors.torch
import torch

from eqcollapse.data.store import Dataset, read_dataset, read_labels, write_dataset
from eqcollapse.runtime.errors import EqcollapseError


@pytest.fixture
def dataset():
    generator = np.random.default_rng(1)
    images = generator.integers(0, 256, (5, 3, 4, 6), dtype=np.uint8)
    labels = np.array([0, 1, 1, 0, 1])
    return Dataset(images, labels, ("zwei", "eins"), "mine", {"b.gz": "ff", "a.gz": "00"})


def test_safetensors_itself_reads_what_was_written(dataset, tmp_path):
    write_dataset(tmp_path / "d.safetensors", dataset)
    tensors = safetensors.torch.load_file(tmp_path / "d.safetensors")
    assert torch.equal(tensors["images"], torch.from_numpy(dataset.images))
    assert torch.equal(tensors["labels"], torch.from_numpy(dataset.labels))


def test_round_trip(dataset, tmp_path):
    write_dataset(tmp_path / "d.safetensors", dataset)
    again = read_dataset(tmp_path / "d.safetensors")
    assert np.array_equal(again.images, dataset.images)
    assert again.images.flags.writeable
    assert (again.classes, again.name, again.sources) == (dataset.classes, dataset.name, dataset.sources)
    assert np.array_equal(read_labels(tmp_path / "d.safetensors"), dataset.labels)


def test_same_content_same_bytes(dataset, tmp_path):
    reordered = Dataset(
        dataset.images, dataset.labels, dataset.classes, dataset.name, dict(reversed(dataset.sources.items()))
    )
    contents = set()
    for number in range(20):
        path = tmp_path / f"{number}.safetensors"
        write_dataset(path, reordered if number % 2 else dataset)
        contents.add(path.read_bytes())
    assert len(contents) == 1


def test_a_view_is_written_as_its_content(dataset, tmp_path):
    turned = Dataset(dataset.images[:, :, ::-1].transpose(0, 1, 3, 2), dataset.labels, dataset.classes, "mine")
    write_dataset(tmp_path / "d.safetensors", turned)
    assert np.array_equal(read_dataset(tmp_path / "d.safetensors").images, turned.images)


@pytest.mark.parametrize("wrong", ["float images", "labels too many", "label out of range"])
def test_malformed_is_refused(dataset, tmp_path, wrong):
    images, labels = dataset.images, dataset.labels
    if wrong == "float images":
        images = images.astype(np.float32)
    elif wrong == "labels too many":
        labels = np.append(labels, 0)
    else:
        labels = labels + 1
    with pytest.raises(EqcollapseError, match=r"mine: (images|labels)"):
        write_dataset(tmp_path / "d.safetensors", Dataset(images, labels, dataset.classes, "mine"))
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_none_is_named(tmp_path):
    path = tmp_path / "d.safetensors"
    for content in (b"", b"\x00" * 100, b"not safetensors at all"):
        path.write_bytes(content)
        with pytest.raises(EqcollapseError, match=r"d\.safetensors: not a data set"):
            read_dataset(path)
    safetensors.torch.save_file({"images": torch.zeros(1)}, path, metadata={"x": json.dumps({})})
    with pytest.raises(EqcollapseError, match=r"not a data set"):
        read_dataset(path)
    with pytest.raises(EqcollapseError, match=r"not a data set"):
        read_labels(tmp_path / "missing.safetensors")
