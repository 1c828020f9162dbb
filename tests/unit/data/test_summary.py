"""What the data do to the study is counted from the files themselves, and said where it is not what was asked for."""

import csv
import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eqcollapse.data import extent, summary
from eqcollapse.data.config import SplitSpec, SummarySpec
from eqcollapse.data.splits import write_split
from eqcollapse.data.store import Dataset, read_dataset, write_dataset
from eqcollapse.runtime.errors import EqcollapseError
from split_specs import imbalanced, split_spec

GENERATOR = np.random.default_rng(0)


def folder(place: Path, counts: dict[str, tuple[int, int]], picture=None) -> Path:
    """Write an image folder of so many (training, test) images by class; `picture()` makes one."""
    picture = picture or (lambda: Image.fromarray(GENERATOR.integers(0, 256, (6, 6), dtype=np.uint8)))
    for name, numbers in counts.items():
        for part, number in zip(("train", "test"), numbers, strict=True):
            (place / part / name).mkdir(parents=True)
            for index in range(number):
                picture().save(place / part / name / f"{index}.png")
    return place


@pytest.fixture
def summarised(tmp_path, prepared, capsys):
    """Return the printed words and the rows of the summary of an image folder under some splits."""

    def summarised(place: Path, *splits: SplitSpec, size: int | None = None) -> tuple[str, list[dict]]:
        classes = len(list((place / "train").iterdir()))
        files = prepared(place, classes=classes, size=size)
        spec = SummarySpec(dataset="mine", size=size, splits=list(splits))
        outputs = [str(tmp_path / "summary.csv"), str(tmp_path / "summary.md")]
        summary.run(spec, [str(file) for file in files], outputs)
        said = capsys.readouterr().out
        assert said.strip() == Path(outputs[1]).read_text().strip()
        return said, list(csv.DictReader(io.StringIO(Path(outputs[0]).read_text())))

    return summarised


def warned(said: str) -> list[str]:
    return [line.removeprefix("Warning: ") for line in said.splitlines() if line.startswith("Warning: ")]


def test_every_class_is_counted_by_name_and_by_split(tmp_path, summarised):
    place = folder(tmp_path / "x", {"ant": (20, 3), "bee": (20, 2), "cat": (25, 4)})
    splits = [split_spec("balanced", validation=0.25), imbalanced(1, 10, validation=0.25)]
    said, rows = summarised(place, *splits)
    files = Counter(path.parts[-3:-1] for path in place.rglob("*.png"))
    for part in ("train", "test"):
        found = {row["class"]: int(row["samples"]) for row in rows if row["set"] == part}
        assert found == {name: files[part, name] for name in ("ant", "bee", "cat")}
    for spec in splits:
        write_split(spec, tmp_path / "out" / "train.safetensors", tmp_path / "split.csv")
        lines = (tmp_path / "split.csv").read_text().splitlines()
        written = Counter((int(row["label"]), row["part"]) for row in csv.DictReader(lines))
        for row in (row for row in rows if row["set"] == spec.split):
            counted = (written[int(row["label"]), "train"], written[int(row["label"]), "validation"])
            assert (int(row["samples"]), int(row["validation"])) == counted
    assert "| ka1-r10 | 20 | 2 | 10 | 19 | 5 | ant |" in said
    assert "| 2 | cat | 25 | 4 |" in said
    assert "3 classes, 65 images to train on, 9 to test. They are 6 x 6 pixels with 1 channel" in said
    assert warned(said) == []


def deep(highest: int):
    """Return a maker of 16-bit images with values up to `highest`."""

    def picture() -> Image.Image:
        values = GENERATOR.integers(0, highest + 1, (6, 6)).astype(np.uint16)
        values[0, 0] = highest
        return Image.fromarray(values)

    return picture


@pytest.mark.parametrize(
    ("counts", "splits", "picture", "size", "words"),
    [
        ({"a": (9, 2), "b": (5, 2)}, [split_spec("balanced", per_class=8)], None, None,
         ["datasets.mine.per_class is 8", "of the smallest class (b) there are 5", "n_A is 5"]),
        ({"a": (90, 2), "b": (80, 2), "c": (5, 2)}, [split_spec("balanced")], None, None,
         ["of the smallest class (c) there are 5", "n_A is 5"]),
        ({"a": (4, 2), "b": (4, 2)}, [imbalanced(1, 10), imbalanced(1, 50)], None, None,
         ["ka1-r10 and ka1-r50 keep the same number", "trained twice"]),
        ({"a": (4, 2), "b": (4, 2)}, [split_spec("balanced"), imbalanced(1, 1.1)], None, None,
         ["balanced and ka1-r1.1 keep the same number"]),
        ({"a": (30, 2), "b": (30, 2)}, [imbalanced(1, 50)], None, None, ["ka1-r50: n_A / n_B is 30"]),
        ({"a": (4, 1), "b": (4, 2)}, [split_spec("balanced")], None, None, ["one image alone tests", "a", "0 or 1"]),
        ({"a": (4, 2), "b": (4, 2)}, [split_spec("balanced")], deep(4095), None,
         ["up to 4095 of 65535", "12 bits", "17 levels", "by 16"]),
        ({"a": (4, 2), "b": (4, 2)}, [split_spec("balanced")], deep(1023), None, ["10 bits", "5 levels", "by 64"]),
        ({"a": (4, 2), "b": (4, 2)}, [split_spec("balanced")],
         lambda: Image.fromarray(GENERATOR.integers(0, 9, (6, 6), dtype=np.uint8)), None, ["9 of 256 levels"]),
        ({"a": (4, 2), "b": (4, 2)}, [split_spec("balanced")],
         lambda: Image.fromarray(GENERATOR.integers(0, 256, (6, 12), dtype=np.uint8)), 8,
         ["width / height is 2,", "squeezed to 8 x 8"]),
        ({"a": (4, 2), "b": (4, 2)}, [split_spec("balanced")],
         lambda: Image.fromarray(GENERATOR.integers(0, 256, (6, 6, 4), dtype=np.uint8)), None,
         ["RGBA", "transparency", "dropped"]),
        ({"a": (4, 2), "b": (4, 2)}, [split_spec("balanced")],
         lambda: Image.fromarray(np.arange(144, dtype=np.uint8).reshape(12, 12)), None,
         ["4 of 4 test images are in the training set"]),
    ],
)  # fmt: skip
def test_what_the_data_make_different_is_warned_of(tmp_path, summarised, counts, splits, picture, size, words):
    said, _ = summarised(folder(tmp_path / "x", counts, picture), *splits, size=size)
    assert any(all(word in line for word in words) for line in warned(said)), said


def test_grey_files_among_coloured_ones_are_warned_of(tmp_path, summarised):
    shapes = iter([(6, 6), (6, 6, 3)] * 9)
    picture = lambda: Image.fromarray(GENERATOR.integers(0, 256, next(shapes), dtype=np.uint8))  # noqa: E731
    said, _ = summarised(folder(tmp_path / "x", {"a": (4, 2), "b": (4, 2)}, picture), split_spec("balanced"))
    assert any("grey" in line and "three channels" in line for line in warned(said))
    assert "modes L (6), RGB (6)" in said


def test_the_levels_of_12_bit_images_are_those_that_are_there(tmp_path, prepared):
    """By the pixels themselves, not by arithmetic."""
    values = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    files = prepared(folder(tmp_path / "x", {"a": (1, 1), "b": (1, 1)}, lambda: Image.fromarray(values)))
    assert len(np.unique(read_dataset(files[0]).images)) == summary._levels(4095) == 17


def test_a_class_of_one_image_stops_the_split(tmp_path):
    labels = np.array([0, 0, 0, 1, 2, 2])
    images = np.zeros((6, 1, 4, 4), dtype=np.uint8)
    write_dataset(tmp_path / "train.safetensors", Dataset(images, labels, ("a", "b", "c"), "mine"))
    with pytest.raises(EqcollapseError, match=r"^mine: class b .* one training image.*at least 2"):
        write_split(split_spec("balanced"), tmp_path / "train.safetensors", tmp_path / "split.csv")


@pytest.mark.parametrize("archive", [False, True])
@pytest.mark.parametrize("change", ["added", "removed", "grown", "none", "hidden"])
def test_a_folder_that_changed_since_is_seen(tmp_path, prepared, pack, layout, archive, change):
    files, _ = layout
    place = tmp_path / ("x.zip" if archive else "x")

    def write(content: dict[str, bytes]) -> None:
        if archive:
            pack(place, content)
        else:
            for name, data in content.items():
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                (place / name).write_bytes(data)

    write(files)
    train, _ = prepared(place)
    assert extent.change(place, train) is None
    name = next(iter(files))
    match change:
        case "added":
            write(files | {name.replace(".png", "-more.png"): files[name]})
        case "removed" if archive:
            write({other: data for other, data in files.items() if other != name})
        case "removed":
            (place / name).unlink()
        case "grown":
            write(files | {name: files[name] + b"\0"})
        case "hidden" if not archive:
            (place / ".DS_Store").write_bytes(b"x")
    found = extent.change(place, train)
    assert (found is None) == (change in ("none", "hidden"))
    assert found is None or "when its sha256 was taken" in found


def test_what_is_made_from_no_folder_has_not_changed(tmp_path):
    images = np.zeros((2, 1, 4, 4), dtype=np.uint8)
    write_dataset(tmp_path / "x.safetensors", Dataset(images, np.array([0, 1]), ("a", "b"), "mine"))
    assert extent.change(tmp_path, tmp_path / "x.safetensors") is None
    assert extent.change(tmp_path, tmp_path / "gone.safetensors") is None
