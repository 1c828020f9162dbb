"""A job that outlives its killed Snakemake is neither doubled nor disturbed by the next run."""

import os
import signal

import pytest

from eqcollapse.runtime.processes import started
from hostile import jobs
from projects import Project, ran
from sites import wait_for

pytestmark = pytest.mark.workflow

RUN = ("snakemake", "--cores", "2", "train")
LONG = {"train": {"epochs": 60, "lr": 0.02}}


def outlived(project: Project) -> list[int]:
    """Start a run, kill it alone when its cells have begun to train; return the cells' processes, which go on."""
    process = project.start(*RUN)
    checkpoints = project.folder / ".cache/checkpoints"
    wait_for("two checkpoints", lambda: len(list(checkpoints.glob("*.pt"))) == 2 or process.poll() is not None)
    left = jobs(process)
    process.kill()
    process.wait()
    assert len(left) == 2, project.said[-3000:]
    return left


def is_alive(pid: int) -> bool:
    return started(pid) is not None  # a zombie is none that lives


def said_by_cells(project: Project) -> list[str]:
    """Return the logs of the cells that were made last."""
    logs = sorted((project.folder / "logs/train").rglob("*.log"), key=lambda path: path.stat().st_mtime)
    return [log.read_text(errors="replace").lstrip("\0") for log in logs[-2:]]


def test_the_next_run_waits_for_its_cells_and_makes_none_again(study):
    study.edit(LONG)
    left = outlived(study)
    process = study.start(*RUN)
    wait_for("both to be waited for", lambda: all("waiting for its end" in said for said in said_by_cells(study)))
    assert all(is_alive(pid) for pid in left)
    assert process.wait(600) == 0, study.said[-3000:]
    assert not any(is_alive(pid) for pid in left)
    for said in said_by_cells(study):
        assert any(f"process {pid} on " in said for pid in left)
        assert "it has made all of it" in said
    study.run("python", "-m", "eqcollapse", "confirm", "train")
    assert study.planned("train") == {}


def test_the_next_run_goes_on_where_one_that_is_waited_for_is_killed(study):
    study.edit(LONG)
    left = outlived(study)
    process = study.start(*RUN)
    wait_for("both to be waited for", lambda: all("waiting for its end" in said for said in said_by_cells(study)))
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert process.wait(600) == 0, study.said[-3000:]
    assert all("it has made all of it" not in said for said in said_by_cells(study))
    study.run("python", "-m", "eqcollapse", "confirm", "train")


def test_other_settings_are_refused_while_it_lives(study):
    before = study.files()
    study.edit(LONG)
    left = outlived(study)
    study.edit({"train": {"epochs": 2, "lr": 0.1}})
    answer = study.run(*RUN, check=False)
    lines = [line for line in answer.stderr.splitlines() if line.startswith("params.yaml: ")]
    assert answer.returncode != 0
    assert len(lines) == 1
    assert any(f"while process {pid} on " in lines[0] for pid in left)
    assert "for a run that was killed: wait for its end, or end it" in lines[0]
    assert "Traceback" not in answer.stderr
    for pid in left:
        os.kill(pid, signal.SIGTERM)
    wait_for("their end", lambda: not any(is_alive(pid) for pid in left))
    assert ran(study.snakemake()) == {}
    assert study.files() == before
