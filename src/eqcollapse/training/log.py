"""What the job of a cell says while it trains: lines, a bar on a terminal, the live history, TensorBoard's files.

None of it is a result, and nothing here is in a result's digest (study/fingerprint.py).
"""

import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from eqcollapse.collapse.metrics import collapse_metrics
from eqcollapse.collapse.moments import Moments
from eqcollapse.runtime import live_history
from eqcollapse.runtime.errors import EqcollapseError

MOMENTS = "/features/"
"""In the name of a snapshot's tensor: a moment of the features that W reads."""


class TrainingLog:
    """Takes what a cell has to say, from `begin` to the end of the context; without one, it says lines only.

    `history` is the file of the live history, `tensorboard` the folder of the cell's event files; None: without.
    """

    def __init__(self, history: Path | None = None, tensorboard: Path | None = None):
        self._path = history
        self._folder = tensorboard
        self._events: Any = None
        self._bar: tqdm | None = None
        self._epochs = 0
        self._name = ""
        self._since = time.monotonic()
        self._open = ExitStack()

    def __enter__(self) -> "TrainingLog":
        return self

    def __exit__(self, *about: object) -> None:
        self._open.close()

    def begin(self, name: str, epochs: int, batches: int, history: list[dict]) -> None:
        """Begin the log of the cell `name`, whose `epochs` have so many `batches` each, after the epochs of `history`.

        The log of an earlier job is gone, as Snakemake begins each anew: its lines are written again.
        """
        self._name, self._epochs = name, epochs
        done = len(history)
        self._bar = self._open.enter_context(
            tqdm(desc=name, total=epochs * batches, initial=done * batches, unit="batch", mininterval=1, disable=None)
        )
        for row in history:
            self.row(row)
        if done:
            self.say(f"{name}: goes on after epoch {done}")
        if self._folder is not None:
            self._events = _writer(self._folder, done)
            self._open.callback(self._close_events)
        self._write_begin(history)
        self._since = time.monotonic()

    def batch(self) -> None:
        """Take note of a batch."""
        if self._bar is not None:
            self._bar.update()

    def say(self, line: str) -> None:
        """Write a line."""
        tqdm.write(line, file=sys.stderr)

    def row(self, row: Mapping[str, Any]) -> None:
        """Write the line of an epoch, whose row of the history is `row`."""
        solver = ""
        if "solver_converged" in row:
            solver = f", solver {row['solver_steps']:.1f} steps, {row['solver_converged']:.1%} converged"
        accuracy = f", test accuracy {row['test_accuracy']:.4f}" if "test_accuracy" in row else ""
        self.say(f"{self._name}: epoch {row['epoch']}/{self._epochs}, loss {row['loss']:.4g}{accuracy}{solver}")

    def epoch(self, row: Mapping[str, Any], snapshot: Mapping[str, Tensor]) -> None:
        """Take an epoch that has ended: its row of the history, and the tensors of its snapshot, if it has one."""
        now = time.monotonic()
        measured = {"nc1": nc1(snapshot)} if snapshot else {}
        row = {**row, "seconds": round(now - self._since, 3), **measured}
        self._since = now
        if self._path is not None:
            try:
                live_history.append(self._path, row)
            except OSError as error:
                self._do_without(error)
        if self._events is not None:
            try:
                _add(self._events, row)
            except OSError as error:
                self.say(f"warning: {self._folder}: cannot be written ({error}); training goes on without event files")
                self._close_events()

    def _close_events(self) -> None:
        events, self._events = self._events, None
        with suppress(OSError):  # a full disk, which is no reason for training to end either
            if events is not None:
                events.close()

    def _write_begin(self, history: Iterable[Mapping[str, Any]]) -> None:
        if self._path is None:
            return
        try:
            live_history.begin(self._path, history)
            self._open.enter_context(live_history.beating(self._path))
        except (OSError, EqcollapseError) as error:
            self._do_without(error)

    def _do_without(self, error: Exception) -> None:
        """Go on without the live history: it is no reason for training to end."""
        self.say(f"warning: {self._path}: cannot be written ({error}); training goes on without it")
        self._path = None


def nc1(snapshot: Mapping[str, Tensor]) -> float:
    """Return NC1 of a snapshot's training features, Tr(S_W S_B^+) / K: paper A's."""
    moments = {name.partition(MOMENTS)[2]: value for name, value in snapshot.items() if MOMENTS in name}
    return collapse_metrics(Moments.from_tensors(moments), preset="sun2024")["nc1"]


def _writer(folder: Path, done: int) -> Any:
    """Return what writes event files to `folder`; those of epochs after `done`, of a job that was killed, are void."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise EqcollapseError(
            "log.tensorboard: true needs the package tensorboard, which is not installed where this job runs: "
            "pip install 'tensorboard>=2.18' there, or set it to false"
        ) from None
    return SummaryWriter(str(folder), purge_step=done + 1 if done else None, flush_secs=30)


def _add(events: Any, row: Mapping[str, Any]) -> None:
    for name, value in row.items():
        if name != "epoch":
            events.add_scalar(name, float(value), row["epoch"])
    events.flush()
