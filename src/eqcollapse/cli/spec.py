"""The spec of a job, from the JSON of its command line: a key that is missing, or holds what it may not, is named."""

import argparse
import json
from typing import Any

from pydantic import TypeAdapter, ValidationError

from eqcollapse.runtime.errors import EqcollapseError
from eqcollapse.study.messages import lines
from eqcollapse.study.sections import Equilibrium, LayerPeeled, Network, Train, UnconstrainedFeatures

_SECTIONS = {"network": Network, "equilibrium": Equilibrium, "train": Train}
_THEORY = {
    "ufm": (UnconstrainedFeatures, {"drawn": "descent", "figure": "none"}),
    "layer-peeled": (LayerPeeled, {"figure": "none"}),
}
"""The types of params.yaml, with what a spec leaves out: how a result is drawn does not change it."""


_READ = {"data": "", "splits": "train", "train": "train test split", "theory": ""}
"""The files that a stage reads; other stages read as many as the study has."""
_WRITTEN = {
    "data": "train test",
    "splits": "split",
    "train": "history snapshots features weights",
    "theory": "csv",
    "collapse": "collapse accuracy summary",
    "table": "csv md tex",
    "figure": "pdf png svg",
    "claims": "json md",
    "page": "html",
}


class Spec(dict):
    """A mapping whose missing keys are the fault of whoever wrote the command line."""

    def __missing__(self, key: str) -> Any:
        raise EqcollapseError(f"--spec: {key} is missing")


def from_json(text: str) -> Spec:
    """Read the spec from the command line's JSON; ArgumentTypeError if it is none."""
    try:
        value = json.loads(text, object_hook=Spec)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"is not JSON: {error}") from None
    if not isinstance(value, Spec):
        raise argparse.ArgumentTypeError("must be a JSON object")
    return value


def check(stage: str, spec: Spec) -> None:
    """Hold the settings of a costly job against their types: EqcollapseError with a line for each that is wrong."""
    if stage == "train":
        for name, section in _SECTIONS.items():
            if name in spec or name != "equilibrium":
                _validate(section, spec[name], f"--spec: {name}.")
    elif stage == "theory":
        if spec["kind"] not in _THEORY:
            raise EqcollapseError(f"--spec: kind: {spec['kind']!r} is not allowed: must be one of {', '.join(_THEORY)}")
        section, drawn = _THEORY[spec["kind"]]
        _validate(section, {**spec, **drawn}, "--spec: ")


def check_files(stage: str, inputs: list[str], outputs: list[str]) -> None:
    """Hold the number of files against what the stage reads and writes: EqcollapseError that says which these are."""
    for option, given, names in (("--inputs", inputs, _READ.get(stage)), ("--outputs", outputs, _WRITTEN[stage])):
        wanted = None if names is None else names.split()
        if wanted is not None and len(given) != len(wanted):
            raise EqcollapseError(f"{option}: {', '.join(wanted) or 'none'} expected, {len(given)} files given")


def _validate(section: type, content: Any, prefix: str) -> None:
    try:
        TypeAdapter(section).validate_python(content)
    except ValidationError as error:
        raise EqcollapseError("; ".join(lines(error, prefix))) from None
