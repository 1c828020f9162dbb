"""The sections of params.yaml as types: which keys there are, and what each may hold."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

Source = Literal["digits", "mnist", "fashion_mnist", "cifar10", "cifar100", "imagefolder"]
CLASSES = {"digits": 10, "mnist": 10, "fashion_mnist": 10, "cifar10": 10, "cifar100": 100}
"""Number of classes of each canonical data set: the grid needs it before any file is there."""

Method = Literal["anderson", "broyden", "picard"]

NAME = r"^[a-z0-9][a-z0-9_.-]*$"
SPLIT = re.compile(r"^ka(?P<majority>[1-9]\d{0,5})-r(?P<ratio>[1-9]\d{0,5}(\.\d{0,9}[1-9])?)$")
_YAML_1_2_NUMBER = re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?$")


_NUMBER = re.compile(r"(\d+(?:\.\d+)?)")


def natural(name: str) -> tuple:
    """Return what to sort names by: numbers in them count as numbers, so that r50 comes before r100."""
    parts = _NUMBER.split(name)
    return tuple(float(part) if position % 2 else part for position, part in enumerate(parts)), name


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


Name = Annotated[str, Field(pattern=NAME, max_length=60)]
Real = Annotated[float, BeforeValidator(_number)]
Positive = Annotated[float, BeforeValidator(_number), Field(gt=0)]
NonNegative = Annotated[float, BeforeValidator(_number), Field(ge=0)]
Ratio = Annotated[float, BeforeValidator(_number), Field(ge=1, le=10**6)]
Share = Annotated[float, BeforeValidator(_number), Field(ge=0, lt=1)]
Count = Annotated[int, Field(strict=True, ge=1, le=10**9)]
Natural = Annotated[int, Field(strict=True, ge=0, lt=2**32)]
Flag = Annotated[bool, Field(strict=True)]


class Section(BaseModel):
    """A part of params.yaml: keys are fixed, unknown ones are errors."""

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


class Dataset(Section):
    """Where the images come from."""

    source: Source
    path: Annotated[str, Field(min_length=1)] | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    size: Annotated[int, Field(strict=True, ge=1, le=1024)] | None = None
    classes: Annotated[int, Field(strict=True, ge=2, le=10**5)] | None = None
    majority: Annotated[list[Count], Field(min_length=1)] | None = None
    per_class: Count | None = None

    @model_validator(mode="after")
    def _source_has_what_it_needs(self) -> "Dataset":
        own = self.source == "imagefolder"
        for key in ("path", "sha256", "classes"):
            if own and getattr(self, key) is None:
                raise ValueError(f"{key}: is needed where source is imagefolder")
            if not own and getattr(self, key) is not None:
                raise ValueError(f"{key}: is only for source imagefolder")
        return self

    @property
    def num_classes(self) -> int:
        """K."""
        return self.classes or CLASSES[self.source]


class Splits(Section):
    """The imbalances: KA majority classes of n_A samples, the others of n_A / R."""

    majority: Annotated[list[Count], Field(min_length=1)]
    ratios: Annotated[list[Ratio], Field(min_length=1)]
    majority_classes: Literal["first", "random"] | list[Natural]
    seed: Natural
    validation: Share


class Network(Section):
    """Stem, residual stages, head; the width doubles and the image halves from stage to stage."""

    width: Annotated[int, Field(strict=True, ge=1, le=4096)]
    stages: Annotated[int, Field(strict=True, ge=2, le=6)]
    blocks: Annotated[int, Field(strict=True, ge=1, le=100)]
    head: Literal["explicit", "equilibrium"]
    bias: Flag


class Solver(Section):
    """One fixed-point solve."""

    method: Method
    tol: Positive
    criterion: Literal["relative", "absolute"]
    max_iter: Count
    memory: Count
    check_every: Count


class Convergence(Section):
    """What follows an epoch in which less than `share` of the samples converged."""

    share: Annotated[float, BeforeValidator(_number), Field(ge=0, le=1)]
    action: Literal["warn", "stop", "switch"]
    method: Method


class Equilibrium(Section):
    """The equilibrium head."""

    layer: Literal["residual", "contractive"]
    hidden: Count | None
    bound: Annotated[float, BeforeValidator(_number), Field(gt=0, lt=1)]
    gradient: Literal["implicit", "one-step", "unrolled"]
    freeze: Flag
    forward: Solver
    backward: Solver
    convergence: Convergence
    jacobian_penalty: NonNegative


class Augment(Section):
    """Random crops from images padded by `crop` pixels, and horizontal flips; both 'off' at 0 and false."""

    crop: Annotated[int, Field(strict=True, ge=0, le=64)]
    flip: Flag


class Schedule(Section):
    """Learning rate over epochs: constant; step: times `factor` every `every` epochs; cosine: to 0 at the last."""

    kind: Literal["constant", "step", "cosine"]
    every: Count
    factor: Annotated[float, BeforeValidator(_number), Field(gt=0, le=1)]
    warmup: Natural


class Train(Section):
    """Stochastic gradient descent."""

    epochs: Annotated[int, Field(strict=True, ge=1, le=10**6)]
    batch_size: Count
    lr: Positive
    momentum: Share
    weight_decay: NonNegative
    loss: Literal["ce", "mse"]
    schedule: Schedule
    augment: Augment
    precision: Literal["float32", "bfloat16"]
    threads: Annotated[int, Field(strict=True, ge=1, le=1024)]
    deterministic: bool

    @model_validator(mode="after")
    def _warmup_ends(self) -> "Train":
        if self.schedule.warmup > self.epochs:
            raise ValueError(f"schedule.warmup: {self.schedule.warmup} is more than train.epochs = {self.epochs}")
        return self


class Snapshots(Section):
    """When and where the features are measured."""

    epochs: Literal["log"] | Annotated[list[Count], Field(min_length=1)]
    count: Annotated[int, Field(strict=True, ge=1, le=10**5)]
    layers: Literal["features", "stages"]
    features_per_class: Natural


class Experiment(Section):
    """A part of the grid: data sets x splits x models x seeds."""

    datasets: Annotated[list[Name], Field(min_length=1)]
    splits: Annotated[list[str], Field(min_length=1)]
    models: Annotated[list[Name], Field(min_length=1)]
    seeds: Annotated[list[Natural], Field(min_length=1)]
    report: Literal["a", "b", "selection", "none"]


class UnconstrainedFeatures(Section):
    """An (extended) unconstrained features model, minimised by gradient descent from many seeds."""

    kind: Literal["ufm"]
    figure: Name
    drawn: Literal["descent", "low-rank"]
    num_classes: Annotated[int, Field(strict=True, ge=2, le=1000)]
    dim: Annotated[int, Field(strict=True, ge=1, le=10**4)]
    per_class: Annotated[int, Field(strict=True, ge=1, le=10**5)]
    layers: Annotated[int, Field(strict=True, ge=1, le=20)]
    activation: Literal["identity", "relu"]
    bias: Literal["none", "free", "regularised"]
    loss: Literal["mse", "ce"]
    lambda_weights: Positive | list[Positive]
    lambda_features: Positive
    lambda_bias: NonNegative
    lambda_scales: Annotated[list[Positive], Field(min_length=1)]
    seeds: Annotated[list[Natural], Field(min_length=1)]
    iterations: Count
    step: Positive
    start: Positive
    logged: Annotated[int, Field(strict=True, ge=2, le=10**6)]

    @model_validator(mode="after")
    def _lambdas_fit(self) -> "UnconstrainedFeatures":
        if isinstance(self.lambda_weights, list) and len(self.lambda_weights) != self.layers:
            raise ValueError(f"lambda_weights: must be one number, or one for each of the {self.layers} layers")
        if (self.lambda_bias > 0) != (self.bias == "regularised"):
            raise ValueError("lambda_bias: must be above 0 where bias is regularised, and 0 elsewhere")
        return self


class LayerPeeled(Section):
    """The layer-peeled models of paper A over a sweep of KA and R."""

    kind: Literal["layer-peeled"]
    figure: Name
    models: Annotated[list[Literal["explicit", "deq"]], Field(min_length=1)]
    num_classes: Annotated[int, Field(strict=True, ge=2, le=1000)]
    dim: Annotated[int, Field(strict=True, ge=1, le=10**4)]
    majority: Annotated[list[Count], Field(min_length=1)]
    ratios: Annotated[list[Ratio], Field(min_length=1)]
    seeds: Annotated[list[Natural], Field(min_length=1)]
    bound_weight: Positive
    bound_features: Positive
    iterations: Count
    step: Positive
    start: Positive

    @model_validator(mode="after")
    def _majority_fits(self) -> "LayerPeeled":
        for majority in self.majority:
            if not 2 <= majority <= self.num_classes - 2:  # a group of one has no angle within
                raise ValueError(f"majority: {majority} is not from 2 to num_classes - 2 = {self.num_classes - 2}")
        return self


Theory = Annotated[UnconstrainedFeatures | LayerPeeled, Field(discriminator="kind")]


class Figures(Section):
    """How figures look."""

    dpi: Annotated[int, Field(strict=True, ge=30, le=1200)]
    width: Annotated[float, BeforeValidator(_number), Field(gt=0, le=40)]


class Report(Section):
    """What the report shows."""

    figures: Figures
