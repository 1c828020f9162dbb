"""Whether the code behind the records is that of a commit, asked of git itself."""

import ast
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from eqcollapse.study.fingerprint import PACKAGE, ROOT

SOURCE = f"src/{PACKAGE}"


class Sources:
    """The package's source at commits of this repository, each unpacked once to a temporary folder."""

    def __init__(self, scratch: Path):
        self._scratch = scratch
        self._roots: dict[str, Path | None] = {}

    def root(self, commit: str) -> Path | None:
        """Return the package's folder as `commit` has it; None if this repository has no such commit."""
        if commit not in self._roots:
            self._roots[commit] = self._unpacked(commit)
        return self._roots[commit]

    def digest(self, commit: str, digest: Callable[[Path], str]) -> str | None:
        """Return what `digest` gives for the package's folder at `commit`; None if that is not to be had."""
        root = self.root(commit)
        if root is None:
            return None
        try:
            return digest(root)
        except (FileNotFoundError, SyntaxError):
            return None

    def changed(self, commit: str, files: Iterable[Path]) -> list[str]:
        """Return those of today's source `files` that are not, in their syntax, as `commit` has them."""
        root = self.root(commit)
        if root is None:
            return []
        paths = [path.relative_to(ROOT) for path in files]
        return [f"{SOURCE}/{path}" for path in paths if _syntax(root / path) != _syntax(ROOT / path)]

    def _unpacked(self, commit: str) -> Path | None:
        folder = self._scratch / commit
        packed = _git("archive", "--format=tar", commit, SOURCE)
        if packed is None:
            return None
        folder.mkdir()
        subprocess.run(["tar", "-x", "-C", folder], input=packed, check=True)
        return folder / SOURCE


@contextmanager
def sources() -> Iterator[Sources]:
    """Yield the sources of this repository's commits; the copies are removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="eqcollapse-audit-") as scratch:
        yield Sources(Path(scratch))


def head() -> str | None:
    """Return the commit of HEAD; None where there is no repository, no commit or no git."""
    answer = _git("rev-parse", "--verify", "--quiet", "HEAD")
    return answer.decode().strip() if answer else None


def log(most: int = 200) -> list[str]:
    """Return the commits behind HEAD that touch the package's source, the newest first, at most `most`."""
    answer = _git("log", f"--max-count={most}", "--format=%H", "--", SOURCE)
    return answer.decode().split() if answer else []


def at_head(path: str) -> bytes | None:
    """Return the content of `path` at HEAD; None if it is not there."""
    return _git("show", f"HEAD:./{path}")


def changed_files() -> list[str]:
    """Return the tracked files that differ from HEAD."""
    answer = _git("diff", "--name-only", "-z", "HEAD")
    return answer.decode(errors="replace").rstrip("\0").split("\0") if answer else []


def date(commit: str) -> str | None:
    """Return the date of `commit` as ISO 8601; None if there is no such commit."""
    answer = _git("show", "-s", "--format=%cI", commit)
    return answer.decode().strip() if answer else None


def _syntax(path: Path) -> str | None:
    return ast.dump(ast.parse(path.read_text(encoding="utf-8"))) if path.exists() else None


def _git(*words: str) -> bytes | None:
    try:
        answer = subprocess.run(["git", *words], capture_output=True, check=False)
    except OSError:
        return None
    return answer.stdout if answer.returncode == 0 else None
