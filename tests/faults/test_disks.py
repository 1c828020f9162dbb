"""A disk that is full: each stage says which file, what it takes and what is free, leaves nothing half, and goes on."""

import json
import os
import shutil
from pathlib import Path

import pytest

from hostile import full_only, size, tree
from projects import Project
from sites import give_build, make_image, tool

pytestmark = pytest.mark.faults

STAGES = size(("data", "splits", "train", "theory", "collapse", "table", "figure", "claims", "page"), ("data", "train"))


def command(project: Project, stage: str) -> tuple[list[str], list[str]]:
    """Return the recorded command of the first job of `stage`, and its outputs with the record."""
    for path in sorted([*project.folder.glob("re*/**/*provenance.json")]):
        record = json.loads(path.read_text())
        if record["stage"] == stage:
            outputs = [output["path"] for output in record["outputs"]]
            return record["command"], [*outputs, str(path.relative_to(project.folder))]
    raise AssertionError(f"no record of {stage}")


def filled(disk: Path, left: int) -> Path:
    """Fill `disk` but for `left` bytes; return the file that does."""
    filler = disk / "filler"
    filler.write_bytes(bytes(max(shutil.disk_usage(disk).free - left, 0)))
    return filler


def on(disk: Path, project: Project) -> Project:
    """Copy a finished project to a small disk."""
    return project.copy(disk / "project")


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_on_a_full_disk(undisturbed, small_disk, stage):
    project = on(small_disk, undisturbed)
    words, files = command(project, stage)
    before = project.files()
    for file in files:
        (project.folder / file).unlink()
    without = tree(project.folder)
    for left in (0, 4096):
        filler = filled(small_disk, left)
        answer = project.run(*words, check=False)
        said = [line for line in answer.stderr.splitlines() if line.startswith("eqcollapse ")]
        assert answer.returncode == 1, answer.stderr
        assert "Traceback" not in answer.stderr
        assert len(said) == 1, answer.stderr
        assert "no room left on this disk" in said[0]
        assert "bytes are needed" in said[0]
        assert not list(project.folder.rglob("*.partial"))
        held = tree(project.folder)
        assert {name: held.get(name) for name in without} == without
        whole = {name for name in held if name not in without and not name.startswith(".cache/")}
        assert all((project.folder / name).read_bytes() == before[name] for name in whole), whole
        filler.unlink()
    project.run(*words)
    assert project.files() == before


def test_snakemake_on_a_full_disk(undisturbed, small_disk):
    """All of the project is on it, Snakemake's own notes, too; the same command goes on when there is room."""
    project = undisturbed.clone(small_disk / "project")
    for left in size((0, 50_000, 200_000, 1_000_000), (200_000,)):
        filler = filled(small_disk, left)
        answer = project.run("snakemake", "--cores", "2", check=False)
        said = answer.stdout + answer.stderr
        assert answer.returncode != 0
        assert "No space left" in said or "no room left" in said or "is full" in said, said[-3000:]
        filler.unlink()
        for name, content in project.files().items():
            assert content == (undisturbed.folder / name).read_bytes(), name
    project.snakemake()
    assert project.files() == undisturbed.files()


@full_only
def test_a_folder_that_cannot_be_written(undisturbed, tmp_path):
    project = undisturbed.copy(tmp_path / "project")
    words, files = command(project, "table")
    for file in files:
        (project.folder / file).unlink()
    shutil.rmtree(project.folder / "results/tables")
    (project.folder / "results/tables").write_text("a file where a folder should be")
    answer = project.run(*words, check=False)
    assert answer.returncode == 1
    assert "Traceback" not in answer.stderr
    assert "results/tables" in answer.stderr
    os.unlink(project.folder / "results/tables")


def test_the_image_on_a_full_disk(small_disk, tmp_path, monkeypatch):
    tool("install-apptainer")
    give_build(tmp_path)
    monkeypatch.setenv("APPTAINER_TMPDIR", str(small_disk))
    said = make_image(tmp_path, base=Path("/nothing/is/read/of/it"))
    assert said.returncode != 0
    assert f"make image: the build needs 10 GB of disk in {small_disk}, where 0 GB are free" in said.stderr
    assert not (tmp_path / "containers/image").exists()
