"""Which image jobs run in: what is stated beside it, and one line where that cannot be."""

import os

import pytest

from eqcollapse.pipeline import image
from eqcollapse.runtime.errors import EqcollapseError

SHA256 = "0123456789abcdef" * 4


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A project's folder with an image, and its sha256 beside it."""
    monkeypatch.chdir(tmp_path)
    for runtime in ("APPTAINERENV", "SINGULARITYENV"):
        monkeypatch.setenv(f"{runtime}_{image.VARIABLE}", "before")
    image.IMAGE.parent.mkdir()
    image.IMAGE.write_text("image")
    image.STATED.write_text(f"{SHA256}  eqcollapse.sif\n")
    return tmp_path


def test_jobs_are_told_what_is_stated(folder):
    image.announce()
    assert os.environ["APPTAINERENV_EQCOLLAPSE_IMAGE"] == SHA256
    assert os.environ["SINGULARITYENV_EQCOLLAPSE_IMAGE"] == SHA256


def test_no_image_says_make_image(folder):
    image.IMAGE.unlink()
    with pytest.raises(EqcollapseError, match=r"eqcollapse\.sif: there is no such image: build it with `make image`"):
        image.announce()


@pytest.mark.parametrize("stated", ["", "0123", "not a digest"])
def test_what_is_no_sha256_is_refused(folder, stated):
    image.STATED.write_text(stated)
    with pytest.raises(EqcollapseError, match="is not of the image that is there now: run `make image`"):
        image.announce()


def test_an_image_newer_than_what_is_stated_is_refused(folder):
    os.utime(image.STATED, (1, 1))
    with pytest.raises(EqcollapseError, match="run `make image`"):
        image.announce()


def test_no_sha256_is_refused(folder):
    image.STATED.unlink()
    with pytest.raises(EqcollapseError, match="which image it is, is unknown"):
        image.announce()
