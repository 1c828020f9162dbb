"""The live history keeps each epoch once, whatever became of the job that wrote it."""

import os
import time

import pytest

from eqcollapse.runtime import live_history
from eqcollapse.runtime.live_history import append, beating, begin, read


def epoch(number: int, **more: float) -> dict:
    return {"epoch": number, "lr": 0.1, "loss": 1 / number, **more}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "logs" / "seed-0.csv"


def test_epochs_come_back_as_they_were_added(path):
    begin(path, [])
    rows = [epoch(1, seconds=0.5, nc1=2.0), epoch(2, seconds=0.25, solver_converged=0.99)]
    for row in rows:
        append(path, {**row, "unknown": 3, "test_accuracy": float("nan")})
    assert read(path) == rows
    assert path.read_text().splitlines()[0] == ",".join(live_history.COLUMNS)


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_a_job_that_goes_on_has_no_epoch_twice(path, kept):
    begin(path, [])
    for number in (1, 2, 3):
        append(path, epoch(number, seconds=number, nc1=number))
    begin(path, [epoch(number) for number in range(1, kept + 1)])
    for number in range(kept + 1, 5):
        append(path, epoch(number, seconds=10))
    assert [row["epoch"] for row in read(path)] == [1, 2, 3, 4]
    assert [row["seconds"] for row in read(path)] == [*range(1, kept + 1), *[10] * (4 - kept)]
    assert [row["epoch"] for row in read(path) if "nc1" in row] == list(range(1, kept + 1))


def test_what_was_lost_is_written_again_from_the_history(path):
    begin(path, [epoch(1), epoch(2)])
    assert read(path) == [epoch(1), epoch(2)]
    assert path.read_text().splitlines()[1].startswith("1,")


def test_of_an_epoch_that_two_jobs_wrote_the_later_counts(path):
    begin(path, [])
    append(path, epoch(1, seconds=1))
    append(path, epoch(1, seconds=2))
    assert read(path) == [epoch(1, seconds=2)]


@pytest.mark.parametrize(
    "tail", ["2,0.1", "2,0.1,x,y\n", "\0\n", "nan\n", "2" + "," * 400 + "\n", '"' * 200_000 + "\n"]
)
def test_what_is_no_whole_epoch_is_passed_over(path, tail):
    begin(path, [])
    append(path, epoch(1))
    with open(path, "a") as stream:
        stream.write(tail)
    assert read(path) == [epoch(1)]


def test_a_missing_or_empty_file_has_no_epochs(path):
    assert read(path) == []
    path.parent.mkdir()
    path.write_text("")
    assert read(path) == []


def test_a_job_that_lives_touches_its_file(path):
    begin(path, [])
    os.utime(path, (0, 0))
    with beating(path, every=0.01):
        end = time.monotonic() + 10
        while path.stat().st_mtime == 0 and time.monotonic() < end:
            time.sleep(0.01)
    assert path.stat().st_mtime > 0
