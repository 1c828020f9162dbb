"""The commands `check` and `hash`: is params.yaml in order, and what it says of data of one's own."""

import argparse
from pathlib import Path
from typing import Any


def add_arguments(commands: Any) -> None:
    """Add the two commands to the command line's subparsers."""
    check = commands.add_parser(
        "check",
        help="check a params file, and count its jobs",
        description="Check a params file, and count the jobs that it asks for. Nothing is run.",
    )
    check.add_argument(
        "params", nargs="*", default=["params.yaml"], help="a params file, then presets laid over it (params.yaml)"
    )
    check.set_defaults(run=_check)
    digest = commands.add_parser(
        "hash",
        help="print the sha256 of your images, for params.yaml",
        description="Print the sha256 of a folder or archive of images, as params.yaml wants it.",
    )
    digest.add_argument("path", type=Path, help="a folder or an archive")
    digest.set_defaults(run=_hash)


def _check(options: argparse.Namespace, _: list[str]) -> None:
    from eqcollapse.study.grid import Study
    from eqcollapse.study.params import load

    study = Study(load(*options.params))
    print(
        f"{' with '.join(options.params)}: "
        + ", ".join(f"{len(jobs)} {stage}" for stage, jobs in study.jobs.items() if jobs)
    )


def _hash(options: argparse.Namespace, _: list[str]) -> None:
    from eqcollapse.data.checksums import content_sha256

    print(content_sha256(options.path))
