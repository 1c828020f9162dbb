"""The stage `data` on image folders and archives of them."""

import io
import itertools

import numpy as np
import pytest
from PIL import Image

from eqcollapse.data.archives import members
from eqcollapse.data.checksums import content_sha256
from eqcollapse.data.imagefolder import find_place
from eqcollapse.data.images import decode
from eqcollapse.data.store import read_dataset
from eqcollapse.runtime.errors import EqcollapseError

CLASSES = ("ant", "dog")


def written(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def expected(pixels, split):
    """(images, labels) that the layout stands for, by sorting names."""
    names = sorted(name for name in pixels if f"/{split}/" in name)
    labels = [CLASSES.index(name.split("/")[2]) for name in names]
    return np.stack([pixels[name].transpose(2, 0, 1) for name in names]), labels


@pytest.mark.parametrize("suffix", ["", ".tar", ".tar.gz", ".tgz", ".tar.zst", ".zip"])
def test_every_container_gives_the_pixels(tmp_path, layout, pack, prepared, suffix):
    files, pixels = layout
    path = pack(tmp_path / f"x{suffix}", files) if suffix else written(tmp_path / "x", files)
    for file, split in zip(prepared(path), ("train", "test"), strict=True):
        found = read_dataset(file)
        images, labels = expected(pixels, split)
        assert np.array_equal(found.images, images)
        assert found.labels.tolist() == labels
        assert (found.classes, found.name) == (CLASSES, "mine")
        assert found.sources == {"mine": content_sha256(path)}


def test_the_layout_may_stand_at_the_top_or_in_one_folder_with_a_readme(tmp_path, layout, prepared):
    files, pixels = layout
    written(tmp_path / "a", files | {"README.md": b"hello", "set/LICENCE": b"x", "set/train/.DS_Store": b"x"})
    for folder in (tmp_path / "a", tmp_path / "a" / "set"):
        assert np.array_equal(read_dataset(prepared(folder)[0]).images, expected(pixels, "train")[0])


def test_neither_the_order_nor_the_archives_name_matters(tmp_path, layout, pack, prepared):
    files, _ = layout
    path = pack(tmp_path / "x.zip", files)
    before = [file.read_bytes() for file in prepared(path)]
    assert [file.read_bytes() for file in prepared(path.rename(tmp_path / "elsewhere.zip"))] == before
    images = read_dataset(prepared(tmp_path / "elsewhere.zip")[0]).images
    turned = pack(tmp_path / "turned.zip", dict(reversed(files.items())))
    assert np.array_equal(read_dataset(prepared(turned)[0]).images, images)


def test_grey_everywhere_is_one_channel_and_a_single_colour_image_makes_three(tmp_path, layout, encode, prepared):
    files, pixels = layout
    grey = {name: encode(image[..., 0]) for name, image in pixels.items()}
    assert read_dataset(prepared(written(tmp_path / "grey", grey))[0]).images.shape == (6, 1, 6, 5)
    last = max(grey)
    mixed = grey | {last: files[last]}
    train, test = map(read_dataset, prepared(written(tmp_path / "mixed", mixed)))
    assert train.images.shape == (6, 3, 6, 5)
    assert test.images.shape == (4, 3, 6, 5)
    assert (train.images[0] == pixels[min(n for n in grey if "/train/" in n)][..., 0]).all()


def test_mixed_sizes_need_a_size(tmp_path, layout, encode, prepared):
    files, _ = layout
    files["set/train/dog/9.png"] = encode(np.zeros((9, 4, 3), dtype=np.uint8))
    folder = written(tmp_path / "x", files)
    with pytest.raises(EqcollapseError, match=r"set/train/dog/9\.png in x: 4 x 9 pixels, but .* 5 x 6: set `size`"):
        prepared(folder)
    assert read_dataset(prepared(folder, size=8)[0]).images.shape == (7, 3, 8, 8)


@pytest.mark.usefixtures("nothing_written")
def test_more_than_the_memory_holds_is_refused(tmp_path, layout, pack, prepared, monkeypatch):
    monkeypatch.setattr("eqcollapse.data.imagefolder._MEMORY_SHARE", 1e-9)
    with pytest.raises(EqcollapseError, match=r"\.png in x\.zip: the images decode to more than half"):
        prepared(pack(tmp_path / "x.zip", layout[0]))


REFUSED = {
    "text": ({"set/train/ant/9.jpg": b"this is text"}, r"set/train/ant/9\.jpg in x\.tar\.gz: not an image"),
    "pickle": (
        {"set/train/ant/9.png": b"cos\nsystem\n(S'touch evil'\ntR."},
        r"ant/9\.png in x\.tar\.gz: not an image",
    ),
    "too deep": ({"set/train/ant/more/9.png": b"x"}, "not in the layout"),
    "no class": ({"set/train/9.png": b"x"}, "not in the layout"),
    "another split": ({"set/val/ant/9.png": b"x"}, r"set/val/ant/9\.png in x\.tar\.gz: not in the layout"),
    "only in train": ({"set/train/cat/1.png": None}, "class cat has images in train/ but none in test/"),
    "only in test": ({"set/test/cat/1.png": None}, "class cat has images in test/ but none in train/"),
    "two roots": ({"other/train/ant/1.png": None}, r"other/train/ant/1\.png .*: its splits stand elsewhere"),
}


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.usefixtures("nothing_written")
def test_what_does_not_belong_is_refused_by_name(tmp_path, layout, pack, prepared, what):
    files, _ = layout
    more, message = REFUSED[what]
    good = next(iter(files.values()))
    path = pack(tmp_path / "x.tar.gz", files | {name: content or good for name, content in more.items()})
    with pytest.raises(EqcollapseError, match=message) as caught:
        prepared(path)
    assert str(caught.value).isprintable()


@pytest.mark.usefixtures("nothing_written")
def test_a_truncated_image_is_refused_by_name(tmp_path, layout, pack, prepared):
    files, _ = layout
    files["set/test/dog/1.png"] = files["set/test/dog/1.png"][:-30]
    with pytest.raises(EqcollapseError, match=r"set/test/dog/1\.png in x\.zip: a damaged image"):
        prepared(pack(tmp_path / "x.zip", files))


@pytest.mark.usefixtures("nothing_written")
def test_an_empty_split_or_archive_is_refused(tmp_path, layout, pack, prepared):
    files, _ = layout
    training = {name: content for name, content in files.items() if "/train/" in name}
    with pytest.raises(EqcollapseError, match="no images in test/<class>/"):
        prepared(pack(tmp_path / "x.zip", training))
    with pytest.raises(EqcollapseError, match="no images in train/<class>/"):
        prepared(pack(tmp_path / "y.tar", {}))


@pytest.mark.usefixtures("nothing_written")
def test_the_hash_is_checked_before_anything_is_opened(tmp_path, layout, pack, prepared, monkeypatch):
    path = pack(tmp_path / "x.zip", layout[0])
    found = content_sha256(path)
    monkeypatch.setattr("zipfile.ZipFile", lambda *_: pytest.fail("opened"))
    with pytest.raises(EqcollapseError, match=f"has the sha256 {found}, not {'0' * 64}: it was altered"):
        prepared(path, sha256="0" * 64)


@pytest.mark.usefixtures("nothing_written")
def test_the_number_of_classes_is_checked(tmp_path, layout, pack, prepared):
    with pytest.raises(EqcollapseError, match=r"datasets\.mine\.classes = 3, but x\.zip has 2 classes"):
        prepared(pack(tmp_path / "x.zip", layout[0]), classes=3)


def test_an_archive_is_looked_for_in_the_mirror(tmp_path, layout, pack, prepared):
    (tmp_path / "mirror").mkdir()
    path = pack(tmp_path / "mirror" / "x.zip", layout[0])
    digest = content_sha256(path)
    for place in ("x.zip", "http://127.0.0.1:9/some/x.zip?token=1", "no/such/folder/x.zip"):
        assert read_dataset(prepared(place, sha256=digest, mirror=str(tmp_path / "mirror"))[0]).name == "mine"
    with pytest.raises(EqcollapseError, match=r"datasets\.mine\.path: there is no x\.zip; .*`mirror` in params\.yaml"):
        prepared("x.zip", sha256="0" * 64)


@pytest.mark.parametrize("place", ["http://[::1/x.zip", "http://127.0.0.1:9/%00.zip", "http://127.0.0.1:9/%1b[2J.zip"])
def test_an_address_that_is_none_is_refused_in_one_printable_line(prepared, nothing_written, place):
    with pytest.raises(
        EqcollapseError, match=r"datasets\.mine\.path = what is no address|a control character"
    ) as caught:
        prepared(place, sha256="0" * 64)
    assert str(caught.value).isprintable()


def test_places():
    assert find_place("train/ant/1.png", "x").root == ""
    assert find_place("train/train/ant/1.png", "x").root == "train"
    assert find_place("train/test/1.png", "x").label == "test"
    assert find_place("README", "x") is None
    assert find_place("set/README", "x") is None


def test_cifar10_jpeg_matches_pillow(shared_data):
    for name, content in itertools.islice(members(shared_data / "cifar10-jpeg.tar.gz"), 50):
        assert np.array_equal(decode(content, name, None).pixels, np.asarray(Image.open(io.BytesIO(content))))


@pytest.mark.slow
def test_the_whole_of_cifar10_jpeg(shared_data, prepared):
    train, test = map(read_dataset, prepared(shared_data / "cifar10-jpeg.tar.gz", classes=10))
    assert train.images.shape == (50_000, 3, 32, 32)
    assert np.bincount(train.labels).tolist() == [5000] * 10
    assert np.bincount(test.labels).tolist() == [1000] * 10
    assert train.classes[0] == "airplane"


def test_numbers_in_class_names_count_as_numbers(tmp_path, layout, prepared):
    """Folders 1, 2, 10 are the labels 0, 1, 2, and each image has the label of its own folder."""
    files, _ = layout
    some = [name for name in files if "/ant/" in name]
    content = {}
    for number in ("10", "2", "1"):
        for name in some:
            content[name.replace("/ant/", f"/{number}/")] = files[name]
    shade = {"1": 1, "2": 2, "10": 10}
    for name in content:
        image = io.BytesIO()
        Image.fromarray(np.full((6, 5), shade[name.split("/")[2]], dtype=np.uint8)).save(image, "PNG")
        content[name] = image.getvalue()
    for file in prepared(written(tmp_path / "x", content), classes=3):
        found = read_dataset(file)
        assert found.classes == ("1", "2", "10")
        assert found.images[:, 0, 0, 0].tolist() == [shade[found.classes[label]] for label in found.labels]
