"""results/ holds exactly the current study; what it does not want lies in the attic and comes back."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from eqcollapse import sweep as sweeping
from eqcollapse.params import parse
from eqcollapse.study import Study
from eqcollapse.sweep import locked, note_owner, sweep


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def plan(content: dict) -> Study:
    return Study(parse(content))


def build(study: Study) -> None:
    """Write every file of the study that is not there, with its digest as content."""
    for job in study:
        for file in job.outputs:
            path = Path(file)
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(job.digest)
        outputs = [{"path": file} for file in job.outputs]
        Path(job.record).write_text(json.dumps({"digest": job.digest, "outputs": outputs}))


def tree(*roots: str) -> dict[str, str]:
    return {str(path): path.read_text() for root in roots for path in sorted(Path(root).rglob("*")) if path.is_file()}


def test_there_and_back_again(folder, content):
    first = plan(content)
    build(first)
    before = tree("results", "resources")
    assert sweep(first) == (0, 0)

    content["train"]["lr"] = 0.01
    second = plan(content)
    sweep(second)
    build(second)
    assert set(tree("results", "resources")) == {file for job in second for file in job.files}

    content["train"]["lr"] = 0.05
    sweep(plan(content))
    assert tree("results", "resources") == before


def test_a_dropped_seed_leaves_results(folder, content):
    content["experiments"]["a"]["seeds"] = [0, 1]
    build(plan(content))
    content["experiments"]["a"]["seeds"] = [0]
    study = plan(content)
    gone, came = sweep(study)
    assert came == 0
    assert gone == 20 + 1 + 4 + 4  # cells, metrics, tables, figures
    assert not [file for file in tree("results") if "seed-1@" in file]
    assert len([file for file in tree(".attic") if "seed-1@" in file]) == 20 * 5


def test_a_file_with_a_fixed_name_and_another_digest_goes(folder, content):
    build(plan(content))
    content["report"]["figures"]["dpi"] = 80
    study = plan(content)
    assert sweep(study) == (len(study.jobs["figure"]), 0)
    assert not list(Path("results/figures").glob("*"))
    assert list(Path("results/tables").glob("*.csv"))


def test_what_no_record_speaks_of_stays(folder, content):
    study = plan(content)
    build(study)
    Path("results/notes.txt").write_text("mine")
    sweep(study)
    assert Path("results/notes.txt").exists()


def test_a_record_that_points_outside_moves_nothing(folder, content):
    victim = Path("keep.txt")
    victim.write_text("keep")
    Path("results/figures").mkdir(parents=True)
    record = {"digest": "0123456789", "outputs": [{"path": "keep.txt"}, {"path": "results/../keep.txt"}]}
    Path("results/figures/x.provenance.json").write_text(json.dumps(record))
    sweep(plan(content))
    assert victim.exists()


def lock(folder: Path) -> Path:
    path = folder / ".snakemake/locks/0.output.lock"
    path.parent.mkdir(parents=True)
    path.write_text("results/x\n")
    return path


def test_no_lock_is_no_lock(folder):
    assert not locked()


def test_the_lock_of_a_live_run_stays(folder):
    path = lock(folder)
    note_owner()
    assert locked()
    assert path.exists()


def test_the_lock_of_a_dead_run_goes(folder):
    path = lock(folder)
    _note_and_die(folder)
    assert not locked()
    assert not path.exists()


def test_a_lock_whose_owner_is_elsewhere_stays(folder, monkeypatch):
    lock(folder)
    _note_and_die(folder)
    monkeypatch.setattr(sweeping, "_host", lambda: "another host")
    assert locked()


def test_a_lock_that_nobody_noted_stays(folder):
    lock(folder)
    assert locked()


def test_a_lock_younger_than_the_note_of_a_dead_run_stays(folder):
    _note_and_die(folder)
    path = lock(folder)
    later = time.time() + 5
    os.utime(path, (later, later))
    assert locked()


def _note_and_die(folder: Path) -> None:
    subprocess.run(
        [sys.executable, "-c", "from eqcollapse.sweep import note_owner; note_owner()"],
        cwd=folder,
        check=True,
    )
