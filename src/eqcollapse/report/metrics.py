"""From the snapshots and histories of all runs to two tables, collapse.csv and accuracy.csv, the answers on the test
images that accuracies are means of, and a short summary.
"""

import csv
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor
from tqdm import tqdm

from eqcollapse.collapse.metrics import class_metrics, collapse_metrics
from eqcollapse.collapse.moments import Moments
from eqcollapse.report.answers import Answers, RunKey, write_answers
from eqcollapse.report.config import CollapseSpec
from eqcollapse.runtime.files import replacing, write_text
from eqcollapse.training.job import METADATA

CELL = ("dataset", "split", "model", "seed")
GROUPS = tuple(f"{part}_accuracy_{group}" for part in ("test", "train") for group in ("majority", "minority"))
"""Columns that accuracy.csv always has, empty where no split is imbalanced."""
SUMMARY = {
    "test_accuracy": "test_accuracy",
    "sun2024_nc1": "nc1",
    "sun2024_nc2": "nc2",
    "sun2024_nc3": "nc3",
}
"""The columns that the summary has, and what it calls them."""


def run(spec: CollapseSpec, inputs: list[str], outputs: list[str]) -> None:
    """Measure the runs whose snapshots and then histories `inputs` are; see `measure` for `outputs`."""
    half = len(inputs) // 2
    measure(inputs[:half], inputs[half:], *outputs)


def measure(
    snapshots: list[str], histories: list[str], collapse: str, accuracy: str, answers: str, summary: str
) -> None:
    """Write a row a (run, epoch, layer) to `collapse`, a row a (run, epoch) to `accuracy`, which test images each run
    got right to `answers`, and `summarised` of both tables.
    """
    torch.set_num_threads(1)
    measured, learned, answered = [], [], Answers({}, {}, {})
    runs = zip(snapshots, histories, strict=True)
    for snapshot, history in tqdm(list(runs), "measuring", unit="run", file=sys.stderr, mininterval=1, disable=None):
        about, tensors = _read(snapshot)
        cell = {name: about[name] for name in CELL}
        _add_answers(answered, tuple(cell.values()), tensors, about["majority"])
        measured += [cell | row for row in _collapse_rows(tensors, about["majority"], len(about["classes"]))]
        with open(history, newline="") as stream:
            learned += [cell | dict.fromkeys(GROUPS, "") | row for row in csv.DictReader(stream)]
    _write(collapse, measured)
    _write(accuracy, learned)
    write_answers(answers, answered)
    last = [row for row in measured if row["layer"] == "features"]
    write_text(summary, json.dumps(summarised([*last, *learned]), indent=1) + "\n")


def _add_answers(answered: Answers, cell: RunKey, tensors: dict[str, Tensor], majority: list[int]) -> None:
    """Move a run's answers from its snapshots to those of all runs."""
    own = {name: tensors.pop(name).numpy() for name in list(tensors) if name.startswith("answers/")}
    answered.labels[cell[0]] = own.pop("answers/labels")
    answered.right[cell] = {name.removeprefix("answers/"): right for name, right in own.items()}
    answered.majority[cell] = tuple(majority)


def summarised(rows: list[dict]) -> dict:
    """Return the columns of `SUMMARY` in each run's last epoch, averaged over seeds: data set, split, model, name.

    None where a run has no number in its last epoch: no earlier one stands in for it.
    """
    ends: dict[tuple[str, ...], tuple[int, float]] = {}
    for row in rows:
        for column, name in SUMMARY.items():
            key = (*(str(row[part]) for part in CELL), name)
            if column in row and int(row["epoch"]) >= ends.get(key, (0, 0.0))[0]:
                ends[key] = int(row["epoch"]), float(row[column] or "nan")
    means: dict = {}
    for (dataset, split, model, _, name), (_, value) in ends.items():
        means.setdefault(dataset, {}).setdefault(split, {}).setdefault(model, {}).setdefault(name, []).append(value)
    return _averaged(means)


def _averaged(tree: dict) -> dict:
    """Replace the lists that are the leaves of `tree` by their means, to six digits; None where one is nan."""
    return {key: _averaged(value) if isinstance(value, dict) else _mean(value) for key, value in tree.items()}


def _mean(values: list[float]) -> float | None:
    mean = sum(values) / len(values)
    return None if math.isnan(mean) else float(f"{mean:.6g}")


def _read(path: str) -> tuple[dict, dict[str, Tensor]]:
    with safe_open(path, framework="pt") as stream:
        about = json.loads(stream.metadata()[METADATA])
        return about, {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118  (not a mapping)


def _collapse_rows(tensors: dict[str, Tensor], majority: list[int], num_classes: int) -> Iterator[dict]:
    for epoch, kept in _grouped(tensors).items():
        weight, bias = kept.pop("weight"), kept.pop("bias", None)
        for layer, moments in _grouped(kept).items():
            W, b = (weight, bias) if layer == "features" else (None, None)  # W reads no other layer
            metrics = collapse_metrics(Moments.from_tensors(moments), W, b, majority=majority or None)
            row = {"epoch": int(epoch.removeprefix("epoch-")), "layer": layer, **metrics}
            if layer == "features":
                row |= _least_accuracy(Moments.from_tensors(moments), weight, bias, majority)
            yield row


def _least_accuracy(moments: Moments, weight: Tensor, bias: Tensor | None, majority: list[int]) -> dict[str, float]:
    """Return the training accuracy of the class that has the lowest, of all classes and of both groups (nan: none).

    Whether a class is learnt shows in no mean over classes.
    """
    of_class = class_metrics(moments, weight, bias)["accuracy"]
    minority = sorted(set(range(len(of_class))) - set(majority)) if majority else []
    groups = {"": list(range(len(of_class))), "_majority": majority, "_minority": minority}
    return {
        f"accuracy_least{name}": of_class[classes].min().item() if classes else math.nan
        for name, classes in groups.items()
    }


def _grouped(tensors: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Return tensors named `a/b` as {a: {b: tensor}}, those without a slash as they are."""
    groups: dict = {}
    for name in sorted(tensors):
        first, slash, rest = name.partition("/")
        if slash:
            groups.setdefault(first, {})[rest] = tensors[name]
        else:
            groups[first] = tensors[name]
    return groups


def _write(path: str, rows: list[dict]) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with replacing(Path(path)) as temporary, open(temporary, "w", newline="") as stream:
        writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _plain(value) for name, value in row.items()} for row in rows)


def _plain(value: object) -> object:
    return "" if isinstance(value, float) and math.isnan(value) else value
