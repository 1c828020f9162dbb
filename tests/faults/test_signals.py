"""A cell that is told to end, interrupted, killed for memory or killed outright: what it says, and that it goes on."""

import json
import os
import re
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

from hostile import descendants, full_only, size
from projects import Project
from sites import wait_for

pytestmark = pytest.mark.faults

EPOCHS = 60
"""So many that a quick machine has not ended before it is told to."""
TRAINING = b"python\0-m\0eqcollapse\0train"


def cell(project: Project, change: dict) -> list[str]:
    """Return the command of the project's explicit cell, its training altered by `change`."""
    (path,) = project.folder.glob("results/runs/digits/*/explicit/seed-0@*/provenance.json")
    record = json.loads(path.read_text())
    shutil.rmtree(path.parent)
    words = list(record["command"])
    spec = record["spec"]
    for section, changes in change.items():
        spec[section] |= changes
    words[words.index("--spec") + 1] = json.dumps(spec)
    return words


def checkpointed(project: Project) -> list[Path]:
    return list((project.folder / ".cache/checkpoints").glob("*.pt"))


@pytest.mark.parametrize("number", size([signal.SIGTERM, signal.SIGINT], [signal.SIGTERM]), ids=lambda one: one.name)
def test_a_cell_that_is_told_to_end_goes_on_from_its_checkpoint(undisturbed, tmp_path, number):
    project = undisturbed.copy(tmp_path / "project")
    words = cell(project, {"train": {"epochs": EPOCHS}, "snapshots": {"epochs": [1, EPOCHS]}})
    process = project.start(*words)
    wait_for("a checkpoint", lambda: checkpointed(project) or process.poll() is not None)
    process.send_signal(number)
    assert process.wait(60) == 130
    said = project.said
    assert "Traceback" not in said
    assert said.splitlines()[-1] == "eqcollapse train: interrupted; the same command goes on from here"
    assert checkpointed(project)
    assert not list(project.folder.rglob("*.partial"))
    again = project.run(*words)
    done = int(re.search(r"goes on after epoch (\d+)", again.stderr)[1])
    assert done >= 1
    told = [int(epoch) for epoch in re.findall(r"epoch (\d+)/", again.stderr)]
    assert told == list(range(1, EPOCHS + 1))  # those that were done, and then the others: none twice
    assert not checkpointed(project)


def test_a_cell_that_is_told_to_end_in_its_first_epoch_begins_anew(undisturbed, tmp_path):
    """Or before that: it is told as soon as torch is being loaded, which every cell starts with."""
    project = undisturbed.copy(tmp_path / "project")
    words = cell(project, {"train": {"epochs": EPOCHS}, "network": {"width": 512}})
    process = project.start(*words)
    wait_for("torch", lambda: b"libtorch" in maps(process.pid) or process.poll() is not None)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 130
    said = project.said.splitlines()[-1]
    assert said == "eqcollapse train: interrupted; no epoch is kept, so the same command begins anew"
    assert not checkpointed(project)


def maps(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/maps").read_bytes()
    except OSError:
        return b""


@full_only
def test_ctrl_c_at_snakemake(undisturbed, fresh):
    """What a terminal sends, to all of the group; the run says how to go on, and does.

    To a job that loads torch: in the first hundredths of a second Python itself would answer, with its traceback.
    """
    process = fresh.start("snakemake", "--cores", "2", "train")
    wait_for("a job", lambda: [pid for pid in descendants(process.pid) if _loads_torch(pid)])
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(120) != 0
    said = fresh.said
    assert "Traceback" not in said
    assert "the same command goes on from here" in said
    wait_for("the end of its jobs", lambda: not [pid for pid in everything() if str(fresh.folder) in where(pid)])
    fresh.snakemake()
    assert fresh.files() == undisturbed.files()


def _loads_torch(pid: int) -> bool:
    return b"eqcollapse\0train" in command(pid) and b"libtorch" in maps(pid)


def command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def everything() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def where(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return ""


LIMITED = """
import resource, sys
import torch
from eqcollapse.cli.main import main
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + (1 << 29),) * 2)
sys.exit(main(sys.argv[1:]))
"""


def test_a_cell_that_has_too_little_memory_says_so(undisturbed, tmp_path):
    """By a limit of the process': half a GiB more than torch takes to be loaded."""
    project = undisturbed.copy(tmp_path / "project")
    words = cell(project, {"network": {"width": 2048}})
    answer = project.run(sys.executable, "-c", LIMITED, *words[3:], check=False)
    said = [line for line in answer.stderr.splitlines() if line.startswith("eqcollapse train: ")]
    assert answer.returncode == 1
    assert "Traceback" not in answer.stderr
    assert len(said) == 1, answer.stderr[-3000:]
    assert "more memory is needed than this process may have" in said[0]


@full_only
def test_a_job_killed_outright_is_said_by_snakemake(undisturbed, fresh):
    """As the kernel kills for memory: the job cannot say anything itself."""
    process = fresh.start("snakemake", "--cores", "2", "train")
    training = wait_for("training", lambda: [pid for pid in descendants(process.pid) if TRAINING in command(pid)[:40]])
    os.kill(training[0], signal.SIGKILL)
    assert process.wait(300) == 1
    said = fresh.said
    assert "Error in rule cell" in said
    assert "was killed from outside, most often for memory" in said
    assert re.search(r"Killed +PYTHONPATH=src python -m eqcollapse train", said)
    time.sleep(1)
    fresh.snakemake()
    assert fresh.files() == undisturbed.files()
