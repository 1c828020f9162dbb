"""Two at once: one waits or stops with a clear line, and nothing is corrupted."""

import json
import shutil
import time

import pytest

from hostile import full_only, size
from projects import Project
from sites import wait_for

pytestmark = pytest.mark.faults

BUSY = ("is running here", "Unable to acquire lock")


def together(project: Project, *commands: tuple[str, ...], apart: float = 0.2) -> list[tuple[int, str]]:
    """Start commands in `project`, `apart` seconds after each other; return the exit code and words of each."""
    logs = [project.log.with_suffix(f".{number}") for number in range(len(commands))]
    processes = []
    for words, log in zip(commands, logs, strict=True):
        processes.append(project.start(*words, log=log))
        time.sleep(apart)
    return [(process.wait(900), log.read_text()) for process, log in zip(processes, logs, strict=True)]


def check(answers: list[tuple[int, str]], project: Project, undisturbed: Project) -> None:
    """Check that at least one came to its end, that the others said why not, and that the results are whole."""
    assert 0 in [code for code, _ in answers], answers
    for code, said in answers:
        assert "Traceback" not in said, said[-3000:]
        assert code == 0 or any(words in said for words in BUSY), said[-3000:]
    project.snakemake()
    kept = {name: content for name, content in project.files().items() if not name.endswith(".gitignore")}
    assert kept == undisturbed.files()
    assert project.planned() == {}


def test_two_runs_in_one_clone(undisturbed, fresh):
    words = ("snakemake", "--cores", "1")
    check(together(fresh, words, words), fresh, undisturbed)


@full_only
def test_dvc_during_snakemake(undisturbed, fresh):
    check(together(fresh, ("snakemake", "--cores", "2"), ("dvc", "repro")), fresh, undisturbed)


@full_only
def test_two_clones_share_their_data(undisturbed, tmp_path):
    """resources/ of both is one folder: each may write what the other one reads."""
    shared = tmp_path / "shared"
    shared.mkdir()
    clones = [undisturbed.clone(tmp_path / name / "project") for name in ("one", "two")]
    running = []
    for clone in clones:
        (clone.folder / "resources").symlink_to(shared)
        running.append(clone.start("snakemake", "--cores", "1", "train"))
    assert [process.wait(900) for process in running] == [0, 0]
    for clone in clones:
        assert clone.files("results/runs") == undisturbed.files("results/runs")
    held = {str(path.relative_to(shared)): path.read_bytes() for path in shared.rglob("*") if path.is_file()}
    whole = undisturbed.files("resources")
    assert held == {name.removeprefix("resources/"): content for name, content in whole.items()}


def test_four_jobs_make_the_same_file(undisturbed, tmp_path):
    """As when a killed Snakemake's job lives on beside the new one's."""
    project = undisturbed.copy(tmp_path / "project")
    (record,) = project.folder.glob("results/runs/digits/*/explicit/seed-0@*/provenance.json")
    words = json.loads(record.read_text())["command"]
    shutil.rmtree(record.parent)
    answers = together(project, *[words] * size(4, 2), apart=0)
    assert [code for code, _ in answers] == [0] * len(answers), answers
    assert project.files() == undisturbed.files()
    assert not list(project.folder.rglob("*.partial"))


@full_only
def test_a_run_waits_for_no_dead_one(undisturbed, fresh):
    """The lock of a run goes with its process."""
    process = fresh.start("snakemake", "--cores", "1")
    wait_for("the lock", lambda: list((fresh.folder / ".snakemake/eqcollapse").glob("run")))
    process.kill()
    process.wait()
    fresh.snakemake("data")
    assert fresh.files("resources") == undisturbed.files("resources")
