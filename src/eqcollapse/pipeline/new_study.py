"""A study of one's own images: a preset with the numbers of majority classes, samples and epochs that fit them."""

import json
import re
from dataclasses import dataclass

from eqcollapse.data.survey import Survey
from eqcollapse.runtime.errors import EqcollapseError

LARGEST_SIDE = 32
"""Pixels. Larger images, and those of several sizes, are resized to this."""
SEEDS = (0, 1, 2)
ENOUGH = 30
"""Epochs in which the demo collapses. Fewer samples are taken before there are fewer epochs."""
MOST = 100
FEWEST_SAMPLES = 50
"""A class is not cut to fewer for the sake of time."""
SNAPSHOTS = 12
FORWARD = 1 / 3
"""The share of a training step that a forward pass takes, about."""
START = 10.0
"""Seconds that a cell takes beside its training, about: its start, its files, its part of the report."""


@dataclass(frozen=True)
class Choice:
    """What fits: KA, R, training samples of the largest class, epochs, and the seconds that all of it takes."""

    majority: int
    ratio: int
    per_class: int
    epochs: int
    seconds: float


def choose(found: Survey, seconds: float, costs: list[float]) -> Choice:
    """Return what fits into `seconds` of one processor core.

    `costs` are the seconds that a training image takes in each model, see `training.timing`.
    """
    smallest = min(found.train)
    majority = max(1, round(0.3 * len(found.classes)))
    chosen = _choice(found, majority, smallest, seconds, costs)
    while chosen.epochs < ENOUGH and chosen.per_class > min(smallest, FEWEST_SAMPLES):
        fewer = max(min(smallest, FEWEST_SAMPLES), int(0.9 * chosen.per_class))
        chosen = _choice(found, majority, fewer, seconds, costs)
    return chosen


def _choice(found: Survey, majority: int, per_class: int, seconds: float, costs: list[float]) -> Choice:
    ratio = 10 if per_class >= FEWEST_SAMPLES else max(2, per_class // 5)
    classes, tested = len(found.classes), sum(found.test)
    minority = -(-per_class // ratio)
    sizes = [classes * per_class, majority * per_class + (classes - majority) * minority]
    cells = len(sizes) * len(costs) * len(SEEDS)
    epoch = len(SEEDS) * sum(costs) * sum(sizes)
    looks = SNAPSHOTS * FORWARD * len(SEEDS) * sum(costs) * sum(size + tested for size in sizes)
    fixed = START * cells + looks
    epochs = min(MOST, max(2, int((seconds - fixed) / epoch))) if epoch else MOST
    return Choice(majority, ratio, per_class, epochs, fixed + epochs * epoch)


def side(found: Survey) -> int | None:
    """Return the side in pixels to resize to; None if all images have one size that is small enough."""
    one_size = found.width[0] == found.width[1] and found.height[0] == found.height[1]
    return None if one_size and max(found.width[1], found.height[1]) <= LARGEST_SIDE else LARGEST_SIDE


def check(found: Survey) -> None:
    """Raise EqcollapseError for images of which no study can be made."""
    if len(found.classes) < 2:
        raise EqcollapseError(
            f"there is one class, {found.classes[0]!r}: collapse is between classes, so give two or more"
        )
    fewest = min(found.train)
    if fewest < 4:
        name = found.classes[found.train.index(fewest)]
        raise EqcollapseError(f"class {name!r} has {fewest} images in train/: give each class 4 or more")


def name_of(stem: str) -> str:
    """Return a name for a data set from that of its folder, in the letters that params.yaml allows."""
    return re.sub(r"[^a-z0-9_.-]+", "-", stem.lower()).strip("-._")[:60] or "images"


def preset(name: str, path: str, found: Survey, chosen: Choice) -> str:
    """Return the preset as YAML."""
    size = side(found)
    whole = chosen.per_class == min(found.train)
    lines = [
        f"# The images of {path!a}: explicit network and DEQ, balanced and imbalanced, {len(SEEDS)} seeds.",
        "# Run it: snakemake --cores all --configfile THIS-FILE. What the keys mean: params.yaml.",
        "",
        "datasets:",
        f"  only: [{name}]",
        f"  {name}:",
        "    source: imagefolder",
        f"    path: {json.dumps(path)}",
        f"    sha256: {found.sha256}",
        f"    classes: {len(found.classes)}",
        f"    size: {'null' if size is None else size}",
        f"    per_class: {'null' if whole else chosen.per_class}",
        "    majority: null",
        "",
        "splits:",
        f"  majority: [{chosen.majority}]",
        f"  ratios: [{chosen.ratio}]",
        "",
        "train:",
        f"  epochs: {chosen.epochs}",
        "",
        "experiments:",
        "  only: [a]",
        f"  a: {{datasets: [{name}], seeds: [{', '.join(map(str, SEEDS))}]}}",
        "",
        "theory: null",
    ]
    return "\n".join(lines) + "\n"
