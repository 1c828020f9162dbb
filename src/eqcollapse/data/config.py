"""The sections `datasets` and `splits` of params.yaml, and the specs of their jobs."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from eqcollapse.runtime.section import Count, Integer, Maybe, Name, Natural, Ratio, Section, Share


class _Images(Section):
    """Which images a data set has."""

    source: Literal["digits", "mnist", "fashion_mnist", "cifar10", "cifar100", "imagefolder"]
    sha256: Maybe[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]] = None
    size: Maybe[Annotated[Integer, Field(ge=1, le=1024)]] = None
    classes: Maybe[Annotated[Integer, Field(ge=2, le=10**5)]] = None

    @model_validator(mode="after")
    def _source_has_what_it_needs(self) -> "_Images":
        own = self.source == "imagefolder"
        for key in ("path", "sha256", "classes"):
            value = getattr(self, key, own or None)  # of a spec, the path is an option of its own
            if own and value is None:
                path = getattr(self, "path", None) or "PATH"
                hint = {
                    "path": "the folder or archive with {train,test}/<class>/<image>",
                    "sha256": f"printed by `python -m eqcollapse hash {path}`",
                    "classes": "how many folders train/ has",
                }[key]
                raise ValueError(f"{key}: is needed where source is imagefolder ({hint})")
            if not own and value is not None:
                raise ValueError(f"{key}: is only for source imagefolder")
        return self


class DatasetSettings(_Images):
    """Where the images come from, and how many of them a class has."""

    path: Maybe[Annotated[str, Field(min_length=1)]] = None
    majority: Maybe[Annotated[list[Count], Field(min_length=1)]] = None
    per_class: Maybe[Count] = None


class DatasetSpec(_Images):
    """The spec of a `data` job. Where the bytes lie (path, mirror) does not change them, and is no part of it."""

    name: Name


ClassLabel = Annotated[int, Field(strict=True, ge=0, lt=2**32)]
ClassName = Annotated[str, Field(min_length=1)]
"""Text is a name, also if it is a number: of folders 1, 2, 10, "10" has the label 2."""


class Splits(Section):
    """The imbalances: KA majority classes of n_A samples, the others of n_A / R.

    `seed` draws the samples (and, if these are random, the majority classes): "run", the seed of the run that trains on
    the split, or one number for all runs.
    """

    majority: Annotated[list[Count], Field(min_length=1)]
    ratios: Annotated[list[Ratio], Field(min_length=1)]
    majority_classes: Literal["first", "random"] | list[ClassLabel | ClassName]
    seed: Literal["run"] | Natural
    validation: Share


class SplitSpec(Section):
    """The spec of a `splits` job: KA and R are null for `balanced`; per_class is the limit of n_A, if there is one.

    A long tail has an imbalance `factor` in place of KA and R. `draw` says how samples are ranked: by SHA-256, or as
    LDAM's code shuffles them.
    """

    dataset: Name
    split: str
    majority: Maybe[Count]
    ratio: Maybe[Ratio]
    factor: Maybe[Ratio]
    draw: Literal["sha256", "ldam"]
    majority_classes: Literal["first", "random"] | list[ClassLabel | ClassName]
    per_class: Maybe[Count]
    seed: Natural
    validation: Share

    @model_validator(mode="after")
    def _balanced_or_imbalanced(self) -> "SplitSpec":
        kind = self.split.partition("-")[0]
        even, tailed = kind == "balanced", kind in ("longtail", "ldam")
        if {even or tailed} != {self.majority is None, self.ratio is None}:
            raise ValueError("majority and ratio: belong to KA and R, not to `balanced` and long tails")
        if tailed != (self.factor is not None) or (kind == "ldam") != (self.draw == "ldam"):
            raise ValueError("factor: belongs to long tails, and draw: ldam to those of LDAM, and to no other split")
        return self


class SummarySpec(Section):
    """The spec of a `summary` job: the splits that the data set is cut into, one of each name."""

    dataset: Name
    size: Maybe[Count]
    splits: list[SplitSpec]
