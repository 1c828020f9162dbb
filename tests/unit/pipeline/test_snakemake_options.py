"""Whether Snakemake runs jobs is known from its command line, as Snakemake itself decides it."""

import argparse
from functools import cache
from unittest.mock import MagicMock

import pytest
from snakemake import cli

from eqcollapse.pipeline.snakemake_options import Asked, asked, of, runs_here

RUN = ["--cores", "1", "data"]
VALUED = [
    ["--archive", "x.tar.gz"],
    ["--cleanup-metadata", "x"],
    ["--list-changes", "code"],
    ["--lint", "json"],
    ["--dag", "mermaid-js"],
    ["--report", "x.html"],
    ["--report", "x.html", "--report-after-run"],
    ["--reporter", "html"],
    ["--generate-unit-tests", "x"],
    ["--containerize", "apptainer"],
    ["--config", "mirror=-n"],
    ["--cores", "1", "--until", "n"],
    ["-np"],
    ["-pn"],
    ["--unlock", "-n"],
]


@cache
def parser() -> argparse.ArgumentParser:
    return cli.get_argument_parser()


def flags() -> list[str]:
    """Return all options of Snakemake's that do without a value, in all their forms."""
    actions = [action for action in parser()._actions if action.nargs in (0, "?") and action.option_strings]
    others = {"--help", "--version", "--scheduler", "--report-after-run"}  # no command lines by themselves
    return [name for action in actions if not others & set(action.option_strings) for name in action.option_strings]


def abbreviated(option: str) -> str:
    """Return the shortest beginning of `option` that argparse takes for it."""
    every = [name for action in parser()._actions for name in action.option_strings]
    lengths = range(3, len(option) + 1)
    alone = (option[:n] for n in lengths if [name for name in every if name.startswith(option[:n])] == [option])
    return next(alone, option)


def answered(words: list[str], monkeypatch) -> Asked:
    """Return what Snakemake does: its own code, on an interface that only notes what is called."""
    options = parser().parse_args(words)
    api = MagicMock()
    monkeypatch.setattr(cli, "SnakemakeApi", api)
    workflow = api.return_value.__enter__.return_value.workflow.return_value
    workflow.lint.return_value = False
    assert cli.args_to_api(options, parser())
    dag = workflow.dag.return_value
    runs = [call for call in dag.execute_workflow.call_args_list if call.kwargs["pseudo_executor"] != "dryrun"]
    return Asked(runs=bool(runs), plans=workflow.dag.called, unlocks=dag.unlock.called)


COMMANDS = [[flag] for flag in flags()] + VALUED + [[]]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_it_is_what_snakemake_does(words, monkeypatch):
    assert of(parser().parse_args([*words, *RUN[:2]])) == answered([*words, *RUN[:2]], monkeypatch)


def test_abbreviations_are_what_they_stand_for():
    long = [flag for flag in flags() if flag.startswith("--") and flag not in ("--dryrun", "--dry-run")]
    assert len(long) > 30
    for flag in long:
        words = [[name, *RUN[:2]] for name in (abbreviated(flag), flag)]
        assert len({of(parser().parse_args(each)) for each in words}) == 1, words


@pytest.mark.parametrize("words", [["-n"], ["--dry-r"], ["-S"], ["-D"], ["--dag=dot"], ["--su"], ["-np"], ["--unl"]])
def test_the_command_lines_of_people_that_look(words):
    assert not asked([*words, *RUN]).runs
    assert asked([*words, *RUN]).plans


@pytest.mark.parametrize("words", [["-l"], ["--lin"], ["--lint", "json"], ["--list-t"], ["--print-c"]])
def test_the_command_lines_of_people_that_look_at_rules_alone(words):
    assert asked(words) == Asked(runs=False, plans=False)


@pytest.mark.parametrize(
    "words", [RUN, [*RUN, "--quiet", "rules"], [*RUN, "-F"], ["--touch", *RUN], ["--nothing-of-it"]]
)
def test_the_command_lines_of_people_that_run(words, capsys):
    assert asked(words) == Asked()
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "here"),
    [
        ([], True),
        (["--executor", "local"], True),
        (["-n"], False),
        (["--executor", "slurm"], False),
        (["--profile", "profiles/slurm"], False),
        (["--profile", "profiles/slurm", "--executor", "local"], True),
        (["--no-such-option"], False),
    ],
)
def test_jobs_run_here_unless_the_command_line_or_its_profiles_say_otherwise(words, here):
    assert runs_here([*RUN, *words]) == here
