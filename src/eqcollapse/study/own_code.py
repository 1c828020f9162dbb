"""Code of the user's own that a cell runs: which settings name it, and the digests of its files.

The files are those that the named one imports, at any depth, from its own folder or package. What else it reads, or
imports from elsewhere, is in no digest.
"""

import ast
import symtable
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from eqcollapse.runtime.errors import EqcollapseError
from eqcollapse.runtime.nearest import nearest
from eqcollapse.runtime.references import Reference, is_reference, located
from eqcollapse.study import fingerprint
from eqcollapse.training.config import Model, TrainSpec

TRAINING = "eqcollapse.training.job"
"""The module whose code the digest of a cell covers anyhow."""
DIGITS = 16
"""Of a file's digest in a spec, which stands in the command of each cell."""

INSTALLED = {"site-packages", "dist-packages"}
"""Folders of packages that are installed, and do not change but with their version."""
MOST_FILES = 500


def references(settings: Model | TrainSpec) -> Iterator[tuple[str, str]]:
    """Yield the keys that name code of the user's own, and what they name."""
    network, equilibrium = settings.network, settings.equilibrium
    layer = equilibrium.layer if equilibrium and network.head == "equilibrium" else ""
    named = {
        "network.architecture": network.architecture,
        "equilibrium.layer": layer,
        "train.loss": settings.train.loss,
    }
    yield from ((key, text) for key, text in named.items() if is_reference(text))


def digests(settings: Model | TrainSpec) -> dict[str, str]:
    """Return the digest of each file of the user's own behind `settings`, by its path."""
    return {file: digest for _, text in references(settings) for file, digest in own_files(text).items()}


def own_files(text: str) -> dict[str, str]:
    """Return the digest of the syntax of each source file behind the reference `text`, by its path in the project.

    Of an installed package, its version. Raises EqcollapseError in one line where a file is missing, is no Python, or
    has no such name.
    """
    found = located(text)
    if INSTALLED.intersection(found.root.parts):
        _check_name(found, text)
        return {found.module.partition(".")[0]: _version(found.module.partition(".")[0])}
    covered = set(fingerprint.files(TRAINING))
    files: dict[Path, ast.Module] = {}
    ours: set[Path] = set()
    seen: set[str] = set()
    waiting = [found.module]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        path = _file(found, name)
        if len(files) > MOST_FILES:
            raise EqcollapseError(f"{text!r}: {found.module} imports more than {MOST_FILES} files beside it")
        if path is not None:
            files[path] = _parsed(path, text)
            waiting += [*_parents(name), *_imports(files[path], name, path)]
        elif fingerprint.is_ours(name):
            ours |= set(fingerprint.files(name)) - covered
    _check_name(found, text)
    return {
        **{_label(path, found): fingerprint.syntax_digest(tree)[:DIGITS] for path, tree in sorted(files.items())},
        **{_label(path, found): fingerprint.syntax_digest(_parsed(path, text))[:DIGITS] for path in sorted(ours)},
    }


def _file(found: Reference, name: str) -> Path | None:
    """Return the file of the module `name` beside the one that is named; None where it is imported from elsewhere."""
    top = name.partition(".")[0]
    if top != found.module.partition(".")[0] and not found.root.is_relative_to(Path.cwd()):
        return None  # beside an installed package lie all the others
    base = found.root.joinpath(*name.split("."))
    return next((path for path in (base / "__init__.py", base.with_suffix(".py")) if path.is_file()), None)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        names = metadata.packages_distributions().get(package, [])
        return metadata.version(names[0]) if names else "unknown"


def _parsed(path: Path, text: str) -> ast.Module:
    try:
        return ast.parse(path.read_bytes(), filename=str(path))
    except (SyntaxError, ValueError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        why = error.msg if isinstance(error, SyntaxError) else str(error)
        raise EqcollapseError(f"{text!r}: {path.name}{line} is not Python: {why}") from None
    except OSError as error:
        raise EqcollapseError(f"{text!r}: {path.name} cannot be read ({error.strerror})") from None


def _parents(name: str) -> list[str]:
    """Return the packages above a module, whose __init__.py runs before it."""
    parts = name.split(".")
    return [".".join(parts[:depth]) for depth in range(1, len(parts))]


def _imports(tree: ast.Module, name: str, path: Path) -> Iterator[str]:
    """Yield the modules that are imported anywhere in `tree`, and what might be one: names from a package."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            if base:
                yield base
            yield from (f"{base}.{alias.name}".lstrip(".") for alias in node.names if alias.name != "*")


def _check_name(found: Reference, text: str) -> None:
    source = found.file.read_text(encoding="utf-8")
    table = symtable.symtable(source, str(found.file), "exec")
    names = [symbol.get_name() for symbol in table.get_symbols() if symbol.is_assigned() or symbol.is_imported()]
    if found.name not in names and "import *" not in source:
        near = nearest(found.name, names)
        raise EqcollapseError(f"{text!r}: {found.file.name} has no {found.name}{near}; it has {', '.join(names)}")


def _label(path: Path, found: Reference) -> str:
    """Return the path of a file in the project, or in what it is imported from."""
    above = next(place for place in (Path.cwd(), found.root, fingerprint.ROOT.parents[1]) if path.is_relative_to(place))
    return path.relative_to(above).as_posix()
