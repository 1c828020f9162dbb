"""What pydantic finds wrong in params.yaml, as lines for people: key, value, and what is allowed."""

import re
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from eqcollapse.runtime.nearest import nearest

_SHORT = reprlib.Repr()
"""Bounded: a list of billions, or one that holds itself, is not written out to be cut to 60 characters."""
_SHORT.maxlist = _SHORT.maxdict = _SHORT.maxset = _SHORT.maxtuple = 12
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 3, 80, 80

_MOST_LINES, _LONGEST_LINE = 50, 500

HASH = "`python -m eqcollapse hash PATH`"
"""The command that prints a sha256 for params.yaml."""
TAG = "kind"
"""The key that tells members of a union apart."""


def lines(error: ValidationError, prefix: str = "", *, tagged: bool = False) -> Iterator[str]:
    """Yield a line a faulty key; where a key may be several things, one line says all of them.

    `tagged`: what was checked is one of several types, told apart by their `kind`.
    """
    allowed: dict[tuple[str, str], list[str]] = {}
    for fault in error.errors():
        start, words = _said(fault)
        parts = allowed.setdefault((_key(prefix, fault, tagged), start), [])
        if words not in parts:
            parts.append(words)
    for (key, start), parts in allowed.items():
        yield f"{key}: {start}{', or '.join(parts)}"


def told(name: str, faults: Iterable[str]) -> str:
    """Return what is wrong in the file `name` as a message: a line each, but no more than people read."""
    found = list(faults)
    said = [f"{name}: {cut(fault, _LONGEST_LINE)}" for fault in found[:_MOST_LINES]]
    if len(found) > _MOST_LINES:
        said.append(f"{name}: and {len(found) - _MOST_LINES} more like these")
    return "\n".join(said)


def cut(text: str, most: int) -> str:
    """Return `text`, without its end if it is longer than `most` characters."""
    return text if len(text) <= most else text[: most - 3] + "..."


def quoted(value: Any) -> str:
    """Return `value` as it stands in a message, cut to 60 characters."""
    try:
        text = _SHORT.repr(value)
    except ValueError:  # Python writes no integer of thousands of digits, which 0x may be
        text = "a number of thousands of digits"
    return cut(text, 60)


def _key(prefix: str, fault: Mapping[str, Any], tagged: bool) -> str:
    """Return the path of a key, without what pydantic puts into it to tell members of a union apart."""
    parts = [str(part) for part in fault["loc"][tagged:] if not _names_a_type(part)]
    if fault["type"] == "unknown_key":
        parts.append(fault["ctx"]["key"])
    if fault["type"].startswith("union_tag"):
        parts.append(TAG)
    path = ".".join(part if part.isprintable() and len(part) <= 60 else quoted(part) for part in parts)
    return f"{prefix}{path}" if path else prefix.rstrip(".: ")


def _names_a_type(part: str | int) -> bool:
    return isinstance(part, str) and ("[" in part or part == "constrained-int")


def _said(fault: Mapping[str, Any]) -> tuple[str, str]:
    """Return what is said of the value, and what is allowed in its place."""
    kind, value, context = fault["type"], fault["input"], fault.get("ctx", {})
    if kind == "unknown_key":
        near = nearest(context["key"], context["known"].split(", "))
        return f"is not a key that eqcollapse knows (value {quoted(context['value'])}){near}; known: ", context["known"]
    if kind in ("missing", "union_tag_not_found"):
        return "", "is missing"
    if kind == "union_tag_invalid":
        value = context["tag"]
    if kind == "value_error" and isinstance(value, Mapping):
        return "", str(context["error"])
    if kind == "string_pattern_mismatch" and fault["loc"][-1] == "sha256":
        return f"{quoted(value)} is not allowed: ", f"must be the 64 digits that {HASH} prints"
    return f"{quoted(value)} is not allowed{_near(value, context)}: ", _allowed(kind, fault["msg"], context)


def _near(value: Any, context: Mapping[str, Any]) -> str:
    """Return which of a few words was meant, where a key takes only these."""
    expected = context.get("expected", context.get("expected_tags", ""))
    return nearest(value, re.findall(r"'([^']*)'", str(expected))) if isinstance(value, str) and len(value) > 3 else ""


def _allowed(kind: str, message: str, context: Mapping[str, Any]) -> str:
    match kind:
        case "value_error":
            return str(context["error"])
        case "too_short" | "string_too_short":
            return f"must hold at least {context['min_length']}"
        case "string_pattern_mismatch":
            return f"must match {context['pattern']}"
        case "union_tag_invalid":
            return f"must be one of {context['expected_tags']}"
        case "model_type" | "model_attributes_type" | "dict_type":
            return "must be a mapping of keys to values"
        case "invalid_key" | "string_type":
            return "must be text"
    message = message.removeprefix("Input should be ").removeprefix("Value error, ")
    return f"must be {message[0].lower()}{message[1:]}"
