"""A run that is killed at any moment is taken up by the same command, without any work by hand."""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from projects import Project

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

KILLS = 10


def run_and_kill(project: Project, words: tuple[str, ...], seconds: float) -> bool:
    """Run a command, kill it and all that it started after so many seconds; return whether it had ended well."""
    process = project.start(*words)
    try:
        code = process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return False
    assert code == 0, project.said[-5000:]
    return True


def whole_cells(project: Project) -> dict[Path, tuple[int, int]]:
    """Return number and time of the files of the cells that have a record."""
    files = {}
    for record in (project.folder / "results/runs").rglob("provenance.json"):
        for path in record.parent.iterdir():
            files[path] = (path.stat().st_mtime_ns, path.stat().st_size)
    return files


@pytest.mark.parametrize("words", [("dvc", "repro"), ("snakemake", "--cores", "all")], ids=["dvc", "snakemake"])
def test_ten_kills(versioned, tmp_path, words):
    project = versioned.clone(tmp_path / "project")
    project.git("checkout", "-q", "HEAD~1")  # the commit at which the finished study was run
    draw = random.Random(words[0])
    kills, slowest = 0, 30.0
    while kills < KILLS:
        before = whole_cells(project)
        begin = time.monotonic()
        if run_and_kill(project, words, draw.uniform(0.5, slowest)):
            slowest = time.monotonic() - begin
            subprocess.run(["rm", "-rf", "results", "resources", ".attic"], cwd=project.folder, check=True)
            before = {}
        else:
            kills += 1
        after = whole_cells(project)
        assert {path: after.get(path) for path in before} == before
    assert run_and_kill(project, words, 3600)
    assert project.files() == versioned.files()
    assert project.planned() == {}
    assert not [path for path in project.folder.rglob("*.partial") if ".snakemake" not in path.parts]
