"""The sections `log`, `train` and `snapshots` of params.yaml, and the spec of a `train` job."""

from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from eqcollapse.networks.config import EquilibriumSettings, Named, Network
from eqcollapse.runtime.section import (
    Count,
    Flag,
    Integer,
    Keywords,
    Maybe,
    Name,
    Natural,
    NonNegative,
    Positive,
    Real,
    Section,
    Share,
    or_own,
)


class _Reweighted(Section):
    """Weights of classes by their numbers of samples (Cui et al. 2019), from the epoch after `deferred` on."""

    class_balanced: Share = 0.0
    deferred: Natural = 0


class CrossEntropyOptions(_Reweighted):
    """Of `ce`."""

    label_smoothing: Share = 0.0


class FocalOptions(_Reweighted):
    """Of `focal` (Lin et al. 2017)."""

    gamma: NonNegative = 2.0


class LogitAdjustedOptions(Section):
    """Of `logit-adjusted` (Menon et al. 2021)."""

    tau: NonNegative = 1.0


class LDAMOptions(_Reweighted):
    """Of `ldam` (Cao et al. 2019)."""

    max_margin: Positive = 0.5
    scale: Positive = 30.0


LossName = Literal["ce", "mse", "mse-mean", "focal", "logit-adjusted", "ldam"]
"""The losses: those of training.losses.LOSSES, which needs torch."""


class AdamWOptions(Section):
    """Of `adamw` (Loshchilov & Hutter 2019), whose beta_1 is `momentum`."""

    beta2: Share = 0.999
    eps: Positive = 1e-8


class Log(Section):
    """Where training logs its epochs beside its live history: in no digest."""

    tensorboard: Flag


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
    """Optimiser, loss and schedule."""

    epochs: Annotated[Integer, Field(ge=1, le=10**6)]
    batch_size: Count
    optimizer: Literal["sgd", "nesterov", "adamw"]
    optimizer_options: Keywords
    lr: Positive
    momentum: Share
    weight_decay: NonNegative
    feature_decay: NonNegative
    loss: Annotated[LossName | Named, or_own(get_args(LossName))]
    loss_options: Keywords
    schedule: Schedule
    augment: Augment
    evaluate: Literal["snapshots", "every"]
    precision: Literal["float32", "bfloat16"]
    threads: Annotated[Integer, Field(ge=1, le=1024)]
    deterministic: Flag

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> "Train":
        if self.optimizer == "nesterov" and not self.momentum:
            raise ValueError("momentum: 0 is not allowed with optimizer nesterov, whose step looks ahead along it")
        return self

    @model_validator(mode="after")
    def _warmup_ends(self) -> "Train":
        if self.schedule.warmup > self.epochs:
            raise ValueError(f"schedule.warmup: {self.schedule.warmup} is more than train.epochs = {self.epochs}")
        return self


class _Kept(Section):
    layers: Literal["features", "stages"] | Annotated[list[Named], Field(min_length=1)]
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
    """The spec of a `train` job; an explicit network has no `equilibrium`.

    `own` has the digest of each source file of the user's own that the cell runs.
    """

    dataset: Name
    split: str
    model: Name
    seed: Natural
    network: Network
    equilibrium: Maybe[EquilibriumSettings]
    train: Train
    snapshots: SnapshotEpochs
    own: dict[str, str]

    @model_validator(mode="after")
    def _head_has_its_settings(self) -> "TrainSpec":
        if (self.network.head == "equilibrium") != (self.equilibrium is not None):
            raise ValueError("equilibrium: belongs to network.head equilibrium, and to no other")
        return self
