"""The commands `confirm`, `restore` and `attic`: the files that a stage owes, and what earlier settings left."""

import argparse
from typing import Any

from eqcollapse.runtime.errors import EqcollapseError


def add_arguments(commands: Any) -> None:
    """Add the three commands to the command line's subparsers."""
    confirm = commands.add_parser("confirm", help="check that a stage's files are what params.yaml asks for")
    confirm.add_argument("stage", help="a stage of dvc.yaml")
    confirm.set_defaults(run=_confirm)
    restore = commands.add_parser("restore", help="bring back what params.yaml asks for, and put aside the rest")
    restore.set_defaults(run=_restore)
    attic = commands.add_parser("attic", help="list results of other settings, or delete them")
    attic.add_argument("names", nargs="*", metavar="PATTERN", help="only paths like this; '*' stands for any text")
    attic.add_argument("--older-than", metavar="AGE", help="only what is older than this, such as 12h, 30d, 2w")
    attic.add_argument("--delete", action="store_true", help="delete what is listed")
    attic.set_defaults(run=_attic)


def _confirm(options: argparse.Namespace, _: list[str]) -> None:
    from eqcollapse.pipeline.confirm import confirm
    from eqcollapse.provenance import dvc_stages
    from eqcollapse.runtime.nearest import nearest
    from eqcollapse.study.grid import Study
    from eqcollapse.study.params import load

    stages = {stage.name: stage for stage in dvc_stages.load()}
    if options.stage not in stages:
        raise EqcollapseError(f"{options.stage!r} is not a stage of dvc.yaml{nearest(options.stage, stages)}: "
                              f"{', '.join(stages)}")  # fmt: skip
    confirm(Study(load()), stages[options.stage])


def _restore(*_: Any) -> None:
    from eqcollapse.pipeline.sweep import ATTIC, put_in_order
    from eqcollapse.runtime import locks
    from eqcollapse.study.grid import Study
    from eqcollapse.study.params import load

    study = Study(load())
    locks.hold_folder()
    if not put_in_order(study):
        print(f"params.yaml: nothing is to be put aside, and {ATTIC} has nothing that is missing")


def _attic(options: argparse.Namespace, _: list[str]) -> None:
    from eqcollapse.pipeline import attic

    print(attic.report(options.names, older_than=options.older_than, delete=options.delete))
