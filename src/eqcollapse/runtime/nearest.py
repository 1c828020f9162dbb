"""The name that was most likely meant."""

import difflib
from collections.abc import Iterable
from typing import Any


def nearest(name: Any, known: Iterable[Any]) -> str:
    """Return " (did you mean X?)" for the one of `known` that `name` is nearest to; "" if none is near."""
    found = difflib.get_close_matches(str(name)[:80].lower(), [str(word) for word in known], n=1, cutoff=0.5)
    return f" (did you mean {found[0]}?)" if found else ""
