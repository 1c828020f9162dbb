"""What the data do to the study, before anything is trained: classes, samples by split, what the files store.

The job writes a table and prints it, with warnings where the data make of params.yaml something else than it says.
"""

import csv
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from eqcollapse.runtime.files import write_text

from .config import SplitSpec, SummarySpec
from .splits import labelled, split_csv
from .store import Dataset, read_dataset

HEADER = ["set", "label", "class", "group", "samples", "validation"]
FEW_LEVELS = 64
"""Grey levels, of 256; with fewer, most of what the files tell apart is lost, or was never there."""
FAR = 0.1
"""n_A / n_B may differ from R by this share of it before that is said: n_B is a whole number."""
LISTED = 20
"""Classes that are listed by name; of more, the CSV has the names."""


@dataclass(frozen=True)
class Kept:
    """What a split keeps of each class, by label: its group, the samples to train on, those for validation."""

    spec: SplitSpec
    groups: list[str]
    trained: list[int]
    validation: list[int]

    @property
    def sizes(self) -> list[int]:
        """Samples a class, of both parts."""
        return [sum(pair) for pair in zip(self.trained, self.validation, strict=True)]


@dataclass(frozen=True)
class Data:
    """A data set and the splits that the study cuts it into."""

    spec: SummarySpec
    train: Dataset
    test: Dataset
    kept: list[Kept]

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, by label."""
        return self.train.classes

    def counts(self, part: Dataset) -> list[int]:
        """Return how many images of `part` each class has."""
        return np.bincount(part.labels, minlength=len(self.classes)).tolist()


def run(spec: SummarySpec, inputs: list[str], outputs: list[str]) -> None:
    """Write the summary of the data set `inputs` (train, test) to `outputs` (csv, md), and print it."""
    train, test = (read_dataset(path) for path in inputs)
    data = Data(spec, train, test, [kept(split, train.labels, train.classes) for split in spec.splits])
    text = markdown(data)
    table, page = outputs
    write_text(table, rows(data))
    write_text(page, text)
    print(text)


def kept(spec: SplitSpec, labels: np.ndarray, classes: tuple[str, ...]) -> Kept:
    """Return what the split `spec` keeps of a training set with these labels."""
    groups = [""] * len(classes)
    parts: dict[str, list[int]] = {"train": [0] * len(classes), "validation": [0] * len(classes)}
    for row in csv.DictReader(io.StringIO(split_csv(labelled(spec, classes), labels))):
        label = int(row["label"])
        groups[label] = row["group"]
        parts[row["part"]][label] += 1
    return Kept(spec, groups, parts["train"], parts["validation"])


def rows(data: Data) -> str:
    """Return the table as CSV: a row a class, of the whole training and test set and of what each split keeps."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    for name, part in (("train", data.train), ("test", data.test)):
        for label, count in enumerate(data.counts(part)):
            writer.writerow([name, label, data.classes[label], "", count, 0])
    for split in data.kept:
        columns = zip(data.classes, split.groups, split.trained, split.validation, strict=True)
        for label, (name, group, trained, validation) in enumerate(columns):
            writer.writerow([split.spec.split, label, name, group, trained, validation])
    return text.getvalue()


def markdown(data: Data) -> str:
    """Return the summary as people read it: what there is, the warnings, the splits, the classes."""
    parts = [f"# Data: {data.spec.dataset}", " ".join(_facts(data))]
    parts += [f"Warning: {line}." for line in warnings(data)]
    lines = ["| Split | n_A | n_B | n_A / n_B | To train on | Validation | Majority classes |"]
    lines += ["|---|---:|---:|---:|---:|---:|---|", *(_split_line(data, split) for split in data.kept)]
    parts.append("\n".join(lines))
    if len(data.classes) <= LISTED:
        lines = ["| Label | Class | Train | Test |", "|---:|---|---:|---:|"]
        columns = zip(data.classes, data.counts(data.train), data.counts(data.test), strict=True)
        lines += [
            f"| {label} | {_cell(name)} | {train} | {test} |" for label, (name, train, test) in enumerate(columns)
        ]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _facts(data: Data) -> Iterator[str]:
    """Yield sentences about the images."""
    count, channels, height, width = data.train.images.shape
    yield f"{len(data.classes)} classes, {count} images to train on, {len(data.test.images)} to test."
    yield f"They are {width} x {height} pixels with {channels} channel{'s' * (channels > 1)}, values {_range(data)}."
    stored = [part.stored for part in (data.train, data.test) if part.stored]
    if stored:
        modes = sum((Counter(facts["modes"]) for facts in stored), Counter())
        counted = ", ".join(f"{mode} ({number})" for mode, number in modes.items())
        yield f"The files have {_between(stored, 'width')} x {_between(stored, 'height')} pixels"
        yield f"(width / height {_between(stored, 'aspect')}), modes {counted},"
        ranges = (f"{low} to {high} of {2 ** int(bits) - 1}" for bits, (low, high) in _ranges(stored).items())
        yield f"values {', '.join(ranges)}."


def _split_line(data: Data, split: Kept) -> str:
    sizes = split.sizes
    majority = [data.classes[label] for label, group in enumerate(split.groups) if group == "majority"]
    named = ", ".join(map(_cell, majority)) if len(majority) <= LISTED else f"{len(majority)} classes"
    if majority and split.spec.majority_classes == "random":
        named += f" (with splits.seed {split.spec.seed})"
    ratio = f"{max(sizes) / min(sizes):.4g}"
    cells = [split.spec.split, max(sizes), min(sizes), ratio, sum(split.trained), sum(split.validation), named]
    return f"| {' | '.join(map(str, cells))} |"


def warnings(data: Data) -> Iterator[str]:
    """Yield what the data make different from what params.yaml says, a sentence each."""
    yield from _count_warnings(data)
    yield from _split_warnings(data)
    yield from _pixel_warnings(data)
    yield from _twin_warnings(data)


def _count_warnings(data: Data) -> Iterator[str]:
    counts, name = data.counts(data.train), data.spec.dataset
    fewest = min(counts)
    labels = [label for label, count in enumerate(counts) if count == fewest]
    smallest = f"the smallest class{'es' * (len(labels) > 1)} ({_named(data, labels)})"
    wanted = {split.spec.per_class for split in data.kept if split.spec.per_class is not None}
    if wanted and max(wanted) > fewest:
        yield (
            f"datasets.{name}.per_class is {max(wanted)}, and of {smallest} there are {fewest} images: n_A is {fewest}"
        )
    elif not wanted and fewest < 0.5 * np.median(counts):
        yield (
            f"of {smallest} there are {fewest} images, of half of the classes {np.median(counts):g} or more: "
            f"n_A is {fewest} for all"
        )
    lonely = [label for label, count in enumerate(data.counts(data.test)) if count == 1]
    if lonely:
        yield f"one image alone tests each of {_named(data, lonely)}: their accuracy is 0 or 1"


def _split_warnings(data: Data) -> Iterator[str]:
    same: dict[tuple, list[str]] = {}
    for split in data.kept:
        same.setdefault((split.spec.draw, *split.sizes, *split.validation), []).append(split.spec.split)
        ratio, got = split.spec.ratio, max(split.sizes) / min(split.sizes)
        if ratio is not None and abs(got - ratio) > FAR * ratio:
            yield f"{split.spec.split}: n_A / n_B is {got:.3g}, since n_B is a whole number from 1"
        if split.spec.split != "balanced" and min(split.trained) == 0:
            yield f"{split.spec.split}: validation leaves no image of some class to train on"
    for names in same.values():
        if len(names) > 1:
            yield f"{' and '.join(names)} keep the same number of each class: they are one split, trained twice"


def _pixel_warnings(data: Data) -> Iterator[str]:
    stored = [part.stored for part in (data.train, data.test) if part.stored]
    ranges = _ranges(stored)
    if "16" in ranges and ranges["16"][1] < 1 << 15:
        largest = ranges["16"][1]
        bits = max(1, largest.bit_length())
        yield (
            f"16-bit files have values up to {largest} of 65535, as of {bits} bits: brought to 8 bits, "
            f"{_levels(largest)} levels are left; multiply the stored values by {1 << (16 - bits)}"
        )
    levels = int(np.count_nonzero(_histogram(data.train)))
    if levels < FEW_LEVELS and data.train.stored:
        yield f"the images have {levels} of 256 levels"
    if not stored:
        return
    least, most = _range_of(stored, "aspect")
    if data.spec.size is not None and not 0.9 < least <= most < 1.1:
        side = data.spec.size
        yield f"width / height is {_between(stored, 'aspect')}, and all are squeezed to {side} x {side}"
    modes = {mode for facts in stored for mode in facts["modes"]}
    clear = sorted(mode for mode in modes if mode in ("LA", "La", "PA", "RGBA", "RGBa"))
    if clear:
        yield f"files of mode {', '.join(clear)} have transparency, which is dropped"
    grey = sorted(mode for mode in modes if mode in ("1", "L", "LA", "La") or mode.startswith("I"))
    if grey and data.train.images.shape[1] == 3:
        yield f"some files are grey ({', '.join(grey)}), others in colour: grey ones are repeated to three channels"


def _levels(highest: int) -> int:
    """Return how many values of 8 bits those of 16 bits up to `highest` become (see images.py)."""
    return (highest + 128) // 257 + 1


def _twin_warnings(data: Data) -> Iterator[str]:
    if not data.train.stored:
        return
    known = {image.tobytes() for image in data.train.images}
    twins = sum(image.tobytes() in known for image in data.test.images)
    if twins:
        yield f"{twins} of {len(data.test.images)} test images are in the training set, too"


def _named(data: Data, labels: list[int]) -> str:
    names = [data.classes[label] for label in labels[:3]]
    more = f" and {len(labels) - 3} more" if len(labels) > 3 else ""
    return f"{', '.join(names)}{more}"


def _histogram(part: Dataset) -> np.ndarray:
    return np.bincount(part.images.reshape(-1), minlength=256)


def _range(data: Data) -> str:
    return f"{int(data.train.images.min())} to {int(data.train.images.max())}"


def _ranges(stored: list[dict]) -> dict[str, tuple[int, int]]:
    """Return the lowest and highest stored value, by bits a channel."""
    found: dict[str, tuple[int, int]] = {}
    for facts in stored:
        for bits, (low, high) in facts["ranges"].items():
            least, most = found.get(bits, (low, high))
            found[bits] = min(low, least), max(high, most)
    return found


def _range_of(stored: list[dict], key: str) -> tuple[float, float]:
    return min(facts[key][0] for facts in stored), max(facts[key][1] for facts in stored)


def _between(stored: list[dict], key: str) -> str:
    low, high = _range_of(stored, key)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _cell(name: str) -> str:
    return name.replace("|", "\\|")
