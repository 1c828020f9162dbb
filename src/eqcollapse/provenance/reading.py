"""Reading records: each is checked against the schema and its own seal."""

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from eqcollapse.provenance.records import seal, written
from eqcollapse.runtime.errors import EqcollapseError

SCHEMA = Path(__file__).with_name("record.schema.json")
SUFFIX = "provenance.json"
ATTIC = ".attic"
_DIGEST = re.compile(r"@[0-9a-f]{10}")


@dataclass(frozen=True)
class Record:
    """A record as read: `path` where it lies, `content` the JSON, `faults` what is wrong with it in itself."""

    path: str
    content: dict[str, Any]
    faults: tuple[str, ...] = ()

    @property
    def usable(self) -> bool:
        """Whether it has the form of a record, so that its fields can be read."""
        return bool(self.content)

    @property
    def outputs(self) -> dict[str, dict[str, Any]]:
        """The outputs, by path."""
        return {output["path"]: output for output in self.content["outputs"]}

    @property
    def inputs(self) -> dict[str, dict[str, Any]]:
        """The inputs, by path."""
        return {source["path"]: source for source in self.content["inputs"]}

    @property
    def name(self) -> str:
        """What the record is of, whatever the digest: stage and first output's path without digests."""
        return f"{self.content['stage']} {undigested(self.content['outputs'][0]['path'])}"


def read(path: str) -> Record:
    """Read the record at `path`; one that is no record at all has empty content and says why in `faults`."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        content = json.loads(text, object_pairs_hook=_without_repeats)
    except (OSError, ValueError, RecursionError) as error:
        return Record(path, {}, (f"cannot be read ({type(error).__name__})",))
    fault = next(iter(_validator().iter_errors(content)), None)
    if fault is not None:
        where = ".".join(str(part) for part in fault.absolute_path) or "the record"
        return Record(path, {}, (f"{where}: is not of the form of record.schema.json",))
    if seal(content) != content["seal"]:
        return Record(path, content, ("edited after it was written (its seal is broken)",))
    return Record(path, content, () if text == written(content) else ("not the text that a job writes",))


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return `pairs` as a mapping; a key that occurs twice would show people one value and programs another."""
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a key occurs twice")
    return content


def read_sound(path: str) -> Record:
    """Read the record at `path`; EqcollapseError if it is not one."""
    record = read(path)
    if not record.usable:
        raise EqcollapseError(f"{path}: {record.faults[0]}: run the job again that made its outputs")
    return record


def record_paths(root: str) -> list[str]:
    """Return the paths of all records under `root`, sorted."""
    found = []
    for folder, _, names in os.walk(root):
        found += [f"{folder}/{name}" for name in names if is_record(name)]
    return sorted(found)


def attic_records() -> Iterable[Record]:
    """Return the usable records of the attic."""
    return [record for record in map(read, record_paths(ATTIC)) if record.usable]


def is_record(path: str) -> bool:
    """Whether a file of this name is a record."""
    name = path.rpartition("/")[2]
    return name == SUFFIX or name.endswith(f".{SUFFIX}")


def undigested(path: str) -> str:
    """Return `path` without the digests that it carries."""
    return _DIGEST.sub("@", path)


@cache
def _validator() -> Any:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(json.loads(SCHEMA.read_text()))
