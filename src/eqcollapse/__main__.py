"""`python -m eqcollapse` and the program `eqcollapse`: the command line, which cli/ holds."""

import os
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
OWN = Path("src/eqcollapse")
"""Where a project has its code, seen from its folder."""


def start() -> int:
    """Run the command line; return the exit code. Refuse to speak of a project with another project's code."""
    if sys.argv[1:2] != ["doctor"] and _is_another_projects():  # doctor says it among what it finds
        print(
            f"eqcollapse: the code that runs is that of {PACKAGE}, but this folder is a project with its own: run "
            "`make setup` here and use this folder's .venv, or PYTHONPATH=src python -m eqcollapse",
            file=sys.stderr,
        )
        return 1
    try:
        from eqcollapse.cli.main import main

        return main()
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("", "eqcollapse"):
            raise
        print(
            f"eqcollapse: {error.name} is not installed, which the commands need: pip install 'eqcollapse[audit]', or, "
            "in a project's folder, `make setup`",
            file=sys.stderr,
        )
        return 1


def _is_another_projects() -> bool:
    return (OWN / "__main__.py").is_file() and not os.path.samefile(OWN, PACKAGE)


if __name__ == "__main__":
    sys.exit(start())
