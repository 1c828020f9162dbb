"""Hostile and damaged archives whose hash holds: what is left is to refuse them by the member's name."""

import gzip
import io
import pickle
import tarfile
import zipfile
from contextlib import suppress

import numpy as np
import pytest
import zstandard

from eqcollapse.data.archives import Limits, members
from eqcollapse.runtime.errors import EqcollapseError

SUFFIXES = [".tar", ".tar.gz", ".tgz", ".tar.zst", ".zip"]


def tar_of(path, *entries, finish=True):
    """Write a tar of (TarInfo or name, content) without tarfile's own care for names."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for entry, content in entries:
            member = tarfile.TarInfo(entry) if isinstance(entry, str) else entry
            if content is not None:
                member.size = len(content)
            archive.addfile(member, io.BytesIO(content or b""))
    raw = plain.getvalue()
    path.write_bytes(gzip.compress(raw) if path.suffix in (".gz", ".tgz") else raw)
    return path


def special(name, kind, target=""):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_gives_names_and_contents(tmp_path, pack, suffix):
    files = {"a/b.png": b"1" * 3000, "./c//d": b"", "日本.png": b"x", ".hidden/e": b"no", "f/._g": b"no"}
    found = dict(members(pack(tmp_path / f"x{suffix}", files)))
    assert found == {"a/b.png": b"1" * 3000, "c/d": b"", "日本.png": b"x"}


def test_gnu_tar_and_long_names(tmp_path):
    name = "/".join(["ein-langer-ordner"] * 12) + "/bild.png"
    for style in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with tarfile.open(tmp_path / "x.tar", "w", format=style) as archive:
            member = tarfile.TarInfo(name)
            member.size = 5
            archive.addfile(member, io.BytesIO(b"hello"))
        assert dict(members(tmp_path / "x.tar")) == {name: b"hello"}


WICKED = {
    "climbs": (("a/../../evil.png", b"x"), "evil.png"),
    "absolute": (("/etc/evil.png", b"x"), "/etc/evil.png"),
    "symlink": ((special("a/link.png", tarfile.SYMTYPE, "/etc/passwd"), None), "a/link.png"),
    "hard link": ((special("a/hard.png", tarfile.LNKTYPE, "a/1.png"), None), "a/hard.png"),
    "device": ((special("a/null.png", tarfile.CHRTYPE), None), "a/null.png"),
    "pipe": ((special("a/pipe.png", tarfile.FIFOTYPE), None), "a/pipe.png"),
    "climbing folder": ((special("../up", tarfile.DIRTYPE), None), "../up"),
    "new line": (("a/x\ny.png", b"x"), "a/x"),
    "bytes": (("a/\udcff.png", b"x"), "a/"),
}


@pytest.mark.parametrize("what", WICKED)
@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_wicked_tar_members_are_refused_by_name(tmp_path, what, suffix):
    entry, name = WICKED[what]
    path = tar_of(tmp_path / f"x{suffix}", ("a/1.png", b"good"), entry)
    with pytest.raises(EqcollapseError, match="refused") as caught:
        list(members(path))
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "evil.png").exists()


@pytest.mark.parametrize("name", ["../evil.png", "/evil.png", "a/../../evil.png", "C:/evil.png", "a\\..\\evil.png"])
def test_wicked_zip_names_are_refused(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(name, b"x")
    with pytest.raises(EqcollapseError, match=r"evil\.png' in x\.zip"):
        list(members(tmp_path / "x.zip"))


class _Unflagged(zipfile.ZipInfo):
    """A member whose name is stored as the bytes `stored`, without the flag that says that they are UTF-8."""

    def _encodeFilenameFlags(self):  # noqa: N802 (zipfile's own name)
        return self.stored, 0


def _zip_of_bytes(path, *names):
    with zipfile.ZipFile(path, "w") as archive:
        for number, name in enumerate(names):
            member = _Unflagged(f"{number}.txt")
            member.stored = name
            archive.writestr(member, b"x")
    return path


@pytest.mark.parametrize("label", ["chien-bébé", "Ähre", "猫", "кот", "cat"])
def test_a_zip_gives_the_same_names_with_and_without_the_flag_for_utf8(tmp_path, label):
    name = f"train/{label}/1.png"
    with zipfile.ZipFile(tmp_path / "flagged.zip", "w") as archive:
        archive.writestr(name, b"x")
    plain = _zip_of_bytes(tmp_path / "plain.zip", name.encode())
    assert [found for found, _ in members(plain)] == [found for found, _ in members(tmp_path / "flagged.zip")] == [name]


@pytest.mark.parametrize(("label", "encoding"), [("é", "cp437"), ("é", "latin-1"), ("猫", "cp932"), ("кот", "cp866")])
def test_a_name_in_a_zip_that_is_not_utf8_is_refused_in_one_line(tmp_path, label, encoding):
    path = _zip_of_bytes(tmp_path / "x.zip", f"train/{label}/1.png".encode(encoding))
    with pytest.raises(EqcollapseError, match=r"in x\.zip: a name that is not UTF-8; pack") as caught:
        list(members(path))
    assert str(caught.value).isascii()


def test_a_name_in_a_zip_is_not_cut_at_a_zero(tmp_path):
    path = _zip_of_bytes(tmp_path / "x.zip", b"train/a/1.png\0.txt")
    with pytest.raises(EqcollapseError, match="control character"):
        list(members(path))


def test_a_zip_with_a_link_is_refused(tmp_path):
    member = zipfile.ZipInfo("a/link.png")
    member.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(member, "/etc/passwd")
    with pytest.raises(EqcollapseError, match=r"a/link\.png in x\.zip: a link"):
        list(members(tmp_path / "x.zip"))


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("again", ["a/1.png", "./a/1.png", "a//1.png"])
def test_duplicates_are_refused(tmp_path, again):
    path = tar_of(tmp_path / "x.tar", ("a/1.png", b"one"), (again, b"two"))
    with pytest.raises(EqcollapseError, match=r"a/1\.png in x\.tar: occurs twice"):
        list(members(path))
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a/1.png", b"one")
        archive.writestr(again, b"two")
    with pytest.raises(EqcollapseError, match=r"a/1\.png in x\.zip: occurs twice"):
        list(members(tmp_path / "x.zip"))


@pytest.mark.parametrize("suffix", [".tar.gz", ".tar.zst", ".zip"])
def test_bombs_are_refused_early(tmp_path, pack, suffix):
    limits = Limits(file_bytes=1 << 20, total_floor=1 << 20, total_ratio=2)
    one = pack(tmp_path / f"one{suffix}", {"a/big.png": bytes(2 << 20)})
    with pytest.raises(EqcollapseError, match=rf"a/big\.png in one{suffix}: 2097152 bytes"):
        list(members(one, limits))
    many = pack(tmp_path / f"many{suffix}", {f"a/{number}.png": bytes(1 << 19) for number in range(8)})
    with pytest.raises(EqcollapseError, match=rf"many{suffix}: decompresses to far more"):
        list(members(many, limits))
    few = Limits(files=3)
    with pytest.raises(EqcollapseError, match=r"a/3\.png in .*: more than 3 files"):
        list(members(pack(tmp_path / f"few{suffix}", {f"a/{number}.png": b"x" for number in range(5)}), few))


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_giant_header_is_not_read_into_memory(tmp_path, kind):
    header = tarfile.TarInfo("x")
    header.type, header.size = kind, 1 << 33
    bomb = zstandard.ZstdCompressor().compressobj()
    parts = [bomb.compress(header.tobuf(tarfile.GNU_FORMAT))]
    parts += [bomb.compress(bytes(1 << 20)) for _ in range(64)]
    (tmp_path / "x.tar.zst").write_bytes(b"".join([*parts, bomb.flush()]))
    with pytest.raises(EqcollapseError, match=r"x\.tar\.zst: a header of more than"):
        list(members(tmp_path / "x.tar.zst"))


def test_a_zip_that_lies_about_a_size_is_refused(tmp_path, pack):
    content = bytearray(pack(tmp_path / "x.zip", {"a/1.png": b"x" * 5000}).read_bytes())
    place = content.rindex(b"PK\x01\x02") + 24
    content[place : place + 4] = (100).to_bytes(4, "little")
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(EqcollapseError, match=r"a/1\.png in x\.zip"):
        list(members(tmp_path / "x.zip"))


def test_an_encrypted_zip_is_refused(tmp_path, pack):
    content = bytearray(pack(tmp_path / "x.zip", {"a/1.png": b"x" * 50}).read_bytes())
    for signature, offset in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        content[content.index(signature) + offset] |= 1
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(EqcollapseError, match=r"a/1\.png in x\.zip: is encrypted"):
        list(members(tmp_path / "x.zip"))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_truncation_is_noticed(tmp_path, pack, suffix):
    files = {f"a/{number}.png": np.random.default_rng(number).bytes(700) for number in range(6)}
    path = pack(tmp_path / f"x{suffix}", files)
    content = path.read_bytes()
    # A tar's record is padded with more zero blocks than its end mark needs: those may be missing.
    shortest = 6 * 1536 + 1024 if suffix == ".tar" else len(content)
    for length in [0, 1, 511, 512, 1535, 1536, 1537, 4608, *range(2, shortest, 97), shortest - 1]:
        path.write_bytes(content[: min(length, shortest - 1)])
        with pytest.raises(EqcollapseError, match=rf"x{suffix}"):
            list(members(path))


@pytest.mark.parametrize("suffix", [".tar.gz", ".tar.zst"])
def test_a_stream_cut_between_members_is_noticed(tmp_path, suffix):
    tar_of(tmp_path / "x.tar", ("a/1.png", b"x"), ("a/2.png", b"y"))
    half = (tmp_path / "x.tar").read_bytes()[:1024]
    path = tmp_path / f"x{suffix}"
    path.write_bytes(gzip.compress(half) if suffix == ".tar.gz" else zstandard.compress(half))
    with pytest.raises(EqcollapseError, match="truncated"):
        list(members(path))


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path):
    path = tar_of(tmp_path / "x.tar", ("a/1.png", b"x"), ("a/2.png", b"y"), ("a/3.png", b"z"))
    content = bytearray(path.read_bytes())
    content[1024 + 150] ^= 1
    path.write_bytes(content)
    with pytest.raises(EqcollapseError, match="damaged"):
        list(members(path))


@pytest.mark.parametrize("suffix", [".tar.gz", ".tar.zst", ".zip", ".tar"])
def test_flipped_bits_end_in_one_line_or_in_bytes(tmp_path, pack, suffix):
    files = {f"a/{number}.png": np.random.default_rng(number).bytes(300) for number in range(4)}
    path = pack(tmp_path / f"x{suffix}", files)
    content = path.read_bytes()
    generator = np.random.default_rng(5)
    for _ in range(150):
        damaged = bytearray(content)
        for place in generator.integers(0, len(damaged), generator.integers(1, 5)):
            damaged[place] ^= 1 << generator.integers(8)
        path.write_bytes(damaged)
        with suppress(EqcollapseError):
            list(members(path))


def test_another_kind_of_file_is_named(tmp_path):
    class Planted:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    for suffix in SUFFIXES:
        path = tmp_path / f"x{suffix}"
        path.write_bytes(pickle.dumps(Planted()))
        with pytest.raises(EqcollapseError, match=rf"x{suffix}: truncated or damaged"):
            list(members(path))
    with pytest.raises(EqcollapseError, match=r"x\.rar: not one of the archives"):
        list(members(tmp_path / "x.rar"))
