"""The commands `check` and `hash`, and the options by which other commands take the settings of a study."""

import argparse
import json
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


def add_settings(command: argparse.ArgumentParser) -> None:
    """Add the options that name the settings of a study."""
    command.add_argument(
        "--params", default="params.yaml", metavar="FILE", help="the settings of the study (params.yaml)"
    )
    command.add_argument("--configfile", action="append", default=[], metavar="FILE",
                         help="a preset laid over them, as with snakemake; may be repeated")  # fmt: skip
    command.add_argument(
        "--config", type=json.loads, default=None, metavar="JSON", help="the settings themselves, instead of files"
    )


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that the options name, merged as Snakemake merges them."""
    if options.config is not None:
        return options.config
    from eqcollapse.study.params import read

    return read(options.params, *options.configfile)
