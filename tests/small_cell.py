"""A cell that trains in a second: 60 random images of three classes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from eqcollapse.data.splits import write_split
from eqcollapse.data.store import Dataset, write_dataset
from equilibria import PLAIN, RESNET, equilibrium
from split_specs import imbalanced


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
    write_split(imbalanced(1, 2, dataset="noise"), paths[0], paths[2])
    return paths


def end_after_steps(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Tell the job to end, once, after `count` steps of SGD."""
    step, steps = torch.optim.SGD.step, []

    def step_or_end(optimizer, *arguments):
        step(optimizer, *arguments)
        steps.append(optimizer)
        if len(steps) == count:
            raise KeyboardInterrupt

    monkeypatch.setattr(torch.optim.SGD, "step", step_or_end)
