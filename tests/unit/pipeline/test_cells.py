"""Each state of a cell is told from the files that real jobs leave, and looking at them changes nothing."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from rich.console import Console

import small_cell
from eqcollapse.cli.main import main
from eqcollapse.cli.watch_screen import screen
from eqcollapse.pipeline import cells
from eqcollapse.pipeline.cells import CellStatus, Look, Watch
from eqcollapse.runtime import live_history, locks
from eqcollapse.study.grid import Study
from eqcollapse.study.jobs import Job, log_path
from eqcollapse.study.params import parse
from projects import ROOT

HOLD = (
    "import os, sys\nfrom pathlib import Path\nfrom eqcollapse.runtime import live_history, locks\n"
    "record, live = sys.argv[1:]\n"
    "with locks.alone(record):\n"
    "    live_history.begin(Path(live), [])\n"
    "    live_history.append(Path(live), {'epoch': 1, 'loss': 2.0, 'seconds': 3.0})\n"
    "    print('held', flush=True)\n"
    "    sys.stdin.readline()\n"
)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def study(content) -> Study:
    """The demo with one experiment of four cells of four epochs."""
    content["train"] |= {"epochs": 4}
    content["experiments"] = {"a": content["experiments"]["a"] | {"splits": ["balanced"], "seeds": [0, 1]}}
    content["theory"] = {}
    Path("params.yaml").write_text(yaml.safe_dump(content))
    return Study(parse(content))


@pytest.fixture
def job(study) -> Job:
    return next(job for job in study.jobs["train"].values() if "/deq/" in job.path)


@pytest.fixture
def train(job, folder, capfd):
    """Run the job of `job` as its rule does, by the command line and to its log, on a small cell's data."""
    spec, files = small_cell.small_spec(), small_cell.write_files(folder)

    def train(**changes: object) -> int:
        spec["train"] |= changes
        command = ["train", "--digest", job.digest, "--spec", json.dumps(spec), "--device", "cpu", "--log", "csv"]
        capfd.readouterr()
        code = main([*command, "--inputs", *map(str, files), "--outputs", *job.outputs])
        log = Path(log_path(job.path, ".log"))
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(capfd.readouterr().err)
        return code

    return train


@pytest.fixture
def held(job):
    """A process that holds the lock of `job`, and has told of one epoch."""
    command = [sys.executable, "-c", HOLD, job.record, log_path(job.path, ".csv")]
    variables = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen(command, text=True, env=variables, **pipes)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def status(study: Study, job: Job) -> CellStatus:
    return next(cell for cell in Watch(study).look().cells if cell.log == log_path(job.path, ".log"))


def test_a_cell_waits_until_it_begins(study, job):
    cell = status(study, job)
    assert (cell.name, cell.state, cell.epoch, cell.epochs) == ("digits/balanced/deq/seed-0", "waiting", 0, 4)
    assert cell.loss is cell.nc1 is cell.seconds_left is None


def test_a_cell_is_done_with_the_numbers_of_its_history(study, job, train):
    assert train() == 0
    cell = status(study, job)
    with open(job.outputs[0], newline="") as stream:
        *_, last = csv.DictReader(stream)
    assert (cell.state, cell.epoch, cell.reason) == ("done", 4, "")
    assert cell.loss == float(last["loss"])
    assert cell.test_accuracy == float(last["test_accuracy"])
    shares = ("solver_converged", "test_solver_converged", "train_solver_converged", "adjoint_converged")
    assert cell.converged == min(float(last[name]) for name in shares[:3])
    assert cell.nc1 == live_history.read(Path(log_path(job.path, ".csv")))[-1]["nc1"]
    assert cell.seconds_per_epoch > 0


def test_where_a_cell_logs_is_no_part_of_its_record(job, train):
    assert train() == 0
    command = json.loads(Path(job.record).read_text())["command"]
    assert "--digest" in command
    assert not {"--device", "--log"} & set(command)


def test_a_cell_without_logs_is_done_too(study, job, train):
    """As after `dvc pull`."""
    train()
    for suffix in (".csv", ".log"):
        Path(log_path(job.path, suffix)).unlink()
    cell = status(study, job)
    assert (cell.state, cell.epoch) == ("done", 4)
    assert cell.loss > 0


def test_a_cell_that_diverged_has_failed_with_the_line_that_says_so(study, job, train):
    assert train(lr=1e9, schedule={"kind": "constant", "every": 1, "factor": 1.0, "warmup": 0}) == 1
    cell = status(study, job)
    assert cell.state == "failed"
    assert cell.reason.startswith("cell noise/ka1-r2/deq/seed-0 diverged in epoch")
    assert cell.seconds_left is None


def test_a_cell_that_was_told_to_end_is_stopped_and_goes_on(study, job, train, monkeypatch):
    step, steps = torch.optim.SGD.step, []

    def step_or_end(optimizer, *arguments):
        step(optimizer, *arguments)
        steps.append(optimizer)
        if len(steps) == 8:  # three batches an epoch
            raise KeyboardInterrupt

    monkeypatch.setattr(torch.optim.SGD, "step", step_or_end)
    assert train() == 130
    cell = status(study, job)
    assert (cell.state, cell.epoch, cell.reason) == ("stopped", 2, "goes on from its checkpoint")
    assert cell.seconds_left == pytest.approx(2 * cell.seconds_per_epoch)
    assert train() == 0
    assert status(study, job).state == "done"
    assert [row["epoch"] for row in live_history.read(Path(log_path(job.path, ".csv")))] == [1, 2, 3, 4]


def test_a_cell_runs_while_its_process_lives(study, job, held):
    cell = status(study, job)
    assert (cell.state, cell.epoch, cell.loss, cell.seconds_left) == ("running", 1, 2.0, 9.0)
    os.utime(log_path(job.path, ".csv"), (0, 0))  # an epoch may take hours
    assert status(study, job).state == "running"
    os.kill(held.pid, signal.SIGKILL)
    held.wait()
    assert Path(locks.JOB_LOCKS).is_dir()
    cell = status(study, job)
    assert (cell.state, cell.epoch, cell.reason) == ("stopped", 1, "begins anew")


@pytest.mark.parametrize("host", ["elsewhere", None], ids=["another host", "no signature"])
def test_a_process_elsewhere_lives_as_long_as_it_gives_signs(study, job, held, host):
    (lock,) = locks.JOB_LOCKS.iterdir()
    sentence, _, note = lock.read_text().partition("\n")
    note = {**json.loads(note), "host": host, "written": time.time() - 10 * cells.SILENCE}
    lock.write_text(f"{sentence}\n{json.dumps(note)}" if host else "")
    assert status(study, job).state == "running"
    long_ago = time.time() - 2 * cells.SILENCE
    os.utime(log_path(job.path, ".csv"), (long_ago, long_ago))
    assert status(study, job).state == "stopped"


def test_a_cell_that_begins_elsewhere_runs_before_it_has_a_history(study, job, held):
    (lock,) = locks.JOB_LOCKS.iterdir()
    sentence, _, note = lock.read_text().partition("\n")
    lock.write_text(f"{sentence}\n{json.dumps({**json.loads(note), 'host': 'elsewhere'})}")
    Path(log_path(job.path, ".csv")).unlink()
    assert status(study, job).state == "running"


def test_the_time_left_is_that_of_the_running_cells_side_by_side(study, held):
    """One cell runs, at 3 s an epoch, and has three epochs to go; three others have four each."""
    look = Watch(study).look()
    assert (look.work_left, look.seconds_left) == (3 * 3 + 3 * 4 * 3, 3 * 3 + 3 * 4 * 3)


def test_a_cell_that_waits_takes_what_its_like_take(study):
    for job in study.jobs["train"].values():
        if job.path.partition("@")[0].endswith("seed-0"):
            live = Path(log_path(job.path, ".csv"))
            live_history.begin(live, [])
            live_history.append(live, {"epoch": 1, "loss": 1.0, "seconds": 5.0 if "/deq/" in job.path else 2.0})
    look = Watch(study).look()
    assert look.work_left == (3 + 4) * 5 + (3 + 4) * 2
    assert look.seconds_left is None  # nothing runs


def test_of_a_study_that_has_not_begun_no_time_is_known(study):
    look = Watch(study).look()
    assert look.seconds_left is look.work_left is None
    assert look.counts == {"waiting": 4, "running": 0, "stopped": 0, "failed": 0, "done": 0}
    assert look.stages["train"] == (0, 4)
    assert not look.complete


def test_a_file_under_a_fixed_name_counts_for_its_own_settings_only(study):
    job = study.jobs["claims"]["results/claims.json"]
    record = Path(job.record)
    record.parent.mkdir(parents=True)
    watch = Watch(study)
    for digest, done in (("0" * 10, 0), (job.digest, 1)):
        record.write_text(json.dumps({"digest": digest, "inputs": [], "outputs": []}))
        os.utime(record, (done, done))
        assert watch.look().stages["claims"] == (done, 1)


def test_what_has_changed_is_read_again(study, job, held):
    watch = Watch(study)
    assert [cell.epoch for cell in watch.look().cells if cell.state == "running"] == [1]
    live_history.append(Path(log_path(job.path, ".csv")), {"epoch": 2, "loss": 1.0, "seconds": 1.0})
    assert [(cell.epoch, cell.loss) for cell in watch.look().cells if cell.state == "running"] == [(2, 1.0)]


def test_two_hundred_cells_cost_little(content):
    """At a loose bound: 5 % of a core with a look every two seconds."""
    content["experiments"] = {
        "a": content["experiments"]["a"] | {"splits": ["balanced", "imbalanced"], "seeds": list(range(10))}
    }
    study = Study(parse(content))
    jobs = list(study.jobs["train"].values())
    assert len(jobs) == 200
    for number, job in enumerate(jobs[:150]):
        history = [{"epoch": epoch, "lr": 0.1, "loss": 1 / epoch, "seconds": 1.0} for epoch in range(1, 200)]
        live_history.begin(Path(log_path(job.path, ".csv")), history)
        if number < 100:
            Path(job.record).parent.mkdir(parents=True)
            Path(job.record).touch()
    watch = Watch(study)
    console = Console(file=open(os.devnull, "w"), width=140, height=50, force_terminal=True)  # noqa: SIM115
    looks = 10
    for look in range(looks + 1):
        if look == 1:
            began = time.process_time()
        console.print(screen(watch.look(), "params.yaml", width=140, height=50))
    assert (time.process_time() - began) / looks < 0.05 * 2


def test_looking_writes_locks_and_loads_nothing(study, job, held, folder):
    def everything() -> dict[Path, tuple[int, ...]]:
        states = {path: path.stat() for path in folder.rglob("*")}
        return {path: (state.st_ino, state.st_size, state.st_mtime_ns) for path, state in states.items()}

    before = everything()
    code = (
        "import sys; from eqcollapse.cli.main import main; main(['watch', '--json']); "
        "print(*{'torch', 'numpy', 'pandas', 'snakemake'} & set(sys.modules), file=sys.stderr)"
    )
    variables = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=variables, check=False)
    assert (answer.returncode, answer.stderr) == (0, "\n")
    assert [cell["state"] for cell in json.loads(answer.stdout)["cells"]].count("running") == 1
    assert everything() == before


def test_the_counts_are_of_all_cells():
    assert Look([], {}, None, None).counts == dict.fromkeys(cells.STATES, 0)
