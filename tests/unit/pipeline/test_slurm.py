"""What a killed run left: marks are dropped, and without a cluster nothing is asked (with one: tests/slurm)."""

import pytest

from eqcollapse.pipeline import slurm
from eqcollapse.runtime.errors import EqcollapseError


def test_marks_of_killed_runs_are_dropped(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")
    slurm.MARKS.mkdir(parents=True)
    (slurm.MARKS / "mark").write_text("")
    assert not slurm.recover()
    assert not slurm.MARKS.exists()
    assert not slurm.recover()


@pytest.fixture
def queue(tmp_path, monkeypatch):
    """A folder in which a run on a cluster was killed, and a squeue that does as `answers` says, one line a call."""
    monkeypatch.chdir(tmp_path)
    slurm.MARKS.mkdir(parents=True)
    (slurm.MARKS / "mark").write_text("")
    slurm.LOGS.mkdir(parents=True)
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("squeue", "scancel"):
        (tools / name).write_text(f"#!/bin/sh\n. {tools}/{name}.does\n")
        (tools / name).chmod(0o755)
        (tools / f"{name}.does").write_text("exit 0\n")
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    return tools


def test_a_queue_that_does_not_answer_is_not_an_empty_one(queue):
    (queue / "squeue.does").write_text("echo 'Unable to contact slurm controller' >&2; exit 1\n")
    with pytest.raises(EqcollapseError, match="squeue does not answer"):
        slurm.recover(patience=0.1)
    assert slurm.MARKS.exists()
    (queue / "squeue.does").write_text("exit 0\n")
    assert not slurm.recover(patience=0.1)
    assert not slurm.MARKS.exists()


def test_where_no_run_on_a_cluster_was_killed_a_dead_queue_is_none(queue):
    (queue / "squeue.does").write_text("exit 1\n")
    slurm.LOGS.rmdir()
    assert not slurm.recover(patience=0.1)


def test_a_cancelled_job_has_not_ended_because_squeue_fails(queue, tmp_path):
    (queue / "squeue.does").write_text(
        f"test -e {queue}/asked && exit 1; touch {queue}/asked; echo 77 eqcollapse_1 {tmp_path}\n"
    )
    with pytest.raises(EqcollapseError, match="Slurm jobs 77 of a killed run here do not end"):
        slurm.recover(patience=0.1)
