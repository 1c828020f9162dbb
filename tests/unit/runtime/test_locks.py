"""Of two jobs with one result the later waits for the earlier, and has nothing to do if that has made it."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from eqcollapse.pipeline.sweep import pending, put_in_order
from eqcollapse.provenance.records import is_whole
from eqcollapse.runtime import locks, processes
from eqcollapse.runtime.errors import EqcollapseError
from eqcollapse.study.grid import Study
from eqcollapse.study.params import parse

RECORD = "results/runs/x/provenance.json"
MAKE = (
    "import signal, sys; from eqcollapse.runtime import locks\n"
    "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # in the background of a shell it is ignored
    f"with locks.alone({RECORD!r}) as waited:\n"
    "    print(waited, flush=True); sys.stdin.readline()"
)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def start():
    """Start a process that makes what RECORD tells of (or runs `code`), until it gets a line; all end with the test."""
    processes = []

    def start(code: str = MAKE) -> subprocess.Popen:
        command = [sys.executable, "-c", code]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        variables = {**os.environ, "PYTHONPATH": str(Path(locks.__file__).parents[2])}
        processes.append(subprocess.Popen(command, text=True, env=variables, **pipes))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("end", ["well", "killed"])
def test_the_later_waits_for_the_end_of_the_earlier_and_says_so(start, end):
    first = start()
    assert first.stdout.readline() == "False\n"
    second = start()
    said = second.stderr.readline()
    assert said.startswith(f"process {first.pid} on ")
    assert said.endswith(f"is making what {RECORD} tells of: waiting for its end\n")
    third = start()
    third.stderr.readline()
    assert [process.poll() for process in (second, third)] == [None, None]
    if end == "killed":
        first.send_signal(signal.SIGKILL)
    else:
        first.stdin.write("\n")
        first.stdin.flush()
    waiting = {second.stdout: second, third.stdout: third}
    for _ in range(2):  # one after the other, in either order
        (turn,) = ready(list(waiting))
        assert turn.readline() == "True\n"
        waiting.pop(turn).communicate("\n")
    assert not list(locks.JOB_LOCKS.iterdir())


def ready(streams: list) -> list:
    """Wait until one of `streams` has something to say, and for a moment that no other has."""
    found = select.select(streams, [], [], 30)[0]
    time.sleep(0.3)
    assert found == select.select(streams, [], [], 0)[0]
    return found


def test_an_ended_job_leaves_the_lock_of_another_alone():
    """Its own file was removed, as the message about a dead host says."""
    with locks.alone(RECORD):
        (path,) = locks.JOB_LOCKS.iterdir()
        path.unlink()
        path.write_text("of another")
        other = path.stat().st_ino
    assert path.stat().st_ino == other
    path.write_bytes(b"\xff")
    assert locks.under_way() == []


def test_other_results_are_made_meanwhile(start):
    start().stdout.readline()
    with locks.alone("results/runs/y/provenance.json") as waited:
        assert not waited


def test_a_job_of_another_host_is_not_waited_for_for_ever(start, monkeypatch, capsys):
    start().stdout.readline()
    monkeypatch.setattr(locks, "PATIENCE", 0.5)
    monkeypatch.setattr(locks.socket, "gethostname", lambda: "another")
    began = time.monotonic()
    with locks.alone(RECORD) as waited:
        assert not waited
        assert time.monotonic() - began > 0.5
    assert "waiting for its end" in capsys.readouterr().err
    assert locks.under_way()  # still


def test_who_waits_can_be_told_to_end(start):
    start().stdout.readline()
    second = start()
    second.stderr.readline()
    second.send_signal(signal.SIGINT)
    assert second.wait(30) != 0


def test_whether_the_maker_lives_can_be_seen_without_a_lock(start):
    assert locks.maker(RECORD) is None
    first = start()
    first.stdout.readline()
    note = locks.maker(RECORD)
    assert note["pid"] == first.pid
    assert processes.is_alive(note)
    assert not processes.is_dead(note)
    first.kill()
    first.wait()
    assert processes.is_dead(locks.maker(RECORD))
    elsewhere = {**note, "host": "elsewhere"}
    assert not processes.is_alive(elsewhere)
    assert not processes.is_dead(elsewhere)


@pytest.mark.parametrize("text", ["", "process 1 on x is making what y tells of", "a line\n{", "a line\n[]"])
def test_of_a_lock_that_is_not_signed_the_maker_is_unknown(start, text):
    start().stdout.readline()
    next(locks.JOB_LOCKS.iterdir()).write_text(text)
    assert locks.maker(RECORD) == {}


def test_who_is_at_it_is_known_and_the_dead_are_forgotten(start):
    assert locks.under_way() == []
    first = start()
    first.stdout.readline()
    (said,) = locks.under_way()
    assert said.startswith(f"process {first.pid} on ")
    assert said.endswith(f"is making what {RECORD} tells of")
    first.kill()
    first.wait()
    assert list(locks.JOB_LOCKS.iterdir())
    assert locks.under_way() == []
    assert not list(locks.JOB_LOCKS.iterdir())


def test_nothing_is_moved_under_a_job_that_outlived_its_run(start, content):
    strange = Path("results/splits/digits/balanced@0123456789.csv")
    strange.parent.mkdir(parents=True)
    strange.write_text("")
    first = start()
    first.stdout.readline()
    study = Study(parse(content))
    with pytest.raises(EqcollapseError, match=rf"while process {first.pid} on .* for a run that was killed: wait"):
        put_in_order(study)
    assert strange.exists()
    first.kill()
    first.wait()
    assert put_in_order(study)
    assert not strange.exists()
    assert not pending(study)
    assert not put_in_order(study)


HOLD = (
    "import sys; from eqcollapse.runtime import locks\n"
    "locks.hold_folder('a plan'); print('held', flush=True); sys.stdin.readline()"
)


def test_one_run_at_a_time_works_in_a_folder(start):
    first = start(HOLD)
    assert first.stdout.readline() == "held\n"
    with pytest.raises(EqcollapseError, match=rf"^process {first.pid} on .* is running here: wait for its end$"):
        locks.hold_folder()
    assert locks.plan_under_way() == "a plan"
    first.kill()  # with which its lock goes
    first.wait()
    assert locks.plan_under_way() is None
    second = start(HOLD)
    assert second.stdout.readline() == "held\n"
    second.communicate("\n")
    assert not locks.RUN_LOCK.read_text()


def test_a_run_of_another_host_is_under_way_until_it_says_otherwise(start, monkeypatch):
    first = start(HOLD)
    first.stdout.readline()
    first.kill()
    first.wait()
    monkeypatch.setattr(locks.socket, "gethostname", lambda: "another")
    with pytest.raises(EqcollapseError, match=rf"if it is dead, remove {locks.RUN_LOCK}"):
        locks.hold_folder()
    locks.RUN_LOCK.unlink()
    locks.hold_folder()
    assert " on another is running here\n" in locks.RUN_LOCK.read_text()
    locks.release_folder()
    assert not locks.RUN_LOCK.read_text()


def test_where_nothing_can_be_locked_nobody_waits(start, monkeypatch):
    start().stdout.readline()

    def refuse(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    with locks.alone(RECORD) as waited:
        assert not waited
    assert locks.under_way() == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_where_nothing_can_be_written_nobody_waits(folder):
    folder.chmod(0o500)
    with locks.alone(RECORD) as waited:
        assert not waited


HASHES = {
    "in": "582967534d0f909d196b97f9e6921342777aea87b46fa52df165389db1fb8ccf",
    "out": "762069bc07a6e1b5df123a5ae7bd91c10daa04694fbaa17fba0cd6a8dcce8f22",
}
"""By `printf in | sha256sum`."""


@pytest.mark.parametrize("other", ["", "in", "out", "record", "digest"])
def test_what_is_whole_is_so_to_the_byte(other):
    digest = "9876543210" if other == "digest" else "0123456789"
    sides = {
        side: [{"path": name, "bytes": len(name), "sha256": HASHES[name]}]
        for side, name in {"inputs": "in", "outputs": "out"}.items()
    }
    Path("record").write_text(json.dumps({"digest": digest, **sides}))
    for name in HASHES:
        Path(name).write_text(name)
    if Path(other).is_file():
        Path(other).write_text("{")
    assert is_whole("record", "0123456789", ["in"], ["out"]) == (not other)
