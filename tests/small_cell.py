"""A cell that trains in a second: 60 random images of three classes."""

from pathlib import Path

import numpy as np

from eqcollapse.data.config import SplitSpec
from eqcollapse.data.splits import write_split
from eqcollapse.data.store import Dataset, write_dataset
from equilibria import PLAIN, RESNET, equilibrium


def small_spec() -> dict:
    """The resolved settings of a small cell."""
    return {
        "dataset": "noise",
        "split": "ka1-r2",
        "model": "deq",
        "seed": 0,
        "own": {},
        "network": {
            "channels": None,
            "stem": "cifar",
            "width": 8,
            "stages": 2,
            "blocks": 1,
            "head": "equilibrium",
            "bias": True,
            **RESNET,
        },
        "equilibrium": equilibrium(),
        "train": {
            "epochs": 4,
            "batch_size": 16,
            "lr": 0.05,
            "momentum": 0.9,
            "weight_decay": 5e-4,
            "loss": "ce",
            **PLAIN,
            "schedule": {"kind": "cosine", "every": 1, "factor": 0.1, "warmup": 1},
            "augment": {"crop": 1, "flip": True},
            "evaluate": "every",
            "precision": "float32",
            "threads": 1,
            "deterministic": True,
        },
        "snapshots": {"epochs": [1, 3, 4], "layers": "features", "features_per_class": 5},
    }


def write_files(folder: Path) -> list[Path]:
    """Write train, test and split files to `folder`; return their paths."""
    draw = np.random.RandomState(0)
    paths = [folder / name for name in ("train.safetensors", "test.safetensors", "split.csv")]
    for path, count in zip(paths, (60, 30), strict=False):
        labels = np.arange(count) % 3
        images = draw.randint(0, 200, (count, 1, 6, 6)) + 25 * labels[:, None, None, None]
        write_dataset(path, Dataset(images.astype(np.uint8), labels.astype(np.int64), ("a", "b", "c"), "noise"))
    split = {
        "dataset": "noise",
        "split": "ka1-r2",
        "majority": 1,
        "ratio": 2.0,
        "factor": None,
        "draw": "sha256",
        "majority_classes": "first",
        "per_class": None,
        "seed": 0,
        "validation": 0.0,
    }
    write_split(SplitSpec.model_validate(split), paths[0], paths[2])
    return paths
