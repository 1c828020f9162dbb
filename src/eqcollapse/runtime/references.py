"""Code of the user's own, as params.yaml names it: `path/to/file.py:Name` or `package.module:Name`."""

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from eqcollapse.runtime.errors import EqcollapseError


@dataclass(frozen=True)
class Reference:
    """The callable `name` of the module `module`, which lies in the file `file` under the folder `root`.

    Of `path/to/file.py:Name` the module is `file` and the root its folder, as where Python runs that file.
    """

    root: Path
    module: str
    file: Path
    name: str


def is_reference(text: str) -> bool:
    """Whether `text` names code of the user's own, and not something that is known by its name."""
    return ":" in text or "/" in text or text.endswith(".py")


def located(text: str) -> Reference:
    """Return what `text` names, relative to the working folder; imports nothing.

    Raises EqcollapseError in one line where there is no such file or module.
    """
    place, _, name = text.rpartition(":")
    if not place or not name.isidentifier():
        raise EqcollapseError(f"{text!r} must be path/to/file.py:Name or package.module:Name")
    if "/" not in place and not place.endswith(".py"):
        root, file = _found(place, text)
        return Reference(root, place, file, name)
    path = Path(place)
    if path.is_absolute() or ".." in path.parts:
        raise EqcollapseError(f"{text!r} must be relative to the project's folder and inside it, so that it goes along")
    if path.suffix != ".py" or not path.stem.isidentifier():
        raise EqcollapseError(f"{text!r}: {path.name} is not named as a Python module is: letters, digits, _ and .py")
    if not path.is_file():
        raise EqcollapseError(f"{text!r}: there is no file {path}")
    return Reference(path.parent.resolve(), path.stem, path.resolve(), name)


def _found(module: str, text: str) -> tuple[Path, Path]:
    """Return the folder from which `module` is imported, and its file; that of no package above it is run."""
    places: list[str] = [str(Path.cwd()), *sys.path]
    names = module.split(".")
    root = file = None
    for depth in range(len(names)):
        spec = PathFinder.find_spec(".".join(names[: depth + 1]), places)
        if spec is None or (depth < len(names) - 1 and not spec.submodule_search_locations):
            raise EqcollapseError(f"{text!r}: there is no module {'.'.join(names[: depth + 1])} here or installed")
        places = list(spec.submodule_search_locations or [])
        file = Path(spec.origin) if spec.origin else None
        top = Path(places[0]) if depth == 0 and places else file if depth == 0 else None
        root = top.parent if top else root
    if file is None or root is None or file.suffix != ".py":
        raise EqcollapseError(f"{text!r}: {module} is no module of Python source")
    return root.resolve(), file.resolve()


def imported_callable(text: str) -> Callable[..., Any]:
    """Import what `text` names and return it.

    Raises EqcollapseError in one line where there is no such callable. What the code itself raises passes through.
    """
    found = located(text)
    if str(found.root) not in sys.path:
        sys.path.insert(0, str(found.root))
    module = importlib.import_module(found.module)
    if Path(module.__file__ or "").resolve() != found.file:
        raise EqcollapseError(f"{text!r}: another module is named {found.module} ({module.__file__}): rename the file")
    made = getattr(module, found.name, None)
    if not callable(made):
        raise EqcollapseError(f"{text!r}: {found.file.name} has no callable {found.name}")
    return made
