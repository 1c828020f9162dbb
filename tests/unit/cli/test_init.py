"""`init` writes a preset that `check` accepts, overwrites nothing, and answers faults in one line."""

import numpy as np
import pytest
from PIL import Image

from eqcollapse.cli.main import main
from eqcollapse.study.grid import Study
from eqcollapse.study.params import load
from projects import ROOT

GENERATOR = np.random.default_rng(0)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A project's folder, with params.yaml and the images of two classes."""
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    for split, count in (("train", 60), ("test", 5)):
        for name in ("cat", "dog"):
            (tmp_path / "My pets" / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = GENERATOR.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "My pets" / split / name / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_preset_is_written_that_plans_both_models_and_splits(folder, capsys):
    assert main(["init", "--images", "My pets", "--minutes", "2"]) == 0
    said = capsys.readouterr().out
    assert "snakemake --cores all --configfile my-pets.yaml" in said
    study = Study(load("params.yaml", "my-pets.yaml"))
    cells = {(job.spec.dataset, job.spec.model, job.spec.split) for job in study.jobs["train"].values()}
    assert cells == {("my-pets", model, split) for model in ("explicit", "deq") for split in ("balanced", "ka1-r10")}
    epochs = {job.spec.train.epochs for job in study.jobs["train"].values()}
    assert all(f"{count} epochs" in said for count in epochs)


def test_a_file_that_is_there_is_not_overwritten(folder, capsys):
    (folder / "my-pets.yaml").write_text("mine")
    assert main(["init", "--images", "My pets"]) == 1
    assert "my-pets.yaml is there already" in capsys.readouterr().err
    assert (folder / "my-pets.yaml").read_text() == "mine"


def test_a_fault_leaves_no_file(folder, capsys):
    assert main(["init", "--images", "My pets/train"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "eqcollapse init: train: no images in train/<class>/"
    assert not list(folder.glob("*.yaml.*"))
    assert not (folder / "train.yaml").exists()
