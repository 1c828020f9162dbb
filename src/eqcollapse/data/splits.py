"""Which training samples a cell keeps: balanced, KA majority and KB minority classes at the ratio R, or a long tail.

Every sample has a rank in its class: its place when the class is sorted by SHA-256 of
`<seed>/<label>/<index>`. The order so depends on nothing but these three integers, whatever the version of
any library. A split keeps the first n_k samples of each class, so for one seed the samples of a higher ratio
are among those of a lower one. Sample r (from 0) of a class is for validation if floor((r + 1) v) > floor(r
v), v the share: of every n kept samples exactly floor(n v) are, and no sample changes its part with the
ratio.

A long tail has the exponential profile n_k = floor(n IF^(-k / (K - 1))), k = 0 .. K - 1, with the imbalance factor IF
= n_0 / n_(K - 1). The split `ldam-<IF>` of CIFAR-10 and CIFAR-100 has the very samples of the code of LDAM (Cao et al.
2019, imbalance_cifar.py): numpy's legacy generator with their `rand_number`, which is 0, shuffles the indices of one
class after the other, and the first n_k of each stay. numpy promises that this generator's numbers stay as they are.
"""

import csv
import hashlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from fractions import Fraction
from pathlib import Path

import numpy as np

from eqcollapse.runtime.errors import EqcollapseError
from eqcollapse.runtime.files import write_text
from eqcollapse.runtime.nearest import nearest

from .config import SplitSpec
from .store import read_classes, read_labels

HEADER = ["index", "label", "group", "part"]
GROUPS = ("balanced", "majority", "minority", "longtail")
PARTS = ("train", "validation")


@dataclass(frozen=True)
class Split:
    """A split: what to train on and what to validate on, as indices into the training set.

    `indices` (int64, ascending) are the samples to train on, `labels` their labels; `validation` are the
    indices kept for validation. `majority` holds the majority classes, ascending; it is empty for a balanced
    split and for a long tail.
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
    labels, classes = read_labels(train_file), read_classes(train_file)
    _check_scatter(spec, labels, classes)
    write_text(output, split_csv(labelled(spec, classes), labels))


def labelled(spec: SplitSpec, classes: tuple[str, ...]) -> SplitSpec:
    """Return `spec` with the labels of the `majority_classes` that it names; EqcollapseError for a name of no class.

    A number is a label. Text is a name, and if there is no such class and it is a number, a label, too.
    """
    if not isinstance(spec.majority_classes, list):
        return spec
    labels = [_label(spec, chosen, classes) for chosen in spec.majority_classes]
    return spec.model_copy(update={"majority_classes": labels})


def _label(spec: SplitSpec, chosen: int | str, classes: tuple[str, ...]) -> int:
    if isinstance(chosen, int):
        return chosen
    if chosen in classes:
        return classes.index(chosen)
    if chosen.isdecimal():
        return int(chosen)
    raise EqcollapseError(
        f"splits.majority_classes: {chosen!r} is no class of {spec.dataset}{nearest(chosen, classes)}: "
        f"{', '.join(classes)}"
    )


def _check_scatter(spec: SplitSpec, labels: np.ndarray, classes: tuple[str, ...]) -> None:
    """Refuse a data set of which no class keeps two samples: NC1 would be 0 from the start."""
    counts = np.bincount(labels)
    if counts.min(initial=2) == 1:
        raise EqcollapseError(
            f"{spec.dataset}: class {classes[int(counts.argmin())]} has one training image, so that every class keeps "
            "one: it has no scatter, and NC1 is 0 from the start; give it at least 2 images, or leave it out"
        )


def split_csv(spec: SplitSpec, labels: np.ndarray) -> str:
    """The CSV of `write_split`, for `labels` (int64, N) of a training set in which every class occurs."""
    counts = np.bincount(labels)
    if counts.min(initial=1) == 0:
        raise EqcollapseError(f"{spec.dataset}: class {int(counts.argmin())} has no training samples")
    majority = majority_classes(spec, len(counts))
    kept = class_sizes(spec, counts, majority)
    members = [np.flatnonzero(labels == label) for label in range(len(counts))]
    orders = (ldam_orders if spec.draw == "ldam" else _orders)(members, spec.seed)
    share = Fraction(str(spec.validation))
    rows = []
    for label, (size, order) in enumerate(zip(kept, orders, strict=True)):
        group = group_of(spec, label in majority)
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
    if isinstance(choice, list) and len(choice) < majority:
        raise EqcollapseError(
            f"majority_classes = {choice} of {spec.dataset}: {majority} different labels of "
            f"0..{num_classes - 1} are needed for majority = {majority}"
        )
    return tuple(sorted(class_order(spec, num_classes)[:majority]))


def class_order(spec: SplitSpec, num_classes: int) -> list[int]:
    """All labels, the largest classes first: the head of a long tail, or the majority.

    "first": as they are; "random": by SHA-256 of `<seed>/class/<label>`; of a list, the others follow ascending.
    """
    choice = spec.majority_classes
    if choice == "first":
        return list(range(num_classes))
    if choice == "random":
        return sorted(range(num_classes), key=lambda label: _digest(spec.seed, "class", label))
    labels = [label for label in choice if isinstance(label, int)]  # names are labels by now: see labelled
    if len(set(labels)) != len(choice) or not set(labels) <= set(range(num_classes)):
        raise EqcollapseError(
            f"majority_classes = {choice} of {spec.dataset}: different labels of 0..{num_classes - 1} are needed"
        )
    return [*labels, *sorted(set(range(num_classes)) - set(labels))]


def class_sizes(spec: SplitSpec, counts: np.ndarray, majority: tuple[int, ...]) -> list[int]:
    """How many samples each class keeps: n_A = min(per_class, smallest class) or max(1, round(n_A / R)).

    A half is rounded to the even neighbour, as Python does. In a long tail n_A is the size of the first class.
    """
    largest = int(counts.min())
    if spec.per_class is not None:
        largest = min(largest, spec.per_class)
    if spec.factor is not None:
        sizes = exponential_sizes(largest, len(counts), spec.factor)
        return [sizes[place] for place in np.argsort(class_order(spec, len(counts)))]
    if spec.majority is None:
        return [largest] * len(counts)
    fewest = max(1, round(Fraction(largest) / Fraction(str(spec.ratio))))
    return [largest if label in majority else fewest for label in range(len(counts))]


def exponential_sizes(largest: int, num_classes: int, factor: float) -> list[int]:
    """The sizes n_k = max(1, floor(n IF^(-k / (K - 1)))) of a long tail: n = `largest`, K = `num_classes`, IF =
    `factor`.

    In decimals, which are the same on every machine; what is within 1e-30 of a whole number is that number.

    Example:
        >>> exponential_sizes(5000, 10, 100)
        [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    """
    with localcontext(prec=60):
        powers = [Decimal(str(factor)) ** (-Decimal(k) / max(num_classes - 1, 1)) for k in range(num_classes)]
        return [max(1, math.floor(largest * power + Decimal("1e-30"))) for power in powers]


def group_of(spec: SplitSpec, in_majority: bool) -> str:
    """The group of a class, one of `GROUPS`."""
    if spec.factor is not None:
        return "longtail"
    return "balanced" if spec.majority is None else "majority" if in_majority else "minority"


def ldam_orders(members: Sequence[np.ndarray], seed: int) -> list[list[int]]:
    """The indices of each class, given ascending, in the order of LDAM's draw; `seed` is its `rand_number`."""
    generator = np.random.RandomState(seed)
    orders = [indices.astype(np.int64) for indices in members]
    for order in orders:
        generator.shuffle(order)
    return [order.tolist() for order in orders]


def _orders(members: Sequence[np.ndarray], seed: int) -> list[list[int]]:
    return [ranked(indices, label, seed) for label, indices in enumerate(members)]


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
