"""What a preset and `--config` can say beside values: that a name is not there, and that only some names are.

Snakemake lays mappings over each other key by key, so that a preset alone could add names and change them, and take
none away. So null stands for "not there", of a name and of a whole section, and `only` for the names that stay.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from eqcollapse.runtime.errors import EqcollapseError
from eqcollapse.runtime.nearest import nearest
from eqcollapse.runtime.section import nothing
from eqcollapse.study.messages import quoted

NAMED = ("datasets", "models", "experiments", "theory")
"""The sections that are a mapping of names."""
CHANGING = ("models", "theory")
"""Those of them in which a name has what it changes elsewhere; null changes nothing."""
ONLY = "only"


def settled(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings `content` without what they say is not there; EqcollapseError for an `only` that is none."""
    return {**content, **{section: _settled(section, content[section]) for section in NAMED if section in content}}


def removals(content: Mapping[str, Any], files: Iterable[Any]) -> Iterator[str]:
    """Yield a fault for each name that `content` takes away and none of `files`, which it was laid from, has.

    The first of `files` is what the others are laid over. Its own nulls take nothing away: settings that were merged
    before, as the audit hands them to Snakemake, hold them still.
    """
    base, *others = files
    for section in NAMED:
        known = list(_named(base, section))
        known += [name for file in others for name, entry in _named(file, section).items() if not nothing(entry)]
        for name, entry in _named(content, section).items():
            if name != ONLY and nothing(entry) and name not in known:
                yield f"{section}.{name}: null takes away a name, but there is no {section} of that name" + (
                    nearest(name, known)
                )


def _named(content: Any, section: str) -> Mapping[str, Any]:
    named = content.get(section) if isinstance(content, Mapping) else None
    return named if isinstance(named, Mapping) else {}


def _settled(section: str, named: Any) -> Any:
    if nothing(named):
        return {}
    if not isinstance(named, Mapping):
        return named  # which its type refuses
    there = {name: entry for name, entry in named.items() if name != ONLY and not nothing(entry)}
    if ONLY in named:
        chosen = _chosen(section, named[ONLY], list(there))
        there = {name: entry for name, entry in there.items() if name in chosen}
    return {name: _changes(entry) for name, entry in there.items()} if section in CHANGING else there


def _chosen(section: str, names: Any, known: list[str]) -> list[str]:
    if nothing(names):
        return []
    if not isinstance(names, list):
        raise EqcollapseError(f"{section}.{ONLY}: {quoted(names)} is not allowed: must be a list of names")
    for name in names:
        if name not in known:
            there = f"{', '.join(map(str, known)) or 'none there'}"
            raise EqcollapseError(
                f"{section}.{ONLY}: {quoted(name)} is not one of {section}{nearest(name, known)}: {there}"
            )
    return names


def _changes(entry: Any) -> Any:
    return {key: value for key, value in entry.items() if not nothing(value)} if isinstance(entry, Mapping) else entry
