"""Nothing is moved under a run, and the lock of a dead one is dropped only if it is dead for sure."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from eqcollapse.pipeline import folder_lock, plan
from eqcollapse.pipeline.folder_lock import Guard, locked, note_owner, plans_under_way
from eqcollapse.runtime import processes

HOLD = "from eqcollapse.pipeline.folder_lock import Guard; g = Guard(); g.share(); print('held', flush=True); input()"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plan, "_HELD", [])
    monkeypatch.delenv(plan.PLAN, raising=False)
    return tmp_path


def lock() -> Path:
    path = Path(".snakemake/locks/0.output.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("results/x\n")
    return path


def note_and_die() -> Path:
    code = "import os; from eqcollapse.pipeline.folder_lock import note_owner; note_owner('plan-1.json'); os._exit(9)"
    subprocess.run([sys.executable, "-c", code], check=False)
    return next(Path(".snakemake/eqcollapse").glob("owner-*.json"))


def rewrite(note: Path, **change: object) -> None:
    note.write_text(json.dumps({**json.loads(note.read_text()), **change}))


def test_no_lock_is_no_lock():
    assert not locked()


def test_the_lock_of_a_live_run_stays():
    path = lock()
    note_owner("plan-1.json")
    assert locked()
    assert path.exists()
    assert str(os.getpid()) not in folder_lock.who_works()


def test_the_lock_of_a_dead_run_goes_with_its_note():
    note = note_and_die()
    path = lock()
    assert not locked()
    assert not path.exists()
    assert not note.exists()


def test_the_lock_that_a_live_run_may_hold_beside_a_dead_one_stays():
    note_and_die()
    lock()
    note_owner("plan-1.json")
    assert locked()


def test_the_note_of_a_dead_run_with_this_number_is_not_taken_for_this_runs():
    note_owner("plan-1.json")
    (mine,) = Path(".snakemake/eqcollapse").glob("owner-*.json")
    dead = {**json.loads(mine.read_text()), "started": "1"}
    mine.unlink()
    hidden = Path(f".snakemake/eqcollapse/owner-{dead['host']}-{dead['pid']}.json")  # as they once were called
    hidden.write_text(json.dumps(dead))
    note_owner("plan-1.json")
    lock()
    assert locked()


def test_a_lock_that_nobody_noted_stays():
    lock()
    assert locked()


@pytest.mark.parametrize(
    "change",
    [{"host": "elsewhere"}, {"machine": "other"}, {"processes": "pid:[1]"}, {"boot": ""}],
)
def test_of_a_run_elsewhere_nothing_is_sure(change):
    rewrite(note_and_die(), **change)
    lock()
    assert locked()


@pytest.mark.skipif(not processes.here()["machine"], reason="this machine has no id")
def test_a_run_before_the_machine_was_started_anew_is_dead():
    rewrite(note_and_die(), boot="before", written=booted() - 1)
    lock()
    assert not locked()


def booted() -> float:
    return time.time() - float(Path("/proc/uptime").read_text().split()[0])


@pytest.mark.skipif(not processes.here()["machine"], reason="this machine has no id")
def test_a_run_since_then_under_another_boot_is_a_twin_of_this_machine():
    """Of two nodes from one image, with one name and id, the other may live."""
    rewrite(note_and_die(), boot="of the other", written=booted() + 60)
    lock()
    assert locked()


def test_a_machine_that_does_not_say_when_it_was_started_is_sure_of_nothing(monkeypatch):
    rewrite(note_and_die(), boot="before", written=booted() - 60)
    monkeypatch.setattr(processes, "_said", lambda path: "" if path == "/proc/stat" else "known")
    lock()
    assert locked()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"written": "then"}'])
def test_a_note_that_cannot_be_read_is_of_somebody(text):
    note_and_die().write_text(text)
    lock()
    assert locked()


def test_a_note_goes_when_its_process_ends_well():
    subprocess.run(
        [sys.executable, "-c", "from eqcollapse.pipeline.folder_lock import note_owner; note_owner('plan-1.json')"],
        check=True,
    )
    assert not list(Path(".snakemake/eqcollapse").glob("owner-*.json"))


def test_the_plan_of_a_run_is_known_while_it_may_live():
    note = note_and_die()
    assert plans_under_way() == []
    rewrite(note, host="elsewhere", plan="plan-of-another-host.json", written=time.time() - 60)
    note_owner("plan-1.json")
    assert plans_under_way() == ["plan-of-another-host.json", "plan-1.json"]


def test_the_guard_goes_with_its_process():
    guard = Guard()
    other = subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout.readline() == b"held\n"
    assert not guard.alone(patience=0)
    other.kill()
    other.wait()
    assert guard.alone(patience=0)


def test_a_file_system_without_locks_does_without(monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(37, "No locks available")

    guard = Guard()
    monkeypatch.setattr(folder_lock.fcntl, "flock", refuse)
    assert guard.alone(patience=0)
    guard.share()


def test_a_job_that_parses_again_has_the_plan_of_its_run(content, monkeypatch):
    Path("params.yaml").write_text(yaml.safe_dump(content))
    study = plan.plan(content, files=["params.yaml"], is_main_process=True)
    assert os.environ[plan.PLAN].startswith(".snakemake/eqcollapse/plan-")
    content["train"]["lr"] = 0.01
    monkeypatch.setattr("eqcollapse.study.grid.code_digest", lambda _: "0" * 64)
    job = plan.plan(content, files=["params.yaml"], is_main_process=False)
    assert [each.path for each in job] == [each.path for each in study]
    cell = next(iter(study.jobs["train"]))
    assert job.command("train", cell) == study.command("train", cell)


def test_a_job_whose_plan_is_gone_says_so_in_one_line(content, monkeypatch, capsys):
    monkeypatch.setenv(plan.PLAN, ".snakemake/eqcollapse/plan-0000000000.json")

    def leave(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr(plan.os, "_exit", leave)
    with pytest.raises(SystemExit):
        plan.plan(content, files=["params.yaml"], is_main_process=False)
    assert capsys.readouterr().err.splitlines() == [
        ".snakemake/eqcollapse/plan-0000000000.json: the plan of the run that this job is of is gone: "
        "start the run again"
    ]
