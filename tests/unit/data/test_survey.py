"""A survey of an image folder counts what its files show, and refuses what is no such folder in one line."""

import numpy as np
import pytest
from PIL import Image

from eqcollapse.data.checksums import content_sha256
from eqcollapse.data.survey import survey
from eqcollapse.runtime.errors import EqcollapseError


def picture(width: int, height: int, channels: int) -> Image.Image:
    return Image.fromarray(np.full((height, width, channels), 7, np.uint8).squeeze())


@pytest.fixture
def images(tmp_path):
    """A folder of the classes 2 and 10, in two sizes: grey in class 2, colour in class 10."""
    counts = {("train", "2"): 3, ("train", "10"): 5, ("test", "2"): 1, ("test", "10"): 2}
    for (split, name), count in counts.items():
        (tmp_path / split / name).mkdir(parents=True)
        for number in range(count):
            image = picture(9, 6, 1) if name == "2" else picture(12, 20, 3)
            image.save(tmp_path / split / name / f"{number}.png")
    return tmp_path


def test_classes_counts_sizes_and_channels_are_those_of_the_files(images):
    found = survey(images)
    assert found.classes == ("2", "10")
    assert (found.train, found.test) == ((3, 5), (1, 2))
    assert (found.width, found.height) == ((9, 12), (6, 20))
    assert found.channels == 3
    assert found.sha256 == content_sha256(images)


def test_a_damaged_image_is_named(images):
    (images / "test/2/0.png").write_bytes(b"not an image")
    with pytest.raises(EqcollapseError, match=r"test/2/0\.png"):
        survey(images)


@pytest.mark.parametrize(("name", "said"), [("nowhere", "there is no"), ("notes.txt", "must be a folder or one of")])
def test_what_is_no_folder_or_archive_is_refused(tmp_path, name, said):
    if name != "nowhere":
        (tmp_path / name).write_text("text")
    with pytest.raises(EqcollapseError, match=said):
        survey(tmp_path / name)
