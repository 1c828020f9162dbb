"""Which test images each run got right in its last epoch, and how far a sum of accuracies hangs on each image.

An accuracy is a mean over the test images that happen to be there, and so is a difference of two accuracies. How much
it would move with other images shows in its deviations: those of `contrast` below, a number an image.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from eqcollapse.runtime.files import replacing

METADATA = "eqcollapse.answers"
TEST = "test"
"""The forward pass as trained; a DEQ's other two are `skipped` and `solved`."""

RunKey = tuple[str, str, str, int]


@dataclass(frozen=True)
class Contrast:
    """A sum of test accuracies: over (model, forward pass) pairs and over groups of classes, each with its sign.

    `{("deq", "test"): 1, ("explicit", "test"): -1}` on `{"minority": 1}` is the DEQ's accuracy on minority classes less
    the explicit network's.
    """

    models: Mapping[tuple[str, str], int]
    groups: Mapping[str, int]


@dataclass(frozen=True)
class Answers:
    """The answers of all runs.

    `labels` has the test labels of each data set (N), `right` for each run (data set, split, model, seed) and forward
    pass 1 where it is right (N), `majority` the majority classes of each run.
    """

    labels: dict[str, np.ndarray]
    right: dict[RunKey, dict[str, np.ndarray]]
    majority: dict[RunKey, tuple[int, ...]]

    def deviations(self, dataset: str, split: str, seed: int, contrast: Contrast) -> np.ndarray:
        """Return by how much each test image moves `contrast`, of runs of one seed on one split.

        Image i of a group of n moves its accuracy by (right_i - mean) / n, and other images by nothing. Behind the N
        images stand two more for each group, one that is won and one that is lost: +1/n and -1/n. So an accuracy of 0
        or 1, or a difference of 0 on all images, has an uncertainty: that of a test set without such images.
        """
        moves = np.zeros(len(self.labels[dataset]))
        ends = []
        for group, group_sign in contrast.groups.items():
            for (model, way), sign in contrast.models.items():
                cell = (dataset, split, model, seed)
                among = self._members(cell, group)
                right = self.right[cell][way][among]
                moves[among] += group_sign * sign * (right - right.mean()) / len(right)
            ends += [1 / len(right), -1 / len(right)]
        return np.append(moves, ends)

    def _members(self, cell: RunKey, group: str) -> np.ndarray:
        """Return which test images are of `group`: overall, majority or minority."""
        labels = self.labels[cell[0]]
        if group == "overall":
            return np.ones(len(labels), dtype=bool)
        return np.isin(labels, self.majority[cell], invert=group == "minority")


def write_answers(path: str | Path, answers: Answers) -> None:
    """Write `answers` as safetensors: `<data set>/labels`, and `<data set>/<split>/<model>/<seed>/<pass>` a run."""
    tensors = {f"{dataset}/labels": labels for dataset, labels in answers.labels.items()}
    for cell, ways in answers.right.items():
        tensors |= {f"{_name(cell)}/{way}": right for way, right in ways.items()}
    majority = {_name(cell): list(classes) for cell, classes in answers.majority.items()}
    metadata = {METADATA: json.dumps(majority, sort_keys=True)}
    with replacing(Path(path), sum(tensor.nbytes for tensor in tensors.values())) as temporary:
        save_file(tensors, temporary, metadata)


def read_answers(path: str | Path) -> Answers:
    """Read a file of `write_answers`."""
    labels: dict[str, np.ndarray] = {}
    right: dict[RunKey, dict[str, np.ndarray]] = {}
    with safe_open(path, framework="numpy") as stream:
        majority = json.loads(stream.metadata()[METADATA])
        for name in stream.keys():  # noqa: SIM118  (not a mapping)
            first, _, last = name.rpartition("/")
            if last == "labels":
                labels[first] = stream.get_tensor(name)
            else:
                right.setdefault(_cell(first), {})[last] = stream.get_tensor(name)
    return Answers(labels, right, {_cell(name): tuple(classes) for name, classes in majority.items()})


def accuracy_of(model: str, group: str, way: str = TEST) -> Contrast:
    """Return the test accuracy of one model on a group, under a forward pass."""
    return Contrast({(model, way): 1}, {group: 1})


def difference(first: str, second: str, groups: Mapping[str, int]) -> Contrast:
    """Return the accuracy of the `second` model less that of the `first`."""
    return Contrast({(first, TEST): -1, (second, TEST): 1}, groups)


def _name(cell: RunKey) -> str:
    return "/".join(map(str, cell))


def _cell(name: str) -> RunKey:
    dataset, split, model, seed = name.split("/")
    return dataset, split, model, int(seed)
