"""Images of one's own come to tables by two commands."""

import csv
import io

import numpy as np
import pytest
from PIL import Image

from projects import Project

pytestmark = pytest.mark.workflow


def test_images_of_ones_own_come_to_tables_by_two_commands(project: Project):
    draw = np.random.default_rng(0)
    for split, count in (("train", 20), ("test", 4)):
        for label, name in enumerate(("cat", "dog", "owl")):
            place = project.folder / "my images" / split / name
            place.mkdir(parents=True)
            for number in range(count):
                pixels = draw.integers(0, 100, (12, 10, 3)) + 50 * label
                Image.fromarray(pixels.astype(np.uint8)).save(place / f"{number}.png")
    project.run("python", "-m", "eqcollapse", "init", "--images", "my images", "--minutes", "0.1")
    project.snakemake("--configfile", "my-images.yaml")
    rows = list(csv.DictReader(io.StringIO(project.files()["results/tables/a-table-1.csv"].decode())))
    assert {row["dataset"] for row in rows} == {"my-images"}
    assert all(row["explicit"] and row["deq"] for row in rows)
    audit = project.run("python", "-m", "eqcollapse", "audit", "--configfile", "my-images.yaml")
    assert "The audit passes" in audit.stdout
