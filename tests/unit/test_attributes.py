"""A clone has the bytes that were committed, also where git is told to make line ends Windows' own."""

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def git(*words: str | Path) -> None:
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    subprocess.run(["git", *identity, *map(str, words)], check=True, capture_output=True)


def test_a_clone_keeps_line_ends_and_pictures(tmp_path):
    content = {"a.py": b"one\ntwo\n", "params.yaml": b"a: 1\n", "picture.png": b"text\r\nalone\n"}
    origin, clone = tmp_path / "origin", tmp_path / "clone"
    origin.mkdir()
    shutil.copy(ROOT / ".gitattributes", origin)
    for name, written in content.items():
        (origin / name).write_bytes(written)
    git("init", "-q", origin)
    git("-C", origin, "add", ".")
    git("-C", origin, "commit", "-q", "-m", "first")
    git("clone", "-q", "-c", "core.autocrlf=true", origin, clone)
    assert {name: (clone / name).read_bytes() for name in content} == content
