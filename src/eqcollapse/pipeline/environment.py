"""`make setup`, last step: let .venv follow the project's folder where it is moved, renamed or copied.

`python -m venv` and pip write the absolute path of the environment into its programs and its `activate`, and hatchling
that of src/ into a .pth file. A moved project would find no program, and a copy would run the code of the first.
"""

import os
import re
import shlex
import sys
import sysconfig
from pathlib import Path

SOURCES = "_eqcollapse.pth"
"""The file by which an editable installation finds src/, as hatchling names it."""

_INTERPRETER = re.compile(rb"\A#!(?:/bin/sh\n'''exec' )?[^\n]*/(python[\d.]*)\"?(?: \"\$0\" \"\$@\"\n' ''')?\n")
_BESIDE = b"""#!/bin/sh
'''exec' "$(dirname -- "$(realpath -- "$0")")/%s" "$0" "$@"
' '''
"""
"""A first line for the shell and for Python: the interpreter is the one beside the program."""

_FOLDER = re.compile(r"(?m)^(\s*(?:export )?)VIRTUAL_ENV=(?!\"?\$)(.*)$")


def make_movable(environment: Path, libraries: Path, sources: Path) -> None:
    """Write the paths in `environment` (a virtual environment, with its site-packages `libraries`) as relative ones.

    `sources` is the folder that holds the package. To do this twice is harmless. Of the scripts that activate an
    environment, `activate` (for bash) is changed; those of fish and csh keep the absolute path.
    """
    for path in sorted((environment / "bin").iterdir()):
        if path.is_symlink() or not path.is_file():
            continue
        if path.name == "activate":
            path.write_text(_activation(path.read_text()))
        else:
            content = path.read_bytes()
            movable = _INTERPRETER.sub(lambda found: _BESIDE % found[1], content)
            if movable != content:
                path.write_bytes(movable)
    relative = os.path.relpath(sources.resolve(), libraries.resolve())
    (libraries / SOURCES).write_text(f"{relative}\n")


def _activation(script: str) -> str:
    """Return the text of `activate`, with the environment's folder found from the script's own place."""

    def found(line: re.Match) -> str:
        stated = shlex.join(shlex.split(line[2]))
        here = '"$(cd "$(dirname "${BASH_SOURCE:-$0}")/.." && pwd)"'  # a plain sh cannot tell: it keeps what is stated
        return f'{line[1]}VIRTUAL_ENV={here}; [ -e "$VIRTUAL_ENV/pyvenv.cfg" ] || VIRTUAL_ENV={stated}'

    return _FOLDER.sub(found, script)


if __name__ == "__main__":
    make_movable(Path(sys.prefix), Path(sysconfig.get_path("purelib")), Path(__file__).parents[2])
