"""The commands that README and docs show are ones that there are."""

import re
import shlex

import pytest

from eqcollapse.cli.main import new_parser
from projects import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

COMMANDS = sorted({
    line.strip()
    for page in PAGES
    for block in re.findall(r"```sh\n(.*?)```", page.read_text(), flags=re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
})  # fmt: skip


def words(command: str) -> list[str]:
    return shlex.split(command, comments=True)


@pytest.mark.parametrize("command", [each for each in COMMANDS if each.startswith("eqcollapse ")])
def test_the_program_takes_the_command(command):
    if words(command)[1] != "metrics":  # tests/docs/test_metrics.py runs these
        new_parser().parse_args(words(command)[1:])


def test_make_has_the_targets():
    makefile = (ROOT / "Makefile").read_text()
    shown = {words(command)[1] for command in COMMANDS if command.startswith("make ")}
    assert {target for target in shown if not re.search(rf"^{target}:", makefile, flags=re.MULTILINE)} == set()
    assert "run" in shown


def test_presets_and_profiles_are_there():
    shown = {word for command in COMMANDS for word in words(command) if word.startswith(("workflow/", "profiles/"))}
    assert {name for name in shown if not (ROOT / name).exists()} == set()
    assert "profiles/slurm" in shown
