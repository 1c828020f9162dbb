"""A study of thousands of cells: planned in seconds, and measured where no command line can hold their names."""

import csv
import json
import os

import pytest
import yaml

from eqcollapse.study.grid import COLLAPSE, Study
from eqcollapse.study.params import parse
from projects import Project, children_seconds

pytestmark = pytest.mark.workflow

PADDING = {f"PADDING_{number}": "x" * 120_000 for number in range(16)}
"""Linux counts the environment, too: this leaves a command line a tenth of its two megabytes."""


def with_cells(project: Project, cells: int) -> Study:
    """Ask for so many cells, and let links to the trained ones stand for the others'."""
    project.edit({"experiments": {"a": {"seeds": list(range(cells // 2))}}})
    study = Study(parse(yaml.safe_load((project.folder / "params.yaml").read_text())))
    for job in study.jobs["train"].values():
        for file in job.files:
            folder, _, name = file.rpartition("/")
            (trained,) = (project.folder / folder).parent.glob("seed-0@*")
            if trained.name != folder.rpartition("/")[2]:
                (project.folder / folder).mkdir(exist_ok=True)
                os.link(trained / name, project.folder / file)
    return study


def test_a_thousand_cells_are_planned_in_fifteen_seconds(study):
    study.edit({"experiments": {"a": {"seeds": list(range(500))}}})
    start = children_seconds()
    assert study.planned()["cell"] == 998
    assert children_seconds() - start < 15


@pytest.mark.parametrize("cells", [2000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_the_cells_of_a_large_study_are_measured(study, cells):
    (job,) = with_cells(study, cells).jobs["collapse"].values()
    names = len(" ".join(job.inputs))
    assert names + sum(map(len, PADDING.values())) > os.sysconf("SC_ARG_MAX")
    study.run("snakemake", "collapse", "--cores", "1", "--quiet", "all", **PADDING)
    with open(study.folder / COLLAPSE, newline="") as stream:
        rows = list(csv.DictReader(stream))
    last = [row for row in rows if row["epoch"] == "2" and row["layer"] == "features"]
    assert len(last) == cells
    record = json.loads((study.folder / job.record).read_text())
    assert [source["path"] for source in record["inputs"]] == list(job.inputs)
    words = record["command"]
    assert words[words.index("--inputs") + 1 : words.index("--outputs")] == list(job.inputs)
