import gzip
import hashlib
import os
import subprocess

import pytest

from eqcollapse.data.checksums import check_name, content_sha256, gunzip, tree_sha256
from eqcollapse.runtime.errors import EqcollapseError

DOCUMENTED = "find . -type f -not -path '*/.*' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum"


@pytest.fixture
def folder(tmp_path):
    for name in ("b/z.png", "a/2 x.png", "a/10.png", "a.b/é.png", "a/.hidden", ".git/x", "README"):
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "tree"


def test_a_folder_has_the_hash_of_the_documented_command(folder):
    printed = subprocess.run(DOCUMENTED, shell=True, cwd=folder, capture_output=True, text=True, check=True)
    assert tree_sha256(folder) == printed.stdout.split()[0] == content_sha256(folder)


def test_the_hash_of_a_folder_sees_names_and_contents_but_nothing_hidden(folder):
    before = tree_sha256(folder)
    (folder / "a/.DS_Store").write_bytes(b"x")
    assert tree_sha256(folder) == before
    (folder / "README").rename(folder / "LIESMICH")
    renamed = tree_sha256(folder)
    (folder / "b/z.png").write_bytes(b"changed")
    assert len({before, renamed, tree_sha256(folder)}) == 3


def test_a_deep_folder_has_its_hash_too(tmp_path):
    """1500 deep, and then some: deeper than Python calls itself, and than files may be open at once."""
    folder = tmp_path / "deep"
    folder.mkdir()
    here = os.open(folder, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    with open(os.open("f", os.O_WRONLY | os.O_CREAT, dir_fd=here), "wb") as file:
        file.write(b"abc")
    os.close(here)
    line = f"{hashlib.sha256(b'abc').hexdigest()}  ./{'d/' * 1500}f\n"
    try:
        assert tree_sha256(folder) == hashlib.sha256(line.encode()).hexdigest()
    finally:
        subprocess.run(["rm", "-r", folder], check=True)  # which Python, and so pytest, cannot


def test_a_file_has_its_sha256(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"abc" * 10**6)
    assert content_sha256(path) == hashlib.sha256(b"abc" * 10**6).hexdigest()
    with pytest.raises(EqcollapseError, match="there is no such file or folder"):
        content_sha256(tmp_path / "missing")


@pytest.mark.parametrize("kind", ["link", "link to a folder", "pipe"])
def test_links_and_devices_in_a_folder_are_refused_by_name(folder, kind):
    odd = folder / "a" / "odd.png"
    if kind == "pipe":
        os.mkfifo(odd)
    else:
        odd.symlink_to(folder / ("b" if "folder" in kind else "README"))
    with pytest.raises(EqcollapseError, match=r"a/odd\.png in .* is (a link|neither)"):
        tree_sha256(folder)


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", "C:/x", "a\\b", "a\nb", "a\x00b", "a\udcffb"])
def test_wicked_names_are_refused_in_one_printable_line(name):
    with pytest.raises(EqcollapseError) as caught:
        check_name(name, "archive.tar")
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["a..b/c", "..a/b", "ein Bild.png", "日本/猫.png", "a\u00a0b/c"])
def test_other_names_are_allowed(name):
    check_name(name, "archive.tar")


def test_gunzip_is_bounded_and_verifies(tmp_path):
    path = tmp_path / "f.gz"
    path.write_bytes(gzip.compress(b"x" * 1000))
    assert gunzip(path, 1000) == b"x" * 1000
    with pytest.raises(EqcollapseError, match="more than the 999 bytes"):
        gunzip(path, 999)
    for damaged in (path.read_bytes()[:-9], b"no gzip", path.read_bytes()[:-8] + b"\0" * 8):
        path.write_bytes(damaged)
        with pytest.raises(EqcollapseError, match="not a whole gzip file"):
            gunzip(path, 1000)
