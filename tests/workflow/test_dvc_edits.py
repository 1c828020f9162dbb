"""Editing while a run is under way neither spoils nor confuses it: what runs is what was planned."""

import subprocess
import time

import pytest
import yaml

from projects import Project, ran

pytestmark = pytest.mark.workflow


def wait_for(project: Project, words: str, process: subprocess.Popen) -> None:
    """Wait until the command has said `words`."""
    while words not in project.said:
        assert process.poll() is None, project.said
        time.sleep(0.1)


def pinned(project: Project) -> dict:
    """Return what DVC has recorded of results: all stages but the one that only checks the settings."""
    stages = yaml.safe_load((project.folder / "dvc.lock").read_text())["stages"]
    return {name: stage for name, stage in stages.items() if name != "settings"}


def test_params_edited_under_dvc_are_not_recorded_with_the_results_of_others(study):
    first = pinned(study)
    study.edit({"train": {"lr": 0.02}})
    process = study.start("dvc", "repro")
    wait_for(study, "rule cell:", process)
    study.edit({"train": {"lr": 0.03}})
    assert process.wait() != 0
    lines = [line for line in study.said.splitlines() if line.startswith("eqcollapse confirm:")]
    assert len(lines) == 1
    assert "but params.yaml and the source ask for it: they were edited since the run began" in lines[0]
    assert pinned(study) == first

    assert ran(study.dvc("repro"))["cell"] == 2
    assert "up to date" in study.dvc("status")
    study.edit({"train": {"lr": 0.02}})
    assert "cell" not in ran(study.dvc("repro"))  # what was planned was made


def test_source_edited_under_a_run_stops_it_or_does_not_touch_it(study):
    source = study.folder / "src/eqcollapse/training/schedule.py"
    study.edit({"train": {"lr": 0.02}})
    process = study.start("dvc", "repro")
    wait_for(study, "rule cell:", process)
    source.write_text(source.read_text() + "\nNEW = 1\n")
    assert process.wait() != 0
    words = study.said
    assert "the source of stage train changed after" in words or "they were edited since the run began" in words
    assert ran(study.dvc("repro"))["cell"] == 2
    assert "up to date" in study.dvc("status")
    assert study.planned() == {}


def test_other_settings_are_refused_while_a_run_is_under_way(study):
    study.edit({"train": {"lr": 0.02}})
    process = study.start("snakemake", "--cores", "1")
    wait_for(study, "rule cell:", process)
    for lr in (0.02, 0.03):  # the same settings, and others
        study.edit({"train": {"lr": lr}})
        assert study.run("snakemake", "-n", check=False).returncode == 0
        answer = study.run("snakemake", "--cores", "1", check=False)
        assert answer.returncode != 0
        assert "Traceback" not in answer.stderr
        assert answer.stderr.splitlines()[-1].startswith(f"process {process.pid} on ")
        assert answer.stderr.endswith(" is running here: wait for its end\n")
    assert process.wait() == 0, study.said
    study.edit({"train": {"lr": 0.02}})
    assert study.planned() == {}


def test_a_job_that_parses_again_runs_what_was_planned(study):
    study.edit({"train": {"lr": 0.02}})
    said = study.snakemake("--dry-run", "train")
    planned = next(word for word in said.replace(",", " ").split() if word.endswith("history.csv"))
    words = (
        "from eqcollapse.pipeline.plan import freeze; from eqcollapse.study.grid import Study\n"
        "from eqcollapse.study import params; print(freeze(params.read('params.yaml'), Study(params.load())))"
    )
    plan = study.run("python", "-c", words).stdout
    study.edit({"train": {"lr": 0.03}})
    words = ["snakemake", "--cores", "1", "--mode", "subprocess", "--no-hooks", planned]
    study.run(*words, EQCOLLAPSE_PLAN=plan)
    assert (study.folder / planned).exists()
