"""Where each cell of a study stands, from files alone: nothing is written, locked or run, and torch is not loaded.

A cell is done when its record is there. It is running while the process that signed its lock lives; of a process on
another host nothing is sure, so that the time of its live history, which it touches every `BEAT` seconds, decides.
"""

import csv
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from eqcollapse.pipeline.failures import cause_in
from eqcollapse.provenance.records import stated
from eqcollapse.runtime import live_history, locks, processes
from eqcollapse.study.grid import Study
from eqcollapse.study.jobs import Job, log_path

CellState = Literal["waiting", "running", "stopped", "failed", "done"]
STATES: tuple[CellState, ...] = ("waiting", "running", "stopped", "failed", "done")
SILENCE = 150.0
"""Seconds without a sign of life after which a job of another host is taken for dead: some beats, and what a network's
file system may hold back."""
RECENT = 10
"""Epochs, at most, that the speed of a cell is the mean of."""
CHECKPOINTS = Path(".cache/checkpoints")
INTERRUPTED = ("eqcollapse train: interrupted", "KeyboardInterrupt")
"""How the line begins that ends the log of a job that was told to end."""


@dataclass(frozen=True)
class CellStatus:
    """Where one cell stands. What is not known yet is None.

    `epoch` of `epochs` have ended. `loss`, `test_accuracy`, `nc1` and `converged` (the lowest share of samples whose
    solve converged, of training and evaluation) are the latest known. `seconds_per_epoch` is the mean of the latest
    epochs; `seconds_left` until the last. `reason` says why it failed, or how it goes on; `log` is the job's log.
    """

    name: str
    dataset: str
    split: str
    model: str
    seed: int
    state: CellState
    epoch: int
    epochs: int
    loss: float | None
    test_accuracy: float | None
    nc1: float | None
    converged: float | None
    seconds_per_epoch: float | None
    seconds_left: float | None
    reason: str
    log: str


@dataclass(frozen=True)
class Look:
    """All cells at one time, and how many jobs of each stage are done, of how many.

    `seconds_left`: until the last cell is done, if as many run at a time as now; None where that is not known.
    `work_left`: the seconds that the cells would take one after the other.
    """

    cells: list[CellStatus]
    stages: dict[str, tuple[int, int]]
    seconds_left: float | None
    work_left: float | None

    @property
    def counts(self) -> dict[CellState, int]:
        """How many cells are in each state."""
        return {state: sum(cell.state == state for cell in self.cells) for state in STATES}

    @property
    def complete(self) -> bool:
        """Whether every job of the study is done."""
        return all(done == total for done, total in self.stages.values())


@dataclass
class Watch:
    """Looks at a study again and again, and reads anew only what has changed."""

    study: Study
    _read: dict[str, tuple[tuple[int, ...], Any]] = field(default_factory=dict)

    def look(self) -> Look:
        """Return where all cells stand now."""
        now = time.time()
        cells = [self._cell(job, now) for job in self.study.jobs["train"].values()]
        stages = {stage: (sum(map(self._is_made, jobs.values())), len(jobs))
                  for stage, jobs in self.study.jobs.items() if jobs}  # fmt: skip
        return Look(cells, stages, *_time_left(cells))

    def _cell(self, job: Job, now: float) -> CellStatus:
        spec: Any = job.spec  # a TrainSpec
        log, live = log_path(job.path, ".log"), log_path(job.path, ".csv")
        rows = self._cached(live, live_history.read, [])
        state, reason = self._state(job, rows, log, live, now)
        if state == "done":
            rows = [*rows[:-1], {**(rows[-1] if rows else {}), **self._cached(job.outputs[0], _last_row, {})}]
        paces = [row["seconds"] for row in rows[-RECENT:] if "seconds" in row]
        pace = sum(paces) / len(paces) if paces else None
        epoch = int(rows[-1].get("epoch", 0)) if rows else 0
        return CellStatus(
            name=job.path.partition("/runs/")[2].partition("@")[0],
            dataset=spec.dataset,
            split=spec.split,
            model=spec.model,
            seed=spec.seed,
            state=state,
            epoch=epoch,
            epochs=spec.train.epochs,
            loss=_latest(rows, "loss"),
            test_accuracy=_latest(rows, "test_accuracy"),
            nc1=_latest(rows, "nc1"),
            converged=_converged(rows),
            seconds_per_epoch=pace,
            seconds_left=pace * (spec.train.epochs - epoch) if pace and state in ("running", "stopped") else None,
            reason=reason,
            log=log,
        )

    def _state(self, job: Job, rows: list[dict[str, float]], log: str, live: str, now: float) -> tuple[CellState, str]:
        """Return the state of a cell, and the reason for it."""
        if self._is_made(job):
            return "done", ""
        if _is_running(job, live, now):
            return "running", ""
        if self._is_made(job):  # it has just ended
            return "done", ""
        cause = self._cached(log, cause_in, None)
        if cause and not cause.startswith(INTERRUPTED):
            return "failed", cause.removeprefix("eqcollapse train: ")
        if (CHECKPOINTS / f"{job.digest}.pt").exists():
            return "stopped", "goes on from its checkpoint"
        return ("stopped", "begins anew") if rows else ("waiting", "")

    def _is_made(self, job: Job) -> bool:
        """Return whether the record of `job` is there: under a fixed name, one that speaks of these settings."""
        if job.pinned:
            return os.path.exists(job.record)
        return self._cached(job.record, _digest, "") == job.digest

    def _cached(self, path: str, read: Any, absent: Any) -> Any:
        """Return what `read` makes of the file at `path`, read again when it has changed; `absent` if there is none."""
        try:
            status = os.stat(path)
        except OSError:
            self._read.pop(path, None)
            return absent
        version = (status.st_ino, status.st_size, status.st_mtime_ns)
        if path not in self._read or self._read[path][0] != version:
            self._read[path] = version, read(Path(path))
        return self._read[path][1]


def _is_running(job: Job, live: str, now: float) -> bool:
    maker = locks.maker(job.record)
    if maker is None or (maker and processes.is_dead(maker)):
        return False
    if maker and processes.is_alive(maker):
        return True
    return now - max(_modified(live), maker.get("written", 0.0)) < SILENCE


def _modified(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0


def _digest(record: Path) -> str:
    try:
        return stated(record).digest
    except (OSError, ValueError):
        return ""


def _last_row(history: Path) -> dict[str, float]:
    try:
        with open(history, newline="") as stream:
            *_, last = csv.DictReader(stream)
        return {name: float(value) for name, value in last.items() if value}
    except (OSError, ValueError, TypeError):
        return {}


def _latest(rows: list[dict[str, float]], name: str) -> float | None:
    return next((row[name] for row in reversed(rows) if name in row), None)


def _converged(rows: list[dict[str, float]]) -> float | None:
    shares = [value for name, value in rows[-1].items() if name.endswith("solver_converged")] if rows else []
    return min(shares, default=None)


def _time_left(cells: list[CellStatus]) -> tuple[float | None, float | None]:
    """Return the seconds until the last cell is done, and those of all that is to be trained, one after the other.

    A cell that has not begun takes what those take that are most like it. What failed is left out.
    """
    known = _paces(cells)
    left = []
    for cell in cells:
        if cell.state in ("waiting", "running", "stopped"):
            pace = cell.seconds_per_epoch or next((known[key] for key in _likeness(cell) if key in known), None)
            if pace is None:
                return None, None
            left.append((cell.epochs - cell.epoch) * pace)
    work, running = sum(left), [cell.seconds_left or 0.0 for cell in cells if cell.state == "running"]
    if not left:
        return 0.0, 0.0
    return max(work / len(running), *running) if running else None, work


def _paces(cells: Iterable[CellStatus]) -> dict[tuple[str, ...], float]:
    """Return the mean seconds of an epoch of the cells that are alike."""
    alike: dict[tuple[str, ...], list[float]] = {}
    for cell in cells:
        for key in _likeness(cell) if cell.seconds_per_epoch else ():
            alike.setdefault(key, []).append(cell.seconds_per_epoch or 0.0)
    return {key: sum(paces) / len(paces) for key, paces in alike.items()}


def _likeness(cell: CellStatus) -> Iterator[tuple[str, ...]]:
    """Yield what cells that take as long have in common, the most alike first."""
    yield cell.dataset, cell.split, cell.model
    yield cell.dataset, cell.model
    yield (cell.model,)
    yield ()
