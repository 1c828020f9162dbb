"""The options of what a section chooses by name: checked, and with the defaults of ours filled in.

So the spec of a job says all of them, and a default that is changed is another digest.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from eqcollapse.networks.config import MLPOptions, NoOptions
from eqcollapse.runtime.errors import EqcollapseError
from eqcollapse.runtime.section import Section
from eqcollapse.training.config import (
    AdamWOptions,
    CrossEntropyOptions,
    FocalOptions,
    LDAMOptions,
    LogitAdjustedOptions,
)

ARCHITECTURES: dict[str, type[Section]] = {"resnet": NoOptions, "mlp": MLPOptions}
LAYERS: dict[str, type[Section]] = {"contractive": NoOptions, "residual": NoOptions}
LOSSES: dict[str, type[Section]] = {
    "ce": CrossEntropyOptions,
    "mse": NoOptions,
    "mse-mean": NoOptions,
    "focal": FocalOptions,
    "logit-adjusted": LogitAdjustedOptions,
    "ldam": LDAMOptions,
}
OPTIMIZERS: dict[str, type[Section]] = {"sgd": NoOptions, "nesterov": NoOptions, "adamw": AdamWOptions}
CHOSEN = (
    ("network", "architecture", "options", ARCHITECTURES),
    ("equilibrium", "layer", "options", LAYERS),
    ("train", "loss", "loss_options", LOSSES),
    ("train", "optimizer", "optimizer_options", OPTIMIZERS),
)
"""Section, key of the name, key of the options, and the types of these by the names that are ours."""


def without_those_of_others(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sections `base` without the options of what `change` does not choose: they are of something else."""
    kept = {section: dict(settings) for section, settings in base.items()}
    for section, name, options, _ in CHOSEN:
        inner = change.get(section)
        if isinstance(inner, Mapping) and inner.get(name) not in (None, base[section][name]):
            kept[section][options] = {}
    return kept


def completed(sections: Mapping[str, Any]) -> dict[str, Any]:
    """Return the plain settings `sections` with all options of what they choose.

    Raises EqcollapseError in one line, which names the key.
    """
    whole = {section: dict(settings) for section, settings in sections.items()}
    for section, name, key, known in CHOSEN:
        if chosen := whole.get(section):
            try:
                chosen[key] = filled(chosen[name], chosen[key], known)
            except EqcollapseError as error:
                raise EqcollapseError(f"{section}.{key}: {error}") from None
    return whole


def filled(name: str, options: Mapping[str, Any], known: Mapping[str, type[Section]]) -> dict[str, Any]:
    """Return the `options` of `name` with the defaults of `known`; those of what is not ours as they are.

    Raises EqcollapseError in one line, which names the option at fault.
    """
    if name not in known:
        return dict(options)
    try:
        return known[name].model_validate(options).model_dump()
    except ValidationError as error:
        fault = error.errors()[0]
    if fault["type"] == "unknown_key":
        of = fault["ctx"]["known"]
        raise EqcollapseError(f"{fault['ctx']['key']} is no option of {name}; known: {of or 'none'}")
    message = fault["msg"].replace("Input should be", "must be")
    raise EqcollapseError(f"{'.'.join(map(str, fault['loc']))} of {name} {message}")
