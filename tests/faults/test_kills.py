"""SIGKILL at random moments: the same command goes on to the bytes of an undisturbed run, with nothing done by hand."""

import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter

import pytest

from hostile import draws, jobs, size
from projects import Project
from sites import wait_for

pytestmark = pytest.mark.faults

SNAKEMAKE = ("snakemake", "--cores", "2")
DVC = ("dvc", "repro")
LONGEST = 25.0
"""Seconds to the latest kill: a few jobs are done until then."""
PATIENCE = 600
"""Seconds that a command may take, or take to begin a job: what hangs fails the test."""


def kill(process: subprocess.Popen, what: str, draw: random.Random) -> bool:
    """Kill a job, the process alone, or all of its group; return whether there was something to kill."""
    if what == "job":
        wait_for("a job, or the end", lambda: jobs(process) or process.poll() is not None, PATIENCE)
        running = jobs(process)
        if not running:
            return False
        killed(draw.choice(running))
        process.wait(PATIENCE)
        return True
    if process.poll() is not None:
        return False
    (os.killpg if what == "group" else os.kill)(process.pid, signal.SIGKILL)
    process.wait(PATIENCE)
    return True


def killed(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def check_whole(project: Project, undisturbed: dict[str, bytes]) -> None:
    """Check that whatever has the name of a result has its bytes, and that nothing else is there."""
    for name, content in project.files().items():
        if not name.endswith((".partial", ".gitignore")):
            assert content == undisturbed.get(name), name


def start_anew(project: Project) -> None:
    for name in ("results", "resources", ".attic", ".cache"):
        shutil.rmtree(project.folder / name, ignore_errors=True)


def kill_and_go_on(
    project: Project, words: tuple[str, ...], what: str, number: int, draw: random.Random, whole: dict[str, bytes]
) -> Counter:
    """Kill `words` so many times, each time going on with the same; return how often what came to pass.

    A run that says that another one is under way here is asked again when what outlived its parent has ended.
    So many runs that are never killed (all completed, or told to wait) that this leads nowhere are a failure.
    """
    happened: Counter = Counter()
    while happened[what] < number:
        assert happened.total() < 4 * number + 20, happened
        begun = len(project.said)
        process = project.start(*words)
        try:
            code = process.wait(draw.uniform(0.3, LONGEST))
        except subprocess.TimeoutExpired:
            code = None if kill(process, what, draw) else process.wait(PATIENCE)
        check_whole(project, whole)
        if code is None:
            happened[what] += 1
        elif code == 0:
            happened["completed"] += 1
            start_anew(project)
        else:
            said = project.said[begun:]
            assert any(words in said for words in WAIT), said[-5000:]
            happened["told to wait"] += 1
            time.sleep(5)
    return happened


WAIT = ("is running here", "Unable to acquire lock")


def end(project: Project, words: tuple[str, ...]) -> None:
    """Run the command to its end; what outlived a killed one may have to end first."""
    for _ in range(20):
        if project.start(*words).wait(PATIENCE) == 0:
            return
        time.sleep(5)
    raise AssertionError(project.said[-5000:])


@pytest.mark.parametrize(
    ("words", "what", "number"),
    [
        (SNAKEMAKE, "process", size(30, 2)),
        *size([(SNAKEMAKE, "group", 30), (SNAKEMAKE, "job", 30), (DVC, "process", 10), (DVC, "group", 10)], []),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_kills(undisturbed, fresh, words, what, number):
    whole = undisturbed.files()
    happened = kill_and_go_on(fresh, words, what, number, draws(f"kills {words[0]} {what}"), whole)
    end(fresh, words)
    check_whole(fresh, whole)
    assert {file for file in fresh.files() if not file.endswith(".gitignore")} == set(whole)
    assert fresh.planned() == {}
    print(f"{words[0]}, {what} killed: {dict(happened)}")
