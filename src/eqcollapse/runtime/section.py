"""The base of every `config.py`: a mapping with fixed keys, and the numbers that its keys hold."""

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from eqcollapse.runtime.references import is_reference

_YAML_1_2_NUMBER = re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?$")
_INTEGER = re.compile(r"^[-+]?(0|[1-9]\d{0,17})$")
_FLAGS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
NOTHING = ("", "~", "null", "Null", "NULL")
"""How YAML writes null; `--config` of Snakemake hands over text, so that numbers and flags are read from it, too."""


def _number(value: Any) -> Any:
    """Read 1e-4 as the number that YAML 1.2 says it is; PyYAML (1.1) hands over a string."""
    if isinstance(value, bool):
        raise ValueError("must be a number")
    if isinstance(value, str) and _YAML_1_2_NUMBER.match(value):
        value = float(value)
    if isinstance(value, int | float) and not _finite(value):
        raise ValueError("must be finite")
    return value


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer of more than 308 digits
        return False


def _integer(value: Any) -> Any:
    return int(value) if isinstance(value, str) and _INTEGER.match(value) else value


def _flag(value: Any) -> Any:
    return _FLAGS.get(value, value) if isinstance(value, str) else value


def nothing(value: Any) -> bool:
    """Return whether `value` is null, or text that YAML reads as null."""
    return value is None or (isinstance(value, str) and value in NOTHING)


def _plain(value: Any) -> Any:
    """Read numbers and flags in an option of any type, of lists and mappings, too; an option of null is not there."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items() if not nothing(each)}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value if isinstance(value, bool) else _flag(_number(_integer(value)))


Some = TypeVar("Some")
Maybe = Annotated[Some | None, BeforeValidator(lambda value: None if nothing(value) else value)]
"""A value or null: `Maybe[Count]`."""

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$", max_length=60)]
Real = Annotated[float, BeforeValidator(_number)]
Positive = Annotated[Real, Field(gt=0)]
NonNegative = Annotated[Real, Field(ge=0)]
Ratio = Annotated[Real, Field(ge=1, le=10**6)]
Share = Annotated[Real, Field(ge=0, lt=1)]
Integer = Annotated[int, Field(strict=True), BeforeValidator(_integer)]
Count = Annotated[Integer, Field(ge=1, le=10**9)]
Natural = Annotated[Integer, Field(ge=0, lt=2**32)]
Flag = Annotated[bool, Field(strict=True), BeforeValidator(_flag)]
Keywords = Annotated[
    dict[Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$", max_length=60)], Any], BeforeValidator(_plain)
]
"""What a callable takes by name; null is its default."""


def or_own(known: tuple[str, ...]) -> BeforeValidator:
    """Return the check that a value is one of the names `known`, or a reference to code of the user's own."""
    expected = ", ".join(map(repr, known))

    def check(value: Any) -> Any:
        if not (isinstance(value, str) and (value in known or is_reference(value))):
            message = "{expected}, or path/to/file.py:Name or package.module:Name of your own"
            raise PydanticCustomError("known_or_own", message, {"expected": expected})
        return value

    return BeforeValidator(check)


class Section(BaseModel):
    """A section of params.yaml, or the spec of a job: its keys are fixed, unknown ones are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _keys_are_known(cls, content: Any) -> Any:
        if isinstance(content, Mapping):
            for key, value in content.items():
                if key not in cls.model_fields:
                    known = ", ".join(cls.model_fields)
                    about = {"key": str(key), "value": value, "known": known}
                    raise PydanticCustomError("unknown_key", "is not a key", about)
        return content
