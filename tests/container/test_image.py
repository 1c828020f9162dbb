"""The image: built by `make image` from a local base, and the same results in it as outside it."""

import os
import shutil
import time

import pytest

import sites
from projects import Project, cloned

pytestmark = pytest.mark.container


@pytest.fixture(scope="session")
def contained(bare, tmp_path_factory) -> Project:
    """The same commit, run in the image."""
    project = bare.clone(tmp_path_factory.mktemp("contained") / "project")
    sites.give_image(project)
    project.snakemake("--use-singularity")
    return project


def test_make_image_is_quick_when_nothing_changed():
    folder = sites.image()
    begin = time.monotonic()
    said = sites.make_image(folder)
    assert "containers/eqcollapse.sif is up to date" in said.stdout
    assert time.monotonic() - begin < 10
    assert len((folder / "containers/eqcollapse.sif.sha256").read_text().split()[0]) == 64


def test_results_in_the_image_equal_those_outside_it_to_the_byte(bare, contained):
    assert sites.results(contained) == sites.results(bare)


def test_records_say_which_image_and_differ_in_nothing_else_but_python(bare, contained):
    inside, outside = sites.records(contained), sites.records(bare)
    stated = (sites.image() / "containers/eqcollapse.sif.sha256").read_text().split()[0]
    assert inside.keys() == outside.keys()
    for path, record in inside.items():
        environment = record["environment"]
        assert environment["image"]["sha256"] == stated
        assert environment["image"]["definition"]
        other = outside[path]
        assert {**record, "environment": None, "seal": None} == {**other, "environment": None, "seal": None}
        differing = {key for key, value in environment.items() if value != other["environment"][key]}
        assert differing <= {"image", "python"}


def test_a_run_in_the_image_leaves_nothing_in_the_work_folder_that_git_does_not_ignore(contained):
    assert not contained.run("git", "status", "--porcelain").stdout


def test_bare_and_contained_runs_find_nothing_to_do_after_each_other(bare, contained, tmp_path):
    assert contained.planned() == {}
    shutil.copytree(bare.folder, tmp_path / "project", symlinks=True)
    project = Project(tmp_path / "project")
    sites.give_image(project)
    assert project.planned("--use-singularity") == {}


@pytest.mark.slow
def test_records_say_which_job_was_made_in_the_image(bare, tmp_path):
    shutil.copytree(bare.folder, tmp_path / "project", symlinks=True)
    project = Project(tmp_path / "project")
    sites.give_image(project)
    project.edit({"train": {"lr": 0.02}, "experiments": {"a": {"models": ["explicit"]}}})
    project.snakemake("--use-singularity", "train")
    images = {bool(record["environment"]["image"]) for record in sites.records(project).values()}
    assert images == {False, True}  # the splits were made outside it, the cell inside
    assert project.planned("train") == {}


@pytest.mark.slow
def test_source_edited_under_a_contained_run_stops_it_with_one_line_or_does_not_touch_it(contained, tmp_path):
    shutil.copytree(contained.folder, tmp_path / "project", symlinks=True)
    project = Project(tmp_path / "project")
    project.edit({"train": {"lr": 0.02}})
    source = project.folder / "src/eqcollapse/training/schedule.py"
    process = project.start("snakemake", "--cores", "1", "--use-singularity", "train")
    sites.wait_for("the first cell", lambda: "rule cell:" in project.said)
    source.write_text(source.read_text() + "\nNEW = 1\n")
    assert process.wait(timeout=600) != 0  # the second of two cells starts after the edit, at the latest
    assert "the source of stage train changed after" in project.said
    assert project.planned("train")["cell"] == 2


@pytest.mark.slow
def test_settings_edited_under_a_contained_run_are_the_next_runs(contained, tmp_path):
    project = contained.copy(tmp_path / "project")
    project.edit({"train": {"lr": 0.02}})
    process = project.start("snakemake", "--cores", "1", "--use-singularity", "train")
    sites.wait_for("the first cell", lambda: "rule cell:" in project.said)
    project.edit({"train": {"lr": 0.03}})
    assert process.wait(timeout=600) == 0, project.said
    assert project.planned("train")["cell"] == 2
    project.edit({"train": {"lr": 0.02}})
    assert project.planned("train") == {}


def test_a_missing_image_is_one_line_that_says_make_image(tmp_path):
    project = cloned(tmp_path / "project")
    answer = project.run("snakemake", "--cores", "all", "--use-singularity", check=False)
    assert answer.returncode != 0
    lines = [line for line in answer.stderr.splitlines() if line and not line.startswith("Using workflow specific")]
    assert lines == ["containers/eqcollapse.sif: there is no such image: build it with `make image`"]


def test_another_image_under_the_same_name_is_not_used_under_the_old_sha256(tmp_path):
    project = cloned(tmp_path / "project")
    image = project.folder / "containers/eqcollapse.sif"
    stated = image.with_name("eqcollapse.sif.sha256")
    stated.write_text(f"{'0' * 64}  eqcollapse.sif\n")
    image.write_text("another")
    os.utime(stated, (1, 1))
    answer = project.run("snakemake", "--cores", "all", "--use-singularity", check=False)
    assert answer.returncode != 0
    assert "is not of the image that is there now: run `make image`" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_failed_build_leaves_the_image_that_was_there(tmp_path):
    sites.tool("install-apptainer")
    folder = tmp_path / "project"
    sites.give_build(folder)
    (folder / "containers/eqcollapse.sif").write_text("an image")
    said = sites.make_image(folder, tmp_path / "nothing")
    assert said.returncode != 0
    assert "make image: the build failed: its last lines above say why" in said.stderr
    assert (folder / "containers/eqcollapse.sif").read_text() == "an image"
    assert not (folder / "containers/image").exists()


def test_the_audit_sees_another_image_under_the_same_name(contained, tmp_path):
    shutil.copytree(contained.folder, tmp_path / "project", symlinks=True)
    project = Project(tmp_path / "project")
    audit = ("python", "-m", "eqcollapse", "audit", "--no-snakemake")
    assert "The audit passes" in project.run(*audit).stdout
    (project.folder / "containers/eqcollapse.sif.sha256").write_text(f"{'0' * 64}  eqcollapse.sif\n")
    said = project.run(*audit, check=False).stdout
    assert "The audit FAILS: 1 image" in said
