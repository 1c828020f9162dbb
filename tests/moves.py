"""Which stages' jobs a key of params.yaml changes: every leaf is moved to other values, and the studies compared.

And the same settings in another order: of keys, which DVC does not see, and of lists, which it does.
"""

import copy
import random
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import TypeAdapter

from eqcollapse.provenance.dvc_stages import DvcStage
from eqcollapse.runtime.errors import EqcollapseError
from eqcollapse.study.grid import Study
from eqcollapse.study.params import Params, parse
from eqcollapse.theory.config import TheoryExperiment

_DIGEST = re.compile(r"@[0-9a-f]{10}")
TRIED = 5
"""How many other values of a key are looked at."""


def moved(content: Mapping[str, Any], versioned: list[DvcStage]) -> dict[str, set[str]]:
    """Return, for every leaf of a params file, the stages whose jobs change when it is moved to other values.

    A stage's jobs are what it makes and the settings of that: that a job's inputs change is for deps to say. Leaves
    that can be moved nowhere (the names of other things, or an empty section) are left out.
    """
    before = _seen(content, versioned)
    found: dict[str, set[str]] = {}
    for path in _leaves(content):
        for changed in _variants(content, path):
            after = _seen(changed, versioned)
            moving = {stage for stage in after if after[stage] != before[stage]}
            found.setdefault(".".join(path), set()).update(moving)
    return found


def shuffled(content: Any, draw: random.Random) -> Any:
    """Return a copy of `content` with the keys of every mapping in it in a random order."""
    if not isinstance(content, Mapping):
        return copy.deepcopy(content)
    return {key: shuffled(content[key], draw) for key in draw.sample(list(content), len(content))}


def turned(content: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name of each list in `content`, and a copy of it with that list turned round."""
    for path in _leaves(content):
        value = _at(content, path)
        if isinstance(value, list) and len(value) > 1:
            yield ".".join(path), _laid(content, path, value[::-1])


def _seen(content: Mapping[str, Any], versioned: list[DvcStage]) -> dict[str, set[tuple[str, str]]]:
    study = Study(parse(content))
    return {
        stage.name: {(_DIGEST.sub("@", job.path), job.spec_json) for job in stage.jobs(study)} for stage in versioned
    }


def _leaves(content: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key)


def _variants(content: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Yield copies of `content` with another valid value at `path`, at most `TRIED`."""
    value, tried = _at(content, path), 0
    for other in _others(value, content):
        changed = _laid(content, path, other)
        if tried < TRIED and other != value and _is_valid(changed):
            tried += 1
            yield changed


def _at(content: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        content = content[key]
    return content


def _laid(content: Mapping[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(dict(content))
    _at(changed, path[:-1])[path[-1]] = value
    return changed


def _is_valid(content: Mapping[str, Any]) -> bool:
    try:
        parse(content)
    except EqcollapseError:
        return False
    return True


def _others(value: Any, content: Mapping[str, Any]) -> Iterator[Any]:
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int | float):
        yield from (value + 1, value - 1, value * 2, value / 2, 0.5, 0.25)
    elif isinstance(value, str):
        yield from (*_choices(), "0" * 64, value + "x", 1)
    elif isinstance(value, list):
        yield from (value[:1], value[1:], value[::-1])
        yield from ([*value, item] for item in (*content["models"], *content["datasets"], "balanced", "ka2-r20"))
        yield from ([*value[:-1], other] for last in value[-1:] for other in _others(last, content))
        yield from ([1], [1, 2])
    else:
        yield from (1, 2, [1], "0" * 64, "x")


def _choices() -> list[str]:
    """Return the words that params.yaml may hold somewhere."""
    return sorted({*_words(Params.model_json_schema()), *_words(TypeAdapter(TheoryExperiment).json_schema())})


def _words(schema: Any) -> Iterator[str]:
    if isinstance(schema, Mapping):
        yield from (word for word in [*schema.get("enum", []), schema.get("const")] if isinstance(word, str))
        schema = schema.values()
    if not isinstance(schema, str) and isinstance(schema, Iterable):
        for part in schema:
            yield from _words(part)
