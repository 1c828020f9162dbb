"""What a killed Snakemake left: jobs that go on in a Slurm queue, and marks that distrust whole files.

Snakemake does not find its jobs again: started anew, it would submit them a second time while the first still write.
"""

import base64
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from eqcollapse.pipeline.sweep import is_complete
from eqcollapse.runtime.errors import EqcollapseError
from eqcollapse.study.jobs import Job

JOBS = "eqcollapse_"
"""How the names of our jobs begin (slurm-jobname-prefix in profiles/slurm)."""
MARKS = Path(".snakemake/incomplete")
"""A file for each output of a job that began and did not come to its end, by the output's name in base64, which begins
a new folder wherever it would be longer than a file's name may be. Snakemake has no public way to ask for these, or to
drop them; tests/unit/pipeline/test_slurm.py holds this against what it writes."""
LOGS = Path("logs/slurm")
"""What a run on a cluster leaves (slurm-logdir in profiles/slurm)."""
PATIENCE = 90.0
"""Seconds to wait for cancelled jobs to end: Slurm kills what does not end by itself within its KillWait."""


def recover(patience: float = PATIENCE) -> bool:
    """End the jobs of dead runs in this folder, and trust what they wrote; only where no run is under way.

    A cell that is ended so goes on from its checkpoint. Returns whether there were such jobs; `EqcollapseError` where
    they do not end within `patience`.
    """
    ended = bool(shutil.which("squeue") and shutil.which("scancel")) and _end_jobs(patience)
    # A file that has its final name is whole (runtime/files.py), whatever became of the run that started its job.
    if MARKS.is_dir():
        shutil.rmtree(MARKS, ignore_errors=True)
    return ended


def trust(jobs: Iterable[Job]) -> None:
    """Drop the marks of those of `jobs` whose files are all there, the record, which comes last, with them.

    For who only looks, and where no run is under way: others' marks, and what is in a queue, are left alone.
    """
    marks = dict(_marks())
    for job in jobs if marks else ():
        marked = [marks[file] for file in job.files if file in marks]
        if marked and is_complete(job):
            for mark in marked:
                mark.unlink(missing_ok=True)


def _marks() -> Iterator[tuple[str, Path]]:
    """Yield each marked file and its mark."""
    for folder, _, names in os.walk(MARKS):
        for name in names:
            mark = Path(folder, name)
            try:
                encoded = "".join(part.removeprefix("@") for part in mark.relative_to(MARKS).parts)
                yield base64.urlsafe_b64decode(encoded).decode(), mark
            except ValueError:  # a note of another kind
                continue


def _end_jobs(patience: float) -> bool:
    end = time.monotonic() + patience
    jobs = _left()
    while jobs is None and LOGS.is_dir() and MARKS.is_dir():  # a run on a cluster was killed here: do not guess
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
