"""`watch` tells the state of each cell of a real run: begun, failed, killed, taken up again, ended."""

import json
import os
import signal
import time
from collections.abc import Callable

import pytest

from projects import Project

pytestmark = pytest.mark.workflow

EPOCHS = 150
LONG, BAD = "digits/balanced/long/seed-0", "digits/balanced/bad/seed-0"
PATIENCE = 600.0


@pytest.fixture
def study(project) -> Project:
    """A study of two cells: one that trains for a while, and one that diverges."""
    head = {"network": {"head": "explicit"}}
    explode = {"lr": 1e9, "schedule": {"kind": "constant", "warmup": 0}}
    project.edit({
        "theory": None,
        "models": {
            "only": ["long", "bad"],
            "long": {**head, "train": {"epochs": EPOCHS}},
            "bad": {**head, "train": explode},
        },
        "experiments": {"a": {"splits": ["balanced"], "models": ["long", "bad"], "report": "none"}},
    })  # fmt: skip
    return project


def watch(project: Project, *words: str) -> dict:
    return json.loads(project.run("python", "-m", "eqcollapse", "watch", "--json", *words).stdout)


def states(seen: dict) -> dict[str, str]:
    return {cell["name"]: cell["state"] for cell in seen["cells"]}


def cell(seen: dict, name: str) -> dict:
    return next(each for each in seen["cells"] if each["name"] == name)


def until(project: Project, condition: Callable[[dict], bool]) -> dict:
    """Return what `watch` sees once `condition` holds."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if condition(seen := watch(project)):
            return seen
    raise AssertionError(f"{states(seen)}\n{project.said[-3000:]}")


def test_each_state_of_a_run_that_fails_is_killed_and_goes_on(study):
    seen = watch(study)
    assert states(seen) == {LONG: "waiting", BAD: "waiting"}
    assert seen["study"] == "params.yaml"
    assert seen["seconds_left"] is None

    words = ("snakemake", "--cores", "2", "train")
    first = study.start(*words)
    seen = until(study, lambda seen: cell(seen, BAD)["state"] == "failed" and cell(seen, LONG)["epoch"] > 1)
    assert seen["study"] == "the run under way"
    assert states(seen) == {LONG: "running", BAD: "failed"}
    assert "diverged in epoch 1" in cell(seen, BAD)["reason"]
    running = cell(seen, LONG)
    assert 1 < running["epoch"] < EPOCHS
    assert running["seconds_left"] == pytest.approx((EPOCHS - running["epoch"]) * running["seconds_per_epoch"])
    assert seen["seconds_left"] == seen["work_left"] == running["seconds_left"]
    assert running["nc1"] > 0
    assert 0 < running["test_accuracy"] <= 1

    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    seen = watch(study)
    assert states(seen) == {LONG: "stopped", BAD: "failed"}
    stopped = cell(seen, LONG)
    assert stopped["reason"] == "goes on from its checkpoint"
    assert running["epoch"] <= stopped["epoch"] < EPOCHS
    assert (seen["study"], seen["seconds_left"]) == ("params.yaml", None)

    second = study.start(*words)
    seen = until(study, lambda seen: cell(seen, LONG)["state"] == "running" and cell(seen, LONG)["epoch"] > 1)
    assert second.wait(PATIENCE) != 0  # of the one that diverges
    seen = watch(study)
    assert states(seen) == {LONG: "done", BAD: "failed"}
    assert cell(seen, LONG)["epoch"] == EPOCHS
    assert seen["stages"]["train"] == {"done": 1, "total": 2}
    (live,) = (study.folder / "logs/train").rglob("long/*.csv")
    assert [row.split(",")[0] for row in live.read_text().splitlines()[1:]] == [str(n) for n in range(1, EPOCHS + 1)]
    (log,) = (study.folder / "logs/train").rglob("long/*.log")
    assert "\r" not in log.read_text()


def test_a_run_of_a_preset_is_shown_without_its_options(study, tmp_path):
    preset = tmp_path / "preset.yaml"
    preset.write_text("experiments: {a: {models: [long]}}\n")
    assert set(states(watch(study, "--configfile", str(preset)))) == {LONG}
    run = study.start("snakemake", "--cores", "1", "train", "--configfile", str(preset))
    try:
        seen = until(study, lambda seen: seen["study"] == "the run under way")
        assert set(states(seen)) == {LONG}
    finally:
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    assert set(states(watch(study))) == {LONG, BAD}


def test_a_run_under_dvc_is_shown(study):
    study.commit("two cells")
    run = study.start("dvc", "repro", "train")
    try:
        seen = until(study, lambda seen: cell(seen, LONG)["state"] == "running" and cell(seen, LONG)["epoch"] > 0)
        assert seen["study"] == "the run under way"
    finally:
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    assert states(watch(study))[LONG] == "stopped"
