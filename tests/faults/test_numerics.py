"""Settings and data at the edge of what can be trained: an honest result, or an error that names the cell."""

import csv
import math

import numpy as np
import pytest

from eqcollapse.data.config import SplitSpec
from eqcollapse.data.splits import write_split
from eqcollapse.data.store import Dataset, write_dataset
from eqcollapse.report.metrics import measure
from eqcollapse.runtime.errors import EqcollapseError
from eqcollapse.training.config import TrainSpec
from eqcollapse.training.job import train
from eqcollapse.training.log import TrainingLog
from equilibria import PLAIN, RESNET, SOLVER, equilibrium
from hostile import size
from projects import merged

pytestmark = pytest.mark.faults

FEWER = SOLVER | {"max_iter": 10}
SPEC = {
    "dataset": "edge",
    "split": "ka1-r2",
    "model": "m",
    "seed": 0,
    "own": {},
    "network": {
        "channels": None, "stem": "cifar", "width": 4, "stages": 2, "blocks": 1, "head": "explicit", "bias": True,
        **RESNET,
    },
    "equilibrium": equilibrium(forward=FEWER, backward=FEWER),
    "train": {
        "epochs": 2, "batch_size": 8, "lr": 0.05, "momentum": 0.9, "weight_decay": 0.0, "loss": "ce",
        "schedule": {"kind": "constant", "every": 1, "factor": 0.1, "warmup": 0},
        "augment": {"crop": 0, "flip": False}, "evaluate": "every", "precision": "float32", "threads": 1,
        "deterministic": True, **PLAIN,
    },
    "snapshots": {"epochs": [1, 2], "layers": "features", "features_per_class": 3},
}  # fmt: skip
DEQ = {"network": {"head": "equilibrium"}}


def images(count: int, side: int = 6, kind: str = "random") -> Dataset:
    """Return `count` images of three classes in turn."""
    labels = np.arange(count) % 3
    if kind == "random":
        pixels = np.random.RandomState(0).randint(0, 200, (count, 1, side, side)) + 20 * labels[:, None, None, None]
    else:
        pixels = np.full((count, 1, side, side), 255 if kind == "white" else 0)
    return Dataset(pixels.astype(np.uint8), labels.astype(np.int64), ("a", "b", "c"), "edge")


def run(
    folder, change: dict, *, count: int = 30, side: int = 6, kind: str = "random", ratio: float = 2.0
) -> list[dict]:
    """Train a cell and measure it; return the rows of collapse.csv."""
    paths = [folder / name for name in ("train.safetensors", "test.safetensors", "split.csv")]
    write_dataset(paths[0], images(count, side, kind))
    write_dataset(paths[1], images(15, side, kind))
    split = {
        "dataset": "edge", "split": "ka1-r2", "majority": 1, "ratio": ratio, "factor": None, "draw": "sha256",
        "majority_classes": "first",
        "per_class": None, "seed": 0, "validation": 0.0,
    }  # fmt: skip
    write_split(SplitSpec.model_validate(split), paths[0], paths[2])
    spec = merged(SPEC, change)
    if spec["network"]["head"] == "explicit":
        spec["equilibrium"] = None
    places = {"device": "cpu", "checkpoint": folder / "checkpoint.pt"}
    train(TrainSpec.model_validate(spec), *paths, folder / "run", **places, log=TrainingLog())
    outputs = [folder / name for name in ("collapse.csv", "accuracy.csv", "answers.safetensors", "summary.json")]
    measure([str(folder / "run/snapshots.safetensors")], [str(folder / "run/history.csv")], *map(str, outputs))
    with open(outputs[0]) as stream:
        return list(csv.DictReader(stream))


RUNS = {
    "batches of one": ({"train": {"batch_size": 1}}, {}),
    "batches of one, pixels of one": ({"train": {"batch_size": 1}, "network": {"stages": 4}}, {}),
    "a last batch of one": ({"train": {"batch_size": 7}}, {"count": 33}),
    "a last batch of one, pixels of one": ({"train": {"batch_size": 7}, "network": {"stages": 4}}, {"count": 33}),
    "a last batch of one, equilibrium of pixels of one": (
        merged(DEQ, {"train": {"batch_size": 7}, "network": {"stages": 4, "head": "equilibrium"}}), {"count": 33},
    ),
    "images of one pixel": (DEQ, {"side": 1}),
    "a batch of more than all": ({"train": {"batch_size": 10**9}}, {}),
    "classes with one sample": ({}, {"ratio": 1000.0}),
    "black images": ({}, {"kind": "black"}),
    "white images": (DEQ, {"kind": "white"}),
    "a learning rate of next to nothing": ({"train": {"lr": 1e-320}}, {}),
    "one iteration": (merged(DEQ, {"equilibrium": {"forward": {"max_iter": 1}, "backward": {"max_iter": 1}}}), {}),
    "a layer that need not contract": (merged(DEQ, {"equilibrium": {"layer": "residual"}}), {}),
    "a bound of next to one": (merged(DEQ, {"equilibrium": {"bound": 1 - 1e-9}}), {}),
    "a penalty of 1e30": (merged(DEQ, {"equilibrium": {"jacobian_penalty": 1e30}}), {}),
    "low precision": (merged(DEQ, {"train": {"precision": "bfloat16"}}), {}),
    "low precision, a penalty": (
        merged(DEQ, {"train": {"precision": "bfloat16"}, "equilibrium": {"jacobian_penalty": 1.0}}), {},
    ),
}  # fmt: skip
QUICK = ["batches of one, pixels of one", "black images", "a bound of next to one"]
DIVERGE = {
    "a learning rate of a million": {"train": {"lr": 1e6}},
    "a learning rate of 1e30": {"train": {"lr": 1e30}},
    "a learning rate of 1e30, equilibrium": merged(DEQ, {"train": {"lr": 1e30}}),
    "a learning rate of 1e7, equilibrium, low precision": merged(DEQ, {"train": {"lr": 1e7, "precision": "bfloat16"}}),
    "a layer that cannot contract": merged(DEQ, {"equilibrium": {"layer": "residual"}, "train": {"lr": 1e3}}),
    "a weight decay of 1e30": {"train": {"weight_decay": 1e30}},
}


@pytest.mark.parametrize("what", size(list(RUNS), QUICK))
def test_edges_are_trained_and_measured(tmp_path, what):
    change, data = RUNS[what]
    try:
        rows = run(tmp_path, change, **data)
    except EqcollapseError as error:
        said = str(error)
        assert "edge/ka1-r2/m/seed-0" in said or "model m" in said, said
        assert said.isprintable()
        return
    assert rows
    for row in rows:
        numbers = [float(value) for name, value in row.items() if name.startswith("nc") and value]
        assert not any(math.isinf(value) for value in numbers), row
        assert not any(math.isnan(value) for value in numbers), row  # what is not defined is left empty


def test_classes_of_one_sample_are_refused_before_training(tmp_path):
    with pytest.raises(EqcollapseError, match=r"^edge: class a has one training image") as caught:
        run(tmp_path, DEQ, count=3)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("what", size(list(DIVERGE), list(DIVERGE)[:2]))
def test_what_diverges_names_the_cell(tmp_path, what):
    with pytest.raises(EqcollapseError, match="edge/ka1-r2/m/seed-0") as caught:
        run(tmp_path, DIVERGE[what])
    assert str(caught.value).isprintable()
    assert not (tmp_path / "run").exists() or not list((tmp_path / "run").iterdir())
