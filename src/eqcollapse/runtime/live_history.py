"""The live history of a cell: a CSV file to which its job adds each epoch, for people and programs that watch it.

It is a log, not a result: it may be missing, or end in half a line.
"""

import csv
import io
import math
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from eqcollapse.runtime.files import write_text

COLUMNS = (
    "epoch",
    "seconds",
    "lr",
    "loss",
    "train_accuracy",
    "test_accuracy",
    "validation_accuracy",
    "nc1",
    "solver_steps",
    "solver_residual",
    "solver_converged",
    "train_solver_converged",
    "test_solver_converged",
    "validation_solver_converged",
    "adjoint_converged",
)
"""Of each row. `seconds`: of the epoch with its evaluation; `nc1`: of the training features, where those are kept."""
BEAT = 20.0
"""Seconds after which a job that lives touches its file again, however long its epochs are."""


def begin(path: Path, history: Iterable[Mapping[str, Any]]) -> None:
    """Have the file at `path` hold the epochs of `history` and no others; of rows that are there, all is kept."""
    there = {row["epoch"]: row for row in read(path)}
    rows = [{**there.get(epoch["epoch"], {}), **epoch} for epoch in history]
    write_text(path, _lines([dict(zip(COLUMNS, COLUMNS, strict=True)), *rows]))


def append(path: Path, row: Mapping[str, Any]) -> None:
    """Add an epoch to the file at `path`, in one piece."""
    with open(path, "ab", buffering=0) as stream:
        stream.write(_lines([row]).encode())


def read(path: Path) -> list[dict[str, float]]:
    """Return the epochs of the file at `path` in order, each once and without its empty fields; [] if there is none."""
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return []
    whole = text[: text.rfind("\n") + 1]  # without what a kill or a full disk cut short
    rows = {}
    with suppress(csv.Error):
        for fields in csv.DictReader(io.StringIO(whole)):
            with suppress(ValueError, TypeError):
                row = {name: float(value) for name, value in fields.items() if value}
                row = {name: value for name, value in row.items() if math.isfinite(value)}
                if row.get("epoch", 0) >= 1:
                    rows[row["epoch"]] = row
    return [rows[epoch] for epoch in sorted(rows)]


@contextmanager
def beating(path: Path, every: float = BEAT) -> Iterator[None]:
    """Touch the file at `path` now and then, so that another host sees that the process lives."""
    end = threading.Event()

    def beat() -> None:
        while not end.wait(every):
            with suppress(OSError):
                os.utime(path)

    threading.Thread(target=beat, daemon=True, name="live history").start()
    try:
        yield
    finally:
        end.set()


def _lines(rows: Iterable[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writerows({name: "" if _is_nan(value) else value for name, value in row.items()} for row in rows)
    return text.getvalue()


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)
