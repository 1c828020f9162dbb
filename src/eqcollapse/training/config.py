"""The sections `train` and `snapshots` of params.yaml, and the spec of a `train` job."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from eqcollapse.networks.config import EquilibriumSettings, Network
from eqcollapse.runtime.section import (
    Count,
    Flag,
    Integer,
    Maybe,
    Name,
    Natural,
    NonNegative,
    Positive,
    Real,
    Section,
    Share,
)


class Augment(Section):
    """Random crops from images padded by `crop` pixels, and horizontal flips; both 'off' at 0 and false."""

    crop: Annotated[Integer, Field(ge=0, le=64)]
    flip: Flag


class Schedule(Section):
    """Learning rate over epochs: constant; step: times `factor` every `every` epochs; cosine: to 0 at the last."""

    kind: Literal["constant", "step", "cosine"]
    every: Count
    factor: Annotated[Real, Field(gt=0, le=1)]
    warmup: Natural


class Train(Section):
    """Stochastic gradient descent."""

    epochs: Annotated[Integer, Field(ge=1, le=10**6)]
    batch_size: Count
    lr: Positive
    momentum: Share
    weight_decay: NonNegative
    loss: Literal["ce", "mse", "mse-mean"]
    schedule: Schedule
    augment: Augment
    evaluate: Literal["snapshots", "every"]
    precision: Literal["float32", "bfloat16"]
    threads: Annotated[Integer, Field(ge=1, le=1024)]
    deterministic: Flag

    @model_validator(mode="after")
    def _warmup_ends(self) -> "Train":
        if self.schedule.warmup > self.epochs:
            raise ValueError(f"schedule.warmup: {self.schedule.warmup} is more than train.epochs = {self.epochs}")
        return self


class _Kept(Section):
    layers: Literal["features", "stages"]
    features_per_class: Natural


class Snapshots(_Kept):
    """When and where the features are measured; `log` stands for about `count` epochs."""

    epochs: Literal["log"] | Annotated[list[Count], Field(min_length=1)]
    count: Annotated[Integer, Field(ge=1, le=10**5)]


class SnapshotEpochs(_Kept):
    """The same of one run, epoch by epoch."""

    epochs: Annotated[list[Count], Field(min_length=1)]


class Model(Section):
    """The settings of one named model."""

    network: Network
    equilibrium: EquilibriumSettings
    train: Train
    snapshots: Snapshots


class TrainSpec(Section):
    """The spec of a `train` job; an explicit network has no `equilibrium`."""

    dataset: Name
    split: str
    model: Name
    seed: Natural
    network: Network
    equilibrium: Maybe[EquilibriumSettings]
    train: Train
    snapshots: SnapshotEpochs

    @model_validator(mode="after")
    def _head_has_its_settings(self) -> "TrainSpec":
        if (self.network.head == "equilibrium") != (self.equilibrium is not None):
            raise ValueError("equilibrium: belongs to network.head equilibrium, and to no other")
        return self
