"""profiles/slurm on a real Slurm: the same bytes as a local run, and what faults come to."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import sites
from projects import Project

pytestmark = pytest.mark.slurm

PROFILE = ("--profile", "profiles/slurm", "--slurm-init-seconds-before-status-checks", "2",
           "--max-status-checks-per-second", "1", "--latency-wait", "5")  # fmt: skip
SMALL = ("--set-resources", "cell:mem_mb=1500", "cell:runtime=30")
"""What a cell of these studies needs; three times the profile's 6 GB is more than a node here has."""
GROUPS = (
    "--groups", "dataset=data", "split=data", "cell=cells", "table=report", "figure=report", "claims=end", "page=end",
    "--group-components", "cells=2", "report=2",
)  # fmt: skip
"""A chain of jobs in one allocation, and two beside each other: a node here has two cores."""
LONG = 30
"""Epochs of a cell that is disturbed: half a minute."""


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory) -> Project:
    """A longer cell that was trained on this machine, in one go."""
    project = sites.tiny(tmp_path_factory.mktemp("undisturbed") / "project", models=("deq",), epochs=LONG)
    project.snakemake("train")
    return project


def jobs(state: str = "R") -> list[str]:
    """Return the ids of the jobs in this state."""
    return sites.slurm("squeue", "--noheader", f"--states={state}", "--format=%A").split()


def steps(job: str) -> list[Path]:
    """Return the processes by which a node of this machine runs `job`."""
    return [path for path in Path("/proc").glob("[0-9]*/cmdline") if read(path).startswith(f"slurmstepd: [{job}.")]


def read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # it has ended
        return ""


def checkpoints(project: Project) -> list[Path]:
    """Return the checkpoints of the cells that have begun: there is something to go on from."""
    return list((project.folder / ".cache/checkpoints").glob("*.pt"))


def outcome(project: Project) -> dict[str, bytes]:
    """Return what training made, without the records: those name the commit, which differs with the settings."""
    return {name: content for name, content in sites.results(project).items() if name.startswith("results/runs")}


def trained_epochs(project: Project) -> list[int]:
    """Return the epochs that each history has, in order."""
    histories = sorted(name for name in project.files("results/runs") if name.endswith("history.csv"))
    return [project.files("results/runs")[name].count(b"\n") - 1 for name in histories]


def test_a_study_on_the_cluster_equals_the_local_one_to_the_byte(bare, tmp_path):
    project = bare.clone(tmp_path / "project")
    answer = project.run("snakemake", *PROFILE, *SMALL, *GROUPS)
    assert project.files() == bare.files()  # records too: they say nothing of where
    allocations = answer.stderr.count("has been submitted with SLURM jobid")
    assert 0 < allocations < len(sites.records(project))  # one a job
    assert project.planned() == {}


@pytest.mark.slow
def test_in_the_image_too_and_the_records_say_so(bare, tmp_path):
    project = bare.clone(tmp_path / "project")
    sites.give_image(project)
    project.run("snakemake", *PROFILE, *SMALL, *GROUPS, "--use-singularity")
    assert sites.results(project) == sites.results(bare)
    stated = (project.folder / "containers/eqcollapse.sif.sha256").read_text().split()[0]
    assert {record["environment"]["image"]["sha256"] for record in sites.records(project).values()} == {stated}


@pytest.fixture
def waiting(tmp_path, bare) -> Iterator[tuple[Project, subprocess.Popen]]:
    """A run whose job waits in the queue, on nodes that start nothing until `resume`."""
    project = bare.clone(tmp_path / "project")
    project.edit({"experiments": {"a": {"models": ["explicit"]}}})
    project.snakemake("splits")
    sites.slurm("scontrol", "update", "NodeName=n[1-2]", "State=DRAIN", "Reason=test")
    process = project.start("snakemake", "train", *PROFILE, *SMALL, "--retries", "0")
    try:
        sites.wait_for("a job that waits", lambda: jobs("PD"))
        yield project, process
    finally:
        resume()
        process.wait(timeout=300)


def resume() -> None:
    """Let both nodes start jobs."""
    for node in ("n1", "n2"):
        if "DRAIN" in sites.slurm("scontrol", "show", "node", node):
            sites.slurm("scontrol", "update", f"NodeName={node}", "State=RESUME")


@pytest.mark.slow
def test_settings_edited_under_way_are_the_next_runs(waiting, bare):
    project, process = waiting
    project.edit({"train": {"lr": 0.02}})  # the job parses the Snakefile again on its node
    resume()
    assert process.wait(timeout=300) == 0, project.said
    assert outcome(project) == {name: content for name, content in outcome(bare).items() if "/explicit/" in name}
    assert project.planned("train")["cell"] == 1


@pytest.mark.slow
def test_source_edited_under_way_stops_the_job_with_one_line(waiting):
    project, process = waiting
    source = project.folder / "src/eqcollapse/training/schedule.py"
    source.write_text(source.read_text() + "\nNEW = 1\n")
    resume()
    assert process.wait(timeout=300) != 0
    assert "the source of stage train changed after" in project.said
    assert not project.files("results/runs")


def test_a_job_over_its_memory_gets_more(tmp_path, bare):
    """200 MB are less than Python and torch allocate; with little more than that, the kernel would drop and read again
    the pages of their libraries for ever, and kill nobody.
    """
    project = bare.clone(tmp_path / "project")
    project.edit({"experiments": {"a": {"models": ["explicit"]}}})
    project.snakemake("splits")
    answer = project.run("snakemake", "train", *PROFILE, "--set-resources", "cell:mem_mb=200 * attempt ** 3")
    assert "OUT_OF_MEMORY" in answer.stderr or "FAILED" in answer.stderr
    assert trained_epochs(project) == [2]
    assert outcome(project) == {name: content for name, content in outcome(bare).items() if "/explicit/" in name}


def test_a_job_over_its_time_is_said_so_and_its_retry_goes_on_from_the_checkpoint(tmp_path, undisturbed):
    project = undisturbed.clone(tmp_path / "project")
    project.snakemake("splits")
    process = project.start("snakemake", "train", *PROFILE, "--set-resources", "cell:mem_mb=1500", "cell:runtime=1")
    sites.wait_for("a checkpoint", lambda: checkpoints(project))
    hang(project)
    sites.wait_for("the retry", lambda: project.said.count("has been submitted with SLURM jobid") == 2)
    assert process.wait(timeout=300) == 0, project.said
    assert "TIMEOUT" in project.said
    assert "goes on after epoch" in next((project.folder / "logs/train").rglob("*.log")).read_text()
    assert outcome(project) == outcome(undisturbed)
    assert trained_epochs(project) == [LONG]


def hang(project: Project) -> None:
    """Stop the training process of `project`, as one whose disk does not answer."""
    training = [path for path in Path("/proc").glob("[0-9]*/cmdline") if "eqcollapse\0train\0" in read(path)]
    (process,) = [path.parent for path in training if Path(path.parent / "cwd").resolve() == project.folder]
    os.kill(int(process.name), signal.SIGSTOP)


def test_scancel_a_node_down_and_a_killed_snakemake_end_in_the_same_bytes(tmp_path, undisturbed):
    project = undisturbed.clone(tmp_path / "project")
    project.snakemake("splits")
    first = project.start("snakemake", "train", *PROFILE, *SMALL)
    try:
        sites.wait_for("a checkpoint", lambda: checkpoints(project))
        (cancelled,) = jobs()
        sites.slurm("scancel", cancelled)
        (second,) = sites.wait_for("a second attempt", lambda: [job for job in jobs() if job != cancelled])
        node = sites.slurm("squeue", "--noheader", f"--jobs={second}", "--format=%N").strip()
        for state in ("DOWN", "DRAIN"):  # a node that is only down comes back by itself, within a second
            sites.slurm("scontrol", "update", f"NodeName={node}", f"State={state}", "Reason=test")
        sites.wait_for("its requeue", lambda: second in jobs("PD"))
        # Slurm itself waits two minutes, for what the node may still be running.
        sites.wait_for("its end on the node", lambda: not steps(second))
        sites.slurm("scontrol", "update", f"JobId={second}", "StartTime=now")
        sites.wait_for("the job to run again", lambda: second in jobs())
        assert sites.slurm("squeue", "--noheader", f"--jobs={second}", "--format=%N").strip() not in ("", node)
    finally:
        sites.kill(first)
        resume()
    left = jobs("R,PD")
    assert len(left) == 1  # Slurm knows nothing of Snakemake's end
    again = project.run("snakemake", "train", *PROFILE, *SMALL)
    assert f"Cancelling the jobs that a killed run left in the queue: {left[0]}" in again.stderr
    assert outcome(project) == outcome(undisturbed)
    assert trained_epochs(project) == [LONG]
    assert "Nothing to be done" in project.run("snakemake", "train", *PROFILE).stderr
