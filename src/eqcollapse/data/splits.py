"""Which training samples a cell keeps: balanced, or KA majority and KB minority classes at the ratio R.

Every sample has a rank in its class: its place when the class is sorted by SHA-256 of
`<seed>/<label>/<index>`. The order so depends on nothing but these three integers, whatever the version of
any library. A split keeps the first n_k samples of each class, so for one seed the samples of a higher ratio
are among those of a lower one. Sample r (from 0) of a class is for validation if floor((r + 1) v) > floor(r
v), v the share: of every n kept samples exactly floor(n v) are, and no sample changes its part with the
ratio.
"""

import csv
import hashlib
import io
import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from eqcollapse.runtime.errors import EqcollapseError
from eqcollapse.runtime.files import write_text

from .config import SplitSpec
from .store import read_labels

HEADER = ["index", "label", "group", "part"]
GROUPS = ("balanced", "majority", "minority")
PARTS = ("train", "validation")


@dataclass(frozen=True)
class Split:
    """A split: what to train on and what to validate on, as indices into the training set.

    `indices` (int64, ascending) are the samples to train on, `labels` their labels; `validation` are the
    indices kept for validation. `majority` holds the majority classes, ascending; it is empty for a balanced
    split.
    """

    indices: np.ndarray
    labels: np.ndarray
    majority: tuple[int, ...]
    validation: np.ndarray


def run(spec: SplitSpec, inputs: list[str], outputs: list[str]) -> None:
    """Write the split of `spec` of the training set `inputs` (one file) to `outputs` (one file)."""
    (train,), (split,) = inputs, outputs
    write_split(spec, train, split)


def write_split(spec: SplitSpec, train_file: str | Path, output: str | Path) -> None:
    """Write the split that `spec` describes of the data set in `train_file` as CSV `index,label,group,part`.

    Of a list of `majority_classes` the first KA are taken. Raises EqcollapseError for a spec that the data set cannot
    satisfy.
    """
    labels = read_labels(train_file)
    write_text(output, split_csv(spec, labels))


def split_csv(spec: SplitSpec, labels: np.ndarray) -> str:
    """The CSV of `write_split`, for `labels` (int64, N) of a training set in which every class occurs."""
    counts = np.bincount(labels)
    if counts.min(initial=1) == 0:
        raise EqcollapseError(f"{spec.dataset}: class {int(counts.argmin())} has no training samples")
    majority = majority_classes(spec, len(counts))
    kept = class_sizes(spec, counts, majority)
    share = Fraction(str(spec.validation))
    rows = []
    for label, size in enumerate(kept):
        order = ranked(np.flatnonzero(labels == label), label, spec.seed)
        group = "balanced" if spec.majority is None else "majority" if label in majority else "minority"
        rows += [(index, label, group, part(rank, share)) for rank, index in enumerate(order[:size])]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows(sorted(rows))
    return text.getvalue()


def majority_classes(spec: SplitSpec, num_classes: int) -> tuple[int, ...]:
    """The KA majority labels, ascending; none for a balanced split.

    "random": the first KA by SHA-256 of `<seed>/class/<label>`, so those of KA = 3 are among those of 5.
    """
    majority = spec.majority
    if majority is None:
        return ()
    if majority >= num_classes:
        raise EqcollapseError(
            f"majority = {majority}: {spec.dataset} has {num_classes} classes; at most {num_classes - 1}"
        )
    choice = spec.majority_classes
    if choice == "first":
        return tuple(range(majority))
    if choice == "random":
        order = sorted(range(num_classes), key=lambda label: _digest(spec.seed, "class", label))
        return tuple(sorted(order[:majority]))
    chosen = set(choice[:majority])
    if len(chosen) != majority or not chosen <= set(range(num_classes)):
        raise EqcollapseError(
            f"majority_classes = {choice} of {spec.dataset}: {majority} different labels of "
            f"0..{num_classes - 1} are needed for majority = {majority}"
        )
    return tuple(sorted(chosen))


def class_sizes(spec: SplitSpec, counts: np.ndarray, majority: tuple[int, ...]) -> list[int]:
    """How many samples each class keeps: n_A = min(per_class, smallest class) or max(1, round(n_A / R)).

    A half is rounded to the even neighbour, as Python does.
    """
    largest = int(counts.min())
    if spec.per_class is not None:
        largest = min(largest, spec.per_class)
    if spec.majority is None:
        return [largest] * len(counts)
    fewest = max(1, round(Fraction(largest) / Fraction(str(spec.ratio))))
    return [largest if label in majority else fewest for label in range(len(counts))]


def ranked(indices: np.ndarray, label: int, seed: int) -> list[int]:
    """`indices` of one class in the order of the module's docstring."""
    return sorted(indices.tolist(), key=lambda index: _digest(seed, label, index))


def part(rank: int, share: Fraction) -> str:
    """Return "validation" or "train" for the sample of this rank (from 0) in its class."""
    return PARTS[math.floor((rank + 1) * share) > math.floor(rank * share)]


def read_split(path: str | Path) -> Split:
    """Read a CSV of `write_split`; raises EqcollapseError naming the line that is not of its form."""
    path = Path(path)
    rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"))))
    if not rows or rows[0] != HEADER:
        raise EqcollapseError(f"{path}: the first line must be {','.join(HEADER)}; make the split anew")
    parsed = [_parse(row, path, line) for line, row in enumerate(rows[1:], start=2)]
    indices = np.array([row[0] for row in parsed], dtype=np.int64)
    if (np.diff(indices) <= 0).any():
        raise EqcollapseError(f"{path}: indices must ascend without repetition; make the split anew")
    labels = np.array([row[1] for row in parsed], dtype=np.int64)
    training = np.array([row[3] == "train" for row in parsed], dtype=bool)
    return Split(
        indices=indices[training],
        labels=labels[training],
        majority=tuple(sorted({row[1] for row in parsed if row[2] == "majority"})),
        validation=indices[~training],
    )


def _parse(row: list[str], path: Path, line: int) -> tuple[int, int, str, str]:
    try:
        index, label, group, name = row
        parsed = (int(index), int(label), GROUPS[GROUPS.index(group)], PARTS[PARTS.index(name)])
    except ValueError as error:
        raise EqcollapseError(f"{path}, line {line}: not index,label,group,part; make the split anew") from error
    if parsed[0] < 0 or parsed[1] < 0:
        raise EqcollapseError(f"{path}, line {line}: a negative index or label; make the split anew")
    return parsed


def _digest(*parts: object) -> bytes:
    return hashlib.sha256("/".join(map(str, parts)).encode()).digest()
