"""A virtual environment that is moved or copied with its project runs, and runs that project's code."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from eqcollapse.pipeline.environment import make_movable

SCRIPT = "import sys, eqcollapse\nprint(sys.prefix, eqcollapse.__file__)\n"
LONG = "#!/bin/sh\n'''exec' \"{python}\" \"$0\" \"$@\"\n' '''\n"


@pytest.fixture(params=["project", "a project"])
def project(tmp_path, request):
    """A project with an environment made by `python -m venv`, and a program in it as pip writes one."""
    folder = tmp_path / request.param
    (folder / "src/eqcollapse").mkdir(parents=True)
    (folder / "src/eqcollapse/__init__.py").touch()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / ".venv"], check=True)
    python = folder / ".venv/bin/python"
    first = LONG.format(python=python) if " " in request.param else f"#!{python}\n"
    for name, text in {"said": first + SCRIPT, "other": "#!/bin/sh\necho /python\n"}.items():
        (folder / ".venv/bin" / name).write_text(text)
        (folder / ".venv/bin" / name).chmod(0o755)
    (libraries(folder) / "_eqcollapse.pth").write_text(f"{folder}/src\n")
    make_movable(folder / ".venv", libraries(folder), folder / "src")
    return folder


def libraries(project: Path) -> Path:
    (found,) = (project / ".venv/lib").glob("python*/site-packages")
    return found


def said(*words: str | Path) -> list[str]:
    """Return what a program says of its environment and of its code, started from no project and without our path."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    answer = subprocess.run(words, env=environment, cwd="/", capture_output=True, text=True, check=True)
    return answer.stdout.split("\n")[0].split(" /")


def expected(project: Path) -> list[str]:
    prefix, code = f"{project}/.venv", f"{project}/src/eqcollapse/__init__.py"
    return [prefix, code[1:]]


def test_a_moved_project_runs_its_programs(project, tmp_path):
    assert said(project / ".venv/bin/said") == expected(project)
    moved = project.rename(tmp_path / "moved to")
    assert said(moved / ".venv/bin/said") == expected(moved)


def test_a_copy_runs_its_own_code(project, tmp_path):
    copy = Path(shutil.copytree(project, tmp_path / "copy", symlinks=True))
    assert said(copy / ".venv/bin/said") == expected(copy)
    assert said(project / ".venv/bin/said") == expected(project)


def test_a_link_to_a_program_finds_its_environment(project, tmp_path):
    (tmp_path / "linked").symlink_to(project / ".venv/bin/said")
    assert said(tmp_path / "linked") == expected(project)


def test_a_moved_environment_is_activated_where_it_is(project, tmp_path):
    moved = project.rename(tmp_path / "moved to")
    assert said("bash", "-c", f"source '{moved}/.venv/bin/activate' && said") == expected(moved)


def test_a_plain_shell_activates_an_environment_that_was_not_moved(project):
    assert said("sh", "-c", f". '{project}/.venv/bin/activate' && said") == expected(project)


def test_twice_is_as_once(project):
    def content() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in (project / ".venv").rglob("*") if path.is_file()}

    before = content()
    make_movable(project / ".venv", libraries(project), project / "src")
    assert content() == before


def test_programs_without_python_stay_as_they_are(project):
    assert (project / ".venv/bin/other").read_text() == "#!/bin/sh\necho /python\n"
