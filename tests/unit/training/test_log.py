"""What training says while it runs: whole, readable without a terminal, and without a trace in the results."""

import csv
import importlib.util
import time

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from eqcollapse.runtime import live_history
from eqcollapse.runtime.errors import EqcollapseError
from eqcollapse.training import checkpoints
from eqcollapse.training.config import TrainSpec
from eqcollapse.training.job import run
from eqcollapse.training.log import TrainingLog

OUTPUTS = ("history.csv", "snapshots.safetensors", "features.safetensors", "model.safetensors")


def trained(spec, files, folder, **places) -> dict[str, bytes]:
    places = {"device": "cpu", "checkpoint": folder / "checkpoint.pt"} | places
    outputs = [str(folder / name) for name in OUTPUTS]
    run(TrainSpec.model_validate(spec), list(map(str, files)), outputs, **places)
    return {name: (folder / name).read_bytes() for name in OUTPUTS}


def history(folder) -> list[dict[str, float]]:
    with open(folder / "history.csv", newline="") as stream:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(stream)]


def test_the_live_history_has_the_numbers_of_the_history(spec, files, tmp_path):
    began = time.monotonic()
    trained(spec, files, tmp_path, live=tmp_path / "live.csv")
    taken = time.monotonic() - began
    rows = live_history.read(tmp_path / "live.csv")
    seconds = [row.pop("seconds") for row in rows]
    assert 0 < sum(seconds) < taken
    assert [row["epoch"] for row in rows if row.pop("nc1", None)] == spec["snapshots"]["epochs"]
    assert rows == [
        {name: value for name, value in row.items() if name in live_history.COLUMNS} for row in history(tmp_path)
    ]


def test_nc1_is_that_of_the_training_features(spec, files, tmp_path):
    """Against Tr(S_W S_B^+) / K by numpy's pseudo-inverse, of all training features after the last epoch."""
    spec["snapshots"]["features_per_class"] = 1000
    trained(spec, files, tmp_path, live=tmp_path / "live.csv")
    kept = load_file(tmp_path / "features.safetensors")
    H, y = kept["train/features"].astype(np.float64), kept["train/labels"]
    means = np.stack([H[y == k].mean(axis=0) for k in range(3)])
    within = sum(np.cov(H[y == k].T, bias=True) * (y == k).sum() for k in range(3)) / len(y)
    centred = means - means.mean(axis=0)
    between = centred.T @ centred / 3
    expected = np.trace(within @ np.linalg.pinv(between, rcond=1e-10)) / 3
    assert live_history.read(tmp_path / "live.csv")[-1]["nc1"] == pytest.approx(expected, rel=1e-4)


def test_logs_change_no_byte_of_a_result(spec, files, tmp_path):
    plain = trained(spec, files, tmp_path / "plain")
    assert trained(spec, files, tmp_path / "logged", live=tmp_path / "live.csv") == plain


def test_a_job_that_goes_on_adds_the_epochs_after_its_checkpoint(spec, files, tmp_path, monkeypatch, capsys):
    live = tmp_path / "live.csv"
    monkeypatch.setattr(checkpoints, "EVERY", 0.0)
    append = live_history.append

    def append_then_die(path, row):
        append(path, row)
        if row["epoch"] == 3:
            raise RuntimeError("killed between the live history and the checkpoint")

    monkeypatch.setattr(live_history, "append", append_then_die)
    with pytest.raises(RuntimeError, match="killed"):
        trained(spec, files, tmp_path, live=live)
    before = live_history.read(live)
    assert [row["epoch"] for row in before] == [1, 2, 3]
    monkeypatch.setattr(live_history, "append", append)
    trained(spec, files, tmp_path, live=live)
    assert "goes on after epoch 2" in capsys.readouterr().err
    rows = live_history.read(live)
    assert len(live.read_text().splitlines()) == 1 + 4
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert rows[:2] == before[:2]


def test_a_log_that_is_no_terminal_has_lines_alone(spec, files, tmp_path, capsys):
    trained(spec, files, tmp_path)
    said = capsys.readouterr().err
    assert "\r" not in said
    assert "it/s" not in said
    assert [line.startswith("noise/ka1-r2/deq/seed-0: epoch ") for line in said.splitlines()] == [True] * 4


def test_a_live_history_that_cannot_be_written_ends_no_training(spec, files, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    trained(spec, files, tmp_path, live=tmp_path / "file" / "live.csv")
    assert "training goes on without it" in capsys.readouterr().err
    assert len(history(tmp_path)) == 4


def test_a_disk_that_is_full_later_ends_no_training(spec, files, tmp_path, capsys, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(live_history, "append", full)
    trained(spec, files, tmp_path, live=tmp_path / "live.csv")
    assert capsys.readouterr().err.count("training goes on without it") == 1


def test_event_files_without_tensorboard_are_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    with TrainingLog(tensorboard=tmp_path) as said, pytest.raises(EqcollapseError) as error:
        said.begin("cell", 1, 1, [])
    assert "\n" not in str(error.value)
    assert "pip install 'tensorboard" in str(error.value)


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed")
def test_event_files_hold_the_live_history_and_change_no_result(spec, files, tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    plain = trained(spec, files, tmp_path / "plain")
    monkeypatch.setattr(checkpoints, "EVERY", 0.0)
    places = {"live": tmp_path / "live.csv", "tensorboard": tmp_path / "events"}
    step, steps = torch.optim.SGD.step, []

    def step_or_end(optimizer, *arguments):
        step(optimizer, *arguments)
        steps.append(optimizer)
        if len(steps) == 8:  # three batches an epoch
            raise KeyboardInterrupt

    monkeypatch.setattr(torch.optim.SGD, "step", step_or_end)
    with pytest.raises(KeyboardInterrupt):
        trained(spec, files, tmp_path / "logged", **places)
    assert trained(spec, files, tmp_path / "logged", **places) == plain
    events = EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    rows = live_history.read(tmp_path / "live.csv")
    assert set(events.Tags()["scalars"]) >= {"loss", "nc1", "test_accuracy", "solver_converged"}
    for name in ("loss", "nc1", "test_accuracy"):
        held = [(event.step, event.value) for event in events.Scalars(name)]
        assert held == [(row["epoch"], pytest.approx(row[name], rel=1e-6)) for row in rows if name in row]


def test_the_line_of_an_epoch_has_its_numbers(capsys):
    said = TrainingLog()
    said.begin("cell", 9, 1, [{"epoch": 1, "loss": 0.5}])
    said.row({"epoch": 2, "loss": 0.25, "test_accuracy": 0.5, "solver_steps": 7.0, "solver_converged": 0.99})
    assert capsys.readouterr().err.splitlines() == [
        "cell: epoch 1/9, loss 0.5",
        "cell: goes on after epoch 1",
        "cell: epoch 2/9, loss 0.25, test accuracy 0.5000, solver 7.0 steps, 99.0% converged",
    ]


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed")
def test_event_files_that_cannot_be_written_end_no_training(spec, files, tmp_path, capsys, monkeypatch):
    from torch.utils.tensorboard import SummaryWriter

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SummaryWriter, "flush", full)
    monkeypatch.setattr(SummaryWriter, "close", full)
    trained(spec, files, tmp_path, tensorboard=tmp_path / "events")
    assert capsys.readouterr().err.count("training goes on without event files") == 1
