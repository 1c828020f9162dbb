"""The screen of `watch` fits the terminal and says what there is to say; the study shown is the one that runs."""

import io
import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from eqcollapse.cli import watch as command
from eqcollapse.cli.main import main, new_parser
from eqcollapse.cli.watch_screen import MARKS, duration, screen
from eqcollapse.pipeline import plan
from eqcollapse.pipeline.cells import CellState, CellStatus, Look
from eqcollapse.runtime import locks
from eqcollapse.study.grid import Study
from eqcollapse.study.params import parse
from projects import ROOT

REASON = "cell digits/ka3-r10/deq/seed-0 diverged in epoch 4: loss nan; try a smaller train.lr (it is 0.1) [not markup]"


def cell(
    state: CellState, number: int = 0, *, known: bool = True, reason: str = "", split: str = "ka3-r100"
) -> CellStatus:
    measured = {"loss": 0.123, "test_accuracy": 0.98, "nc1": 0.5, "converged": 0.999, "seconds_per_epoch": 3.2}
    return CellStatus(
        name=f"digits/{split}/explicit/seed-{number}",
        dataset="digits",
        split=split,
        model="explicit",
        seed=number,
        state=state,
        epoch=120 if known else 0,
        epochs=350,
        seconds_left=736.0 if state == "running" else None,
        reason=reason,
        log="logs/train/x.log",
        **(measured if known else dict.fromkeys(measured)),
    )


def look(*cells: CellStatus, left: float | None = 4210.0) -> Look:
    return Look(list(cells), {"data": (1, 1), "train": (0, len(cells)), "figure": (0, 17)}, left, left)


def lines(shown: Look, width: int, height: int | None = None, study: str = "params.yaml") -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, record=True)
    console.print(screen(shown, study, width=width, height=height))
    return [line.rstrip() for line in console.export_text().rstrip("\n").split("\n")]


@pytest.fixture
def every() -> Look:
    """A cell in each state."""
    states = [cell(state, number, known=state != "waiting") for number, state in enumerate(MARKS) if state != "failed"]
    return look(cell("failed", 9, reason=REASON), *states)


@pytest.mark.parametrize("width", [80, 140])
def test_each_cell_has_a_line_with_its_numbers(every, width):
    shown = lines(every, width)
    (running,) = [line for line in shown if line.startswith("▶") and "ka3" in line]
    assert ("running" in running) == (width >= 110)
    assert running.split()[-8:] == ["120/350", "0.123", "98.0", "0.500", "99.9", "0.312", "12", "min"]
    assert all(any(line.startswith(mark) and "ka3-r100" in line for line in shown) for mark, _ in MARKS.values())
    assert max(map(len, shown)) <= width


@pytest.mark.parametrize("width", [80, 140])
def test_the_reason_of_a_failure_is_there_in_full(every, width):
    shown = lines(every, width)
    start = shown.index("✗ digits/ka3-r100/explicit/seed-9")
    assert " ".join(" ".join(shown[start + 1 :]).split()).startswith(f"{REASON} logs/train/x.log")


@pytest.mark.parametrize(("width", "height"), [(80, 24), (140, 50), (60, 16)])
@pytest.mark.parametrize("failed", [0, 20])
def test_two_hundred_cells_fit_the_terminal(width, height, failed):
    cells = [cell("failed", n, reason=REASON) for n in range(failed)] + [cell("running", n) for n in range(100)]
    cells += [cell("waiting", n, known=False) for n in range(100 - failed)]
    shown = lines(look(*cells), width, height)
    assert len(shown) <= height or (failed and height < 20)  # a reason is not cut
    assert any(line.startswith("  and ") and "waiting" in line for line in shown)
    assert sum(line.startswith("✗ digits/") for line in shown) <= 4
    assert max(map(len, shown)) <= width


def test_what_runs_comes_first_and_what_waits_last():
    cells = [cell("waiting", 0, known=False), cell("done", 1), cell("running", 2), cell("stopped", 3)]
    marks = [line[0] for line in lines(look(*cells), 80) if "ka3-r100" in line]
    assert marks == ["▶", "■", "✓", "·"]


def test_data_sets_are_named_where_there_are_several():
    one, other = cell("done"), cell("done", 1)
    assert not any(" data " in line and "split" in line for line in lines(look(one), 80))
    several = lines(look(one, CellStatus(**{**vars(other), "dataset": "mnist"})), 80)
    assert any(line.split()[:2] == ["data", "split"] for line in several)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 s"), (59, "59 s"), (90, "2 min"), (3599, "60 min"), (4210, "1 h 10"), (300_000, "3 d 11 h")],
)
def test_durations_are_short(seconds, said):
    assert duration(seconds) == said


@pytest.fixture
def folder(tmp_path, monkeypatch, content) -> Path:
    """A folder with a params.yaml of four cells."""
    monkeypatch.chdir(tmp_path)
    content["experiments"] = {"a": content["experiments"]["a"] | {"splits": ["balanced"], "seeds": [0, 1]}}
    content["theory"] = {}
    Path("params.yaml").write_text(yaml.safe_dump(content))
    return tmp_path


def source(*words: str) -> command.ShownStudy:
    return command.ShownStudy(new_parser().parse_args(["watch", *words]))


def cells_of(shown: command.ShownStudy) -> int:
    return len(shown.watch().study.jobs["train"])


def test_the_study_is_that_of_the_files_and_follows_them(folder, content):
    Path("preset.yaml").write_text("experiments: {a: {seeds: [0]}}\n")
    assert (cells_of(source()), cells_of(source("--configfile", "preset.yaml"))) == (4, 2)
    shown = source()
    first = shown.watch()
    assert shown.watch() is first
    content["experiments"]["a"]["seeds"] = [0, 1, 2]
    Path("params.yaml").write_text(yaml.safe_dump(content))
    assert cells_of(shown) == 6
    Path("params.yaml").write_text("{")
    assert cells_of(shown) == 6  # while it is edited
    assert "params.yaml" in shown.name


def test_a_study_that_cannot_be_planned_is_one_line(folder, capsys):
    Path("params.yaml").write_text("{")
    assert main(["watch", "--once"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_study_of_the_run_under_way_comes_first(folder, content):
    shown = source()
    assert (cells_of(shown), shown.name) == (4, "params.yaml")
    content["experiments"]["a"]["seeds"] = [5]
    study = Study(parse(content))  # as --config would have it
    locks.hold_folder(plan.freeze(content, study))
    try:
        assert (cells_of(shown), shown.name) == (2, "the run under way")
        assert list(shown.watch().study.jobs["train"]) == list(study.jobs["train"])
        assert cells_of(source("--config", json.dumps(content))) == 2
    finally:
        locks.release_folder()
    assert (cells_of(shown), shown.name) == (4, "params.yaml")


def test_json_is_for_programs(folder, capsys):
    assert main(["watch", "--json"]) == 0
    seen = json.loads(capsys.readouterr().out)
    assert seen["format"] == command.FORMAT
    assert [one["state"] for one in seen["cells"]] == ["waiting"] * 4
    assert seen["counts"]["waiting"] == 4
    assert seen["stages"]["train"] == {"done": 0, "total": 4}
    assert not seen["complete"]


def test_without_a_terminal_it_is_printed_once(folder, capsys):
    assert main(["watch"]) == 0
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert said.count("· 4 waiting") == 1


def test_on_a_terminal_it_is_live_until_it_is_told_to_end(folder):
    above, below = pty.openpty()
    terminal = {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"}
    variables = {**os.environ, "PYTHONPATH": str(ROOT / "src"), **terminal}
    process = subprocess.Popen(
        [sys.executable, "-m", "eqcollapse", "watch", "--every", "0.1"], stdin=below, stdout=below, stderr=below,
        env=variables, start_new_session=True,
    )  # fmt: skip
    os.close(below)
    said, end = b"", time.monotonic() + 60
    while said.count(b"4 waiting") < 3 and time.monotonic() < end:
        said += os.read(above, 65536)
    process.send_signal(signal.SIGINT)
    while chunk := _read(above):
        said += chunk
    assert process.wait(30) == 0
    assert said.startswith(b"\x1b[?1049h")  # another screen, so that what was there comes back
    assert b"\x1b[?1049l" in said
    assert b"Traceback" not in said
    assert said.rpartition(b"\x1b[?1049l")[2].count(b"4 waiting") == 1  # which stays


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # the other end is closed
        return b""
