"""Mappings of settings: one laid over another, in one order, leaf by leaf."""

from collections.abc import Iterator, Mapping
from typing import Any

from eqcollapse.data.order import natural


def merged(base: Any, change: Any) -> Any:
    """Return `change` laid over `base`, mapping by mapping, as `snakemake --configfile` does."""
    if not (isinstance(base, Mapping) and isinstance(change, Mapping)):
        return change
    return {**base, **{key: merged(base.get(key), value) for key, value in change.items()}}


def in_order(named: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping by its keys, at every depth: their order in a file means nothing, as it does to DVC."""
    return {
        key: in_order(named[key]) if isinstance(named[key], Mapping) else named[key]
        for key in sorted(named, key=lambda key: natural(str(key)))
    }


def leaves(named: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every value of a mapping that is no mapping itself, with the keys that lead to it."""
    for key, value in named.items():
        yield from leaves(value, (*above, key)) if isinstance(value, Mapping) else [((*above, key), value)]
