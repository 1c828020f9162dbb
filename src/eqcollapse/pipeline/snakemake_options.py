"""What Snakemake was asked to do: to run jobs, to look at the jobs, or to look at the rules alone.

Options have short forms, abbreviations and values, so Snakemake's own parser reads them. This is the one place that
knows their names; tests/unit/pipeline/test_snakemake_options.py holds it against what Snakemake does.
"""

import io
import sys
from argparse import Namespace
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass

_RULES = ("lint", "list_rules", "list_target_rules", "print_compilation")
_LOOKS = (
    *("dryrun", "dag", "rulegraph", "filegraph", "d3dag", "summary", "detailed_summary", "unlock", "archive"),
    *("list_changes", "list_input_changes", "list_params_changes", "list_untracked", "list_conda_envs"),
    *("generate_unit_tests", "cleanup_metadata", "cleanup_shadow", "delete_all_output", "delete_temp_output"),
    *("conda_cleanup_envs", "conda_create_envs_only", "container_cleanup_images"),
)


@dataclass(frozen=True)
class Asked:
    """Whether jobs are run, whether the jobs are planned at all (or the rules looked at alone), whether it unlocks."""

    runs: bool = True
    plans: bool = True
    unlocks: bool = False


def asked(words: Sequence[str] | None = None) -> Asked:
    """Return what the command line `words` (this process' own) asks of Snakemake; of one that is none of its, a run."""
    from snakemake.cli import get_argument_parser

    try:
        with redirect_stderr(io.StringIO()):
            options = get_argument_parser().parse_args(list(sys.argv[1:] if words is None else words))
    except SystemExit:
        return Asked()
    return of(options)


def runs_here(words: Sequence[str] | None = None) -> bool:
    """Return whether the command line `words`, with its profiles, asks for jobs on this machine."""
    from snakemake.cli import parse_args

    try:
        with redirect_stderr(io.StringIO()):
            _, options = parse_args(list(sys.argv[1:] if words is None else words))
    except (SystemExit, Exception):  # which Snakemake itself says better
        return False
    return of(options).runs and options.executor in (None, "local")


def of(options: Namespace) -> Asked:
    """Return what the parsed `options` ask for."""
    plans = not _any(options, _RULES)
    reports = bool(options.report or options.reporter) and not options.report_after_run
    looks = reports or options.containerize is not None or _any(options, _LOOKS)
    return Asked(runs=plans and not looks, plans=plans, unlocks=bool(options.unlock))


def _any(options: Namespace, names: tuple[str, ...]) -> bool:
    return any(getattr(options, name) for name in names)
