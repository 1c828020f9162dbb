"""The program as it is started: whose code it runs, and what it says where packages are missing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import eqcollapse

PACKAGE = Path(eqcollapse.__file__).parent


def started(folder: Path, *words: str, code: Path = PACKAGE.parent) -> subprocess.CompletedProcess:
    """Run the command line in `folder` with the code in `code`."""
    environment = {**os.environ, "PYTHONPATH": str(code)}
    return subprocess.run(
        [sys.executable, "-m", "eqcollapse", *words],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture
def project(tmp_path):
    """A second project, with a copy of the code."""
    shutil.copytree(PACKAGE, tmp_path / "second/src/eqcollapse", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "second"


@pytest.mark.parametrize("command", ["audit", "explain", "metrics", "check"])
def test_a_command_refuses_the_code_of_another_project(project, command):
    answer = started(project, command, "--help")
    assert answer.returncode == 1
    assert answer.stderr.startswith(
        f"eqcollapse: the code that runs is that of {PACKAGE}, but this folder is a project"
    )
    assert answer.stderr.count("\n") == 1


def test_doctor_reports_the_code_of_another_project(project):
    assert f"the code that runs is that of {PACKAGE}" in started(project, "doctor").stdout


def test_a_project_runs_its_own_code(project):
    assert started(project, "check", "--help", code=Path("src")).returncode == 0
    (project.parent / "linked").symlink_to(project)
    assert started(project.parent / "linked", "check", "--help", code=project / "src").returncode == 0


def test_a_folder_that_is_no_project_takes_any_code(tmp_path):
    assert started(tmp_path, "check", "--help").returncode == 0


def test_a_missing_package_is_named_in_one_line(tmp_path):
    hidden = tmp_path / "pydantic"
    hidden.mkdir()
    (hidden / "__init__.py").write_text("raise ModuleNotFoundError(name='pydantic')")
    answer = started(tmp_path, "check", "--help")
    assert answer.returncode == 1
    assert answer.stderr.startswith("eqcollapse: pydantic is not installed")
    assert answer.stderr.count("\n") == 1
