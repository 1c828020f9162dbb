"""containers/digest: every change of an image is another sha256, and a copy is none; `make image CHECK=1` sees both."""

import os
import shutil
import subprocess
from hashlib import sha256
from pathlib import Path

import pytest

import sites
from projects import ROOT

CHANGES = {
    "a byte": lambda image: (image / "opt/program").write_bytes(b"#!/bin/sh!"),
    "a mode": lambda image: (image / "opt/program").chmod(0o777),
    "a file more": lambda image: (image / "opt/more").touch(),
    "a file less": lambda image: (image / "opt/other").unlink(),
    "a folder more": lambda image: (image / "etc").mkdir(),
    "another name": lambda image: (image / "opt/other").rename(image / "opt/othes"),
    "a content moved": lambda image: (image / "opt/program").replace(image / "opt/other"),
    "another target": lambda image: _link(image / "opt/link", "other"),
    "a link for a file": lambda image: _link(image / "opt/other", "program"),
    "a mode of a folder": lambda image: (image / "opt").chmod(0o700),
    "a pipe for a file": lambda image: _pipe(image / "opt/other"),
}


def _link(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def digest(path: Path) -> str:
    """Return what containers/digest says of `path`."""
    return subprocess.run([ROOT / "containers/digest", path], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def image(tmp_path) -> Path:
    """A folder with what a root file system has."""
    folder = tmp_path / "containers/eqcollapse.sif"
    (folder / "opt/empty").mkdir(parents=True)
    (folder / "opt/program").write_bytes(b"#!/bin/sh\n")
    (folder / "opt/program").chmod(0o755)
    (folder / "opt/other").write_bytes(b"program")
    (folder / "opt/link").symlink_to("program")
    (folder / "opt/nowhere").symlink_to("/no/such/file")
    os.mkfifo(folder / "opt/pipe")
    (folder / os.fsdecode(b"opt/not\xffutf-8\n")).touch()
    return folder


def test_of_a_file_it_is_its_sha256(tmp_path):
    path = tmp_path / "eqcollapse.sif"
    path.write_bytes(bytes(range(256)) * 10_000)
    assert digest(path) == sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("what", CHANGES)
def test_of_a_folder_every_change_is_seen(image, what):
    before = digest(image)
    assert len(before) == 64
    CHANGES[what](image)
    assert digest(image) != before


def test_of_a_folder_copies_have_the_same_whoever_made_them_and_when(image, tmp_path):
    copied = tmp_path / "copy"
    shutil.copytree(image, copied, symlinks=True, ignore=shutil.ignore_patterns("pipe"))
    os.mkfifo(copied / "opt/pipe")
    os.utime(copied / "opt/program", (1, 1))
    if os.geteuid() == 0:
        os.chown(copied / "opt/program", 1, 1)
        (copied / "opt/program").chmod(0o755)
    assert digest(copied) == digest(image)


def test_the_check_of_make_image_passes_what_is_stated_and_nothing_else(image, tmp_path):
    sites.give_build(tmp_path)
    stated = image.with_name("eqcollapse.sif.sha256")
    stated.write_text(f"{digest(image)}  eqcollapse.sif\n")
    said = sites.make_image(tmp_path, CHECK="1")
    assert said.returncode == 0, said.stderr
    assert f"containers/eqcollapse.sif: sha256 {digest(image)}, as stated" in said.stdout
    (image / "opt/program").write_bytes(b"another")
    said = sites.make_image(tmp_path, CHECK="1")
    assert said.returncode != 0
    assert "it was altered; remove it, and `make image`" in said.stderr
    stated.unlink()
    said = sites.make_image(tmp_path, CHECK="1")
    assert said.returncode != 0
    assert "eqcollapse.sif.sha256 cannot be read" in said.stderr
    shutil.rmtree(image)
    assert "there is no such image" in sites.make_image(tmp_path, CHECK="1").stderr
