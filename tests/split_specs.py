"""Specs of splits that tests begin from."""

from typing import Any

from eqcollapse.data.config import SplitSpec


def split_spec(split: str = "balanced", **changes: Any) -> SplitSpec:
    """Return the spec of `split` with `changes` of what a balanced one has."""
    spec = {
        "dataset": "mine",
        "split": split,
        "majority": None,
        "ratio": None,
        "factor": None,
        "draw": "sha256",
        "majority_classes": "first",
        "per_class": None,
        "seed": 0,
        "validation": 0.0,
    }
    return SplitSpec.model_validate(spec | changes)


def imbalanced(majority: int, ratio: float, **changes: Any) -> SplitSpec:
    """Return the spec of the split with KA = `majority` and R = `ratio`."""
    return split_spec(f"ka{majority}-r{ratio}", majority=majority, ratio=ratio, **changes)
