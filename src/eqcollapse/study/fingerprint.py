"""The digest of the code that a stage runs: the modules that it imports, by their syntax.

Comments, formatting and docstrings do not count: explaining the code better retrains nothing. Neither does the
`__init__.py` above an imported module: ours only re-export (a test holds them to it), and to follow them would
retrain every cell for a new metric. The digest does not depend on the Python version, so that a lab's laptops and its
cluster agree on paths.
"""

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = "eqcollapse"
ROOT = Path(__file__).parents[1]
RUNTIME = {f"{PACKAGE}.runtime.{path.stem}" for path in (ROOT / "runtime").glob("*.py") if path.stem != "__init__"}
PLUMBING = {*RUNTIME, f"{PACKAGE}.data.download", f"{PACKAGE}.data.transfer", f"{PACKAGE}.training.log"}
"""How bytes come and go, which GPU a job gets and what it says meanwhile, not what the bytes are (a download is checked
by its hash). They are in no path's digest: all of runtime/, what downloads, and the log of training."""
CONFIG = {f"{PACKAGE}.{path.parent.name}.config" for path in ROOT.glob("*/config.py")}
"""The types of settings. They are in no path's digest, either: what they let through is, as the resolved settings."""
CLI = {f"{PACKAGE}.__main__", f"{PACKAGE}.cli.main", f"{PACKAGE}.cli.stages"}
RUNNER = {*PLUMBING, *CLI, f"{PACKAGE}.provenance.records"}
"""What every job passes through besides its stage's modules: in no path's digest either, but in every record."""


@cache
def code_digest(module: str, root: Path = ROOT) -> str:
    """Return the sha256 of `module` and of all modules of the package that it imports, at any depth."""
    return _digest_of(imported(module, root), root)


@cache
def runner_digest(root: Path = ROOT) -> str:
    """Return the sha256 of the modules of `RUNNER`."""
    return _digest_of(RUNNER, root)


def _digest_of(modules: Iterable[str], root: Path) -> str:
    total = hashlib.sha256()
    for name in sorted(modules):
        total.update(f"{name}:{_module_digest(_file(name, root))}\n".encode())
    return total.hexdigest()


def imported(module: str, root: Path = ROOT) -> set[str]:
    """Return `module` and the modules of the package that it imports, at any depth, but for types and plumbing."""
    return _reached(module, root) - CONFIG


def files(module: str, root: Path = ROOT) -> list[Path]:
    """Return the source files behind `code_digest(module)`."""
    return [_file(name, root) for name in sorted(imported(module, root))]


def config_files(module: str, root: Path = ROOT) -> list[Path]:
    """Return the source files of the types of settings that `module` imports, at any depth."""
    return [_file(name, root) for name in sorted(_reached(module, root) & CONFIG)]


def _reached(module: str, root: Path) -> set[str]:
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in seen and name not in PLUMBING:
            seen.add(name)
            waiting.extend(_imports(name, root))
    return seen


def runner_files(root: Path = ROOT) -> list[Path]:
    """Return the source files behind `runner_digest()`."""
    return [_file(name, root) for name in sorted(RUNNER)]


@cache
def _imports(name: str, root: Path) -> tuple[str, ...]:
    return tuple(sorted(set(_named_imports(name, root))))


def _named_imports(name: str, root: Path) -> Iterator[str]:
    for node in ast.walk(_tree(_file(name, root))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if is_ours(alias.name))
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, name, root)
            if is_ours(base):
                yield base
                within = (f"{base}.{alias.name}" for alias in node.names)
                yield from (module for module in within if _exists(module, root))


def _absolute(node: ast.ImportFrom, name: str, root: Path) -> str:
    """Return the module that `from ... import` in module `name` reads from, with relative levels resolved."""
    if not node.level:
        return node.module or ""
    depth = node.level - (1 if _file(name, root).name == "__init__.py" else 0)
    package = name.rsplit(".", depth)[0] if depth else name
    return f"{package}.{node.module}" if node.module else package


def is_ours(name: str) -> bool:
    """Whether the module `name` is of this package."""
    return name == PACKAGE or name.startswith(f"{PACKAGE}.")


def _exists(name: str, root: Path) -> bool:
    return any(path.exists() for path in _candidates(name, root))


def _file(name: str, root: Path) -> Path:
    for path in _candidates(name, root):
        if path.exists():
            return path
    raise FileNotFoundError(f"{name} is imported, but there is no such module under {root}")


def _candidates(name: str, root: Path) -> tuple[Path, Path]:
    base = root.joinpath(*name.split(".")[1:])
    return base / "__init__.py", base.with_suffix(".py")


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


@cache
def _module_digest(path: Path) -> str:
    return syntax_digest(_tree(path))


def syntax_digest(tree: ast.Module) -> str:
    """Return the sha256 of source by its syntax: comments, formatting and docstrings do not count."""
    return hashlib.sha256(repr(_normal(tree)).encode()).hexdigest()


def _normal(node: Any) -> Any:
    """Return syntax as nested tuples, without positions, docstrings and the fields that only some Pythons have."""
    if isinstance(node, ast.AST):
        fields = ((name, value) for name, value in ast.iter_fields(node) if value is not None and value != [])
        return (
            type(node).__name__,
            *((name, _normal(_without_docstring(node, name, value))) for name, value in fields),
        )
    if isinstance(node, list):
        return tuple(_normal(item) for item in node)
    return node


def _without_docstring(node: ast.AST, name: str, value: Any) -> Any:
    if name == "body" and isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return value if ast.get_docstring(node, clean=False) is None else value[1:]
    return value
