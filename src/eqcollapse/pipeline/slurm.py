"""What a killed Snakemake left: jobs that go on in a Slurm queue.

Snakemake does not find its jobs again: started anew, it would submit them a second time while the first still write.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from eqcollapse.runtime.errors import EqcollapseError

JOBS = "eqcollapse_"
"""How the names of our jobs begin (slurm-jobname-prefix in profiles/slurm)."""
MARKS = Path(".snakemake/incomplete")
"""Where Snakemake has a file for each output of a job that began and did not come to its end."""
LOGS = Path("logs/slurm")
"""What a run on a cluster leaves (slurm-logdir in profiles/slurm)."""
PATIENCE = 90.0
"""Seconds to wait for cancelled jobs to end: Slurm kills what does not end by itself within its KillWait."""


def recover(patience: float = PATIENCE) -> bool:
    """End the jobs of dead runs in this folder; only where no run is under way.

    A cell that is ended so goes on from its checkpoint. Returns whether there were such jobs; `EqcollapseError` where
    they do not end within `patience`.
    """
    ended = bool(shutil.which("squeue") and shutil.which("scancel")) and _end_jobs(patience)
    shutil.rmtree(MARKS, ignore_errors=True)
    return ended


def _end_jobs(patience: float) -> bool:
    end = time.monotonic() + patience
    jobs = _left()
    while jobs is None and LOGS.is_dir() and any(MARKS.glob("*")):  # a run on a cluster was killed here: do not guess
        if time.monotonic() > end:
            raise EqcollapseError(
                "squeue does not answer whether jobs of a killed run here still live: start again when it does "
                f"(or, where you know that none does, remove {MARKS})"
            )
        time.sleep(1)
        jobs = _left()
    if not jobs:
        return False
    print(f"Cancelling the jobs that a killed run left in the queue: {' '.join(jobs)}", file=sys.stderr)
    _answer("scancel", *jobs)
    while (left := _left()) is None or left:
        if time.monotonic() > end:
            raise EqcollapseError(
                f"Slurm jobs {' '.join(left or jobs)} of a killed run here do not end: `scancel` them, and start again"
            )
        time.sleep(1)
    return True


def _left() -> list[str] | None:
    """Return the ids of this folder's jobs in the queue (an ended one that Slurm remembers is not in it); None where
    squeue does not answer.
    """
    queue = _answer("squeue", "--noheader", "--me", "--format=%A %j %Z")
    if queue is None:
        return None
    here = os.getcwd()
    found = []
    for line in queue.splitlines():
        job, _, rest = line.strip().partition(" ")
        name, _, folder = rest.partition(" ")
        if name.startswith(JOBS) and folder == here and job != os.environ.get("SLURM_JOB_ID"):
            found.append(job)
    return sorted(set(found))


def _answer(*words: str) -> str | None:
    """Return what a command of Slurm's says; None where it fails."""
    try:
        return subprocess.run(words, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
