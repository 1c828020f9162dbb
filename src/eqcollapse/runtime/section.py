"""The base of every `config.py`: a mapping with fixed keys, and the numbers that its keys hold."""

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

_YAML_1_2_NUMBER = re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?$")


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


Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$", max_length=60)]
Real = Annotated[float, BeforeValidator(_number)]
Positive = Annotated[Real, Field(gt=0)]
NonNegative = Annotated[Real, Field(ge=0)]
Ratio = Annotated[Real, Field(ge=1, le=10**6)]
Share = Annotated[Real, Field(ge=0, lt=1)]
Count = Annotated[int, Field(strict=True, ge=1, le=10**9)]
Natural = Annotated[int, Field(strict=True, ge=0, lt=2**32)]
Flag = Annotated[bool, Field(strict=True)]


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
