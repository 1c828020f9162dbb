"""The section `report` of params.yaml, and the specs of the jobs that measure, show and judge runs."""

from typing import Annotated, Literal

from pydantic import Field

from eqcollapse.runtime.section import Integer, Maybe, Real, Section
from eqcollapse.theory.config import TheorySpec


class Figures(Section):
    """How figures look: dots and width in inches."""

    dpi: Annotated[Integer, Field(ge=30, le=1200)]
    width: Annotated[Real, Field(gt=0, le=40)]


class Report(Section):
    """How the report looks."""

    figures: Figures


class CollapseSpec(Section):
    """The spec of a `collapse` job: all of it is in its inputs."""


class Runs(Section):
    """The runs that are compared: splits by data set, models, seeds."""

    splits: dict[str, list[str]]
    models: list[str]
    seeds: list[int]


class AccuracyTable(Runs):
    """Tables A-1 to A-4."""

    kind: Literal["accuracy"]


class SelectionTable(Runs):
    """Models by validation accuracy, with the head and the changes of each."""

    kind: Literal["selection"]
    heads: dict[str, str]
    settings: dict[str, str]


class SolverTable(Runs):
    """DEQs with the solver as trained, skipped, and run to 1e-8."""

    kind: Literal["solver"]


class TheoryTable(Section):
    """Descents beside closed forms; an experiment for each input."""

    kind: Literal["theory"]
    experiments: list[str]


class RunsFigure(Runs):
    """Curves over epochs: of collapse and accuracy, or of the solver."""

    kind: Literal["curves", "solver"]
    style: Figures


class StagesFigure(Runs):
    """Figure B-5; models in `unbiased` are held against the orthogonal frame."""

    kind: Literal["stages"]
    style: Figures
    unbiased: list[str]


class FeaturesFigure(Section):
    """Figure A-2: the features of one run of each model."""

    kind: Literal["features"]
    split: str
    models: list[str]
    style: Figures


class TheoryFigure(Section):
    """Theory experiments that share a figure."""

    kind: Literal["descent", "low-rank", "layer_peeled"]
    style: Figures


class JudgedExperiment(Section):
    """A theory experiment that claims are judged by."""

    name: str
    settings: TheorySpec


class ClaimsSpec(Section):
    """The spec of the `claims` job: paper A's runs, the models of figure B-5, an experiment for each theory input."""

    networks: Maybe[Runs]
    stages: list[str]
    theory: list[JudgedExperiment]


class PageSpec(Section):
    """The spec of the `page` job: how many jobs each stage has, the names of tables and figures, their captions."""

    jobs: dict[str, int]
    tables: list[str]
    figures: list[str]
    captions: dict[str, str]


TableSpec = Annotated[AccuracyTable | SelectionTable | SolverTable | TheoryTable, Field(discriminator="kind")]
FigureSpec = Annotated[RunsFigure | StagesFigure | FeaturesFigure | TheoryFigure, Field(discriminator="kind")]
