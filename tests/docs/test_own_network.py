"""The blocks of docs/how-to/own-network.md, applied to a copy of the project, run through the pipeline to tables."""

import pandas as pd
import pytest

from blocks import extend
from projects import ROOT, Project, cloned, ran

PAGE = (ROOT / "docs/how-to/own-network.md").read_text()
MODELS = {"vision", "mine", "mine-deq", "smooth", "weighted"}

pytestmark = pytest.mark.workflow


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    project = cloned(tmp_path_factory.mktemp("own") / "project")
    extend(project, PAGE)
    project.edit({"experiments": {"a": None}, "theory": None, "datasets": {"digits": {"per_class": 20}}})
    project.snakemake()
    return project


def test_everything_of_ones_own_is_trained_and_in_the_tables(project):
    table = pd.read_csv(project.folder / "results/tables/own-table-1.csv")
    assert set(table.model) >= MODELS
    metrics = pd.read_csv(project.folder / "results/metrics/collapse.csv")
    assert set(metrics.model) == MODELS
    assert set(metrics[metrics.model == "mine"].layer) == {"stage-1", "stage-2", "features"}
    assert metrics.sun2024_nc1.notna().all()
    assert "mine-deq" in (project.folder / "results/tables/own-solver.md").read_text()


def test_an_edit_of_ones_own_file_trains_exactly_its_cells(project, tmp_path):
    edited = project.copy(tmp_path / "project")
    assert edited.planned() == {}
    path = edited.folder / "own/mine.py"
    path.write_text(f"# A comment.\n{path.read_text()}")
    assert edited.planned() == {}
    path.write_text(path.read_text().replace("nn.Dropout(0.1)", "nn.Dropout(0.2)"))
    said = edited.snakemake("train")
    assert ran(said)["cell"] == 8  # all but those of `vision`: one file holds all the rest
    other = edited.folder / "own/loss.py"
    other.write_text(path.read_text())
    edited.edit({"models": {"weighted": {"train": {"loss": "own/loss.py:by_frequency"}}}})
    edited.snakemake("train")
    other.write_text(other.read_text().replace("power=0.5", "power=0.25"))
    assert edited.planned("train")["cell"] == 2


def test_what_is_wrong_is_one_line_before_any_job(project, tmp_path):
    wrong = project.copy(tmp_path / "project")
    for change, words in (
        ({"architecture": "own/mien.py:Net"}, "there is no file own/mien.py"),
        (
            {"architecture": "own/mine.py:by_frequency", "options": {"width": None}},
            "is called with (channels, num_classes)",
        ),
        ({"architecture": "own/mine.py:Features", "options": {"width": None}}, "does not end in a linear layer"),
    ):
        path = wrong.folder / "own/mine.py"
        path.write_text(path.read_text() + "\n\ndef Features(channels, num_classes):\n"
                        "    return nn.Sequential(nn.Conv2d(channels, num_classes, 8), nn.Flatten())\n")  # fmt: skip
        wrong.edit({"models": {"mine": {"network": change}}})
        answer = wrong.run("snakemake", "--cores", "all", check=False)
        assert answer.returncode == 1
        (line,) = [line for line in answer.stderr.splitlines() if line.startswith("params.yaml")]
        assert "network.architecture (model mine)" in line
        assert words in line
        assert "Traceback" not in answer.stderr


def test_the_audit_and_dvc_see_the_file(project):
    project.run("python", "-m", "eqcollapse", "confirm", "train")
    found = project.run("python", "-m", "eqcollapse", "audit", check=False)
    assert "own/mine.py" in found.stdout + found.stderr  # in no commit yet
