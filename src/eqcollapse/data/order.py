"""The order of names: numbers in them count as numbers, so that r50 comes before r100, and class 2 before class 10."""

import re

_NUMBER = re.compile(r"(\d+(?:\.\d+)?)")


def natural(name: str) -> tuple[tuple[float | str, ...], str]:
    """Return what to sort names by."""
    parts = _NUMBER.split(name)
    return tuple(float(part) if position % 2 else part for position, part in enumerate(parts)), name
