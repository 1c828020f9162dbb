"""Who only looks changes nothing, in every history; what a look says is what a run then does."""

import hashlib
import os
import signal

import pytest

from projects import Project, ran
from sites import wait_for

pytestmark = pytest.mark.workflow

OWN = {".git", "iocache", "log"}
"""Folders of git, and Snakemake's own of what a dry run saw and of what it said: nothing of ours."""


def tree(project: Project) -> dict[str, tuple]:
    """Return all files and folders: kind, times of content and state, number, links, size and sha256."""
    found = {}
    for folder, folders, files in os.walk(project.folder):
        folders[:] = [name for name in folders if name not in OWN]
        for name in (".", *files):
            path = os.path.join(folder, name)
            state = os.lstat(path)
            content = hashlib.sha256(open(path, "rb").read()).hexdigest() if os.path.isfile(path) else ""  # noqa: SIM115
            found[path] = (state.st_mode, state.st_mtime_ns, state.st_ctime_ns, state.st_ino, state.st_nlink, content)
    return found


def seen(project: Project, *words: str) -> dict[str, int]:
    """Return what a dry run plans, after checking that it changes no file; the rules that name files do not count."""
    project.planned()  # Snakemake makes its own folders in a fresh clone
    before = tree(project)
    planned = project.planned(*words)
    assert tree(project) == before
    return {rule: count for rule, count in planned.items() if rule not in words}


@pytest.fixture
def study(finished, tmp_path) -> Project:
    """A copy of a finished study."""
    return finished.copy(tmp_path / "study")


@pytest.fixture
def turned(study) -> Project:
    """A study whose settings were others for a moment, for which `restore` put results aside."""
    settings = (study.folder / "params.yaml").read_bytes()
    study.edit({"train": {"lr": 0.01}})
    said = study.run("python", "-m", "eqcollapse", "restore").stderr
    assert "brought back" in said
    assert not list((study.folder / "results/runs").rglob("history.csv"))
    (study.folder / "params.yaml").write_bytes(settings)
    return study


def test_looking_changes_no_file(study):
    assert seen(study) == {}
    study.edit({"train": {"lr": 0.01}, "report": {"figures": {"dpi": 90}}})
    assert seen(study) == {"cell": 4, "metrics": 1, "table": 3, "figure": 6, "claims": 1, "page": 1}
    assert seen(study, "train") == {"cell": 4}
    assert seen(study, "results/tables/theory.csv") == {}
    before = tree(study)
    for words in (["--list"], ["--summary"], ["--rulegraph"], ["--lint"]):
        study.snakemake(*words)
        assert tree(study) == before, words


def test_going_back_is_seen_as_that_and_makes_nothing(finished, turned):
    before = tree(turned)
    assert seen(turned) == {"bring_back": 1}
    assert seen(turned, "train") == {"bring_back": 1}
    assert seen(turned, "results/claims.json") == {"bring_back": 1}
    assert seen(turned, "splits") == {}
    assert tree(turned) == before
    assert ran(turned.snakemake("results/claims.json")) == {}  # for one of them, all come back
    assert turned.files() == finished.files()
    assert seen(turned) == {}


def test_what_is_new_is_made_beside_what_comes_back(finished, turned):
    turned.edit({"report": {"figures": {"dpi": 90}}})
    assert seen(turned) == {"bring_back": 1, "figure": 6, "page": 1}
    assert ran(turned.snakemake("results/tables/a-table-1.md", "results/figures/b-figure-1.png")) == {"figure": 1}
    assert seen(turned) == {"figure": 5, "page": 1}
    same = [name for name in finished.files() if "figures" not in name and "report.html" not in name]
    assert {name: turned.files()[name] for name in same} == {name: finished.files()[name] for name in same}


def test_without_hooks_nothing_is_lost(finished, turned):
    before = turned.files(".attic")
    said = turned.snakemake("--no-hooks", check=False)
    assert "run without --no-hooks" in said
    assert turned.files(".attic") == before
    assert ran(turned.snakemake()) == {}
    assert turned.files() == finished.files()


def test_touched_files_are_as_stale_as_before(study):
    study.edit({"report": {"figures": {"dpi": 90}}})
    study.snakemake("--touch")
    assert seen(study) == {"figure": 6, "page": 1}


def test_a_cell_that_is_removed_hides_no_stale_figure(study):
    next((study.folder / "results/runs").rglob("explicit/*/provenance.json")).unlink()
    study.edit({"report": {"figures": {"dpi": 90}}})
    assert seen(study) == {"cell": 1, "figure": 6, "page": 1}


def test_what_a_run_left_that_did_nothing_is_put_aside_by_hand(finished, study):
    stray = study.folder / "results/runs/digits/balanced/explicit/seed-9@0123456789"
    stray.mkdir()
    (stray / "history.csv").write_text("")
    assert seen(study) == {}
    assert "1 results put aside" in study.run("python", "-m", "eqcollapse", "restore").stderr
    assert study.files() == finished.files()
    assert "nothing is to be put aside" in study.run("python", "-m", "eqcollapse", "restore").stdout


def test_a_killed_run_locks_nobody_out(study):
    lock = study.folder / ".snakemake/eqcollapse/run"
    study.edit({"train": {"lr": 0.01}})
    process = study.start("snakemake", "--cores", "1", "train")
    wait_for("a cell", lambda: "rule cell:" in study.said or process.poll() is not None)
    assert f"process {process.pid} on " in lock.read_text()
    refused = study.run("python", "-m", "eqcollapse", "restore", check=False)
    assert refused.stderr.endswith(f"{lock.read_text()}: wait for its end\n")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert seen(study, "train") == {"cell": 4}
    study.run("python", "-m", "eqcollapse", "restore")
