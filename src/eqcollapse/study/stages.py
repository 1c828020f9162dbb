"""The stages: the module that runs each kind of job, its spec, and the files that it reads and writes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from eqcollapse.data.config import DatasetSpec, SplitSpec, SummarySpec
from eqcollapse.report.config import ClaimsSpec, CollapseSpec, FigureSpec, PageSpec, TableSpec
from eqcollapse.runtime.errors import EqcollapseError
from eqcollapse.runtime.section import Section
from eqcollapse.study.messages import lines
from eqcollapse.theory.config import TheorySpec
from eqcollapse.training.config import TrainSpec


@dataclass(frozen=True)
class Stage:
    """A kind of job.

    `module` has its `run(spec, inputs, outputs)`, and what it imports is the code that the job's digest covers. `spec`
    is the type of its spec, or several told apart by their `kind`. `reads` and `writes` say which files it takes, in
    order; None: as many as the study has.
    """

    module: str
    about: str
    spec: Any
    reads: tuple[str, ...] | None
    writes: tuple[str, ...]

    def parse(self, spec: Mapping[str, Any]) -> Section:
        """Return `spec`, plain values, as the type that it is to have; EqcollapseError names each key at fault."""
        several = not isinstance(self.spec, type)
        try:
            return TypeAdapter(self.spec).validate_python(spec)
        except ValidationError as error:
            raise EqcollapseError("; ".join(lines(error, "--spec: ", tagged=several))) from None

    def check_files(self, inputs: list[str], outputs: list[str]) -> None:
        """Hold the number of files against what the stage reads and writes: EqcollapseError says which these are."""
        for option, given, names in (("--inputs", inputs, self.reads), ("--outputs", outputs, self.writes)):
            if names is not None and len(given) != len(names):
                raise EqcollapseError(f"{option}: {', '.join(names) or 'none'} expected, {len(given)} files given")


STAGES = {
    "data": Stage(
        "eqcollapse.data.job", "fetch, check and convert a data set", DatasetSpec, (), ("train", "test")
    ),
    "splits": Stage(
        "eqcollapse.data.splits", "choose the training samples of a split", SplitSpec, ("train",), ("split",)
    ),
    "summary": Stage(
        "eqcollapse.data.summary", "say what the data do to the study", SummarySpec, ("train", "test"), ("csv", "md")
    ),
    "train": Stage(
        "eqcollapse.training.job", "train one cell", TrainSpec,
        ("train", "test", "split"), ("history", "snapshots", "features", "weights"),
    ),
    "theory": Stage("eqcollapse.theory.job", "run one theory experiment", TheorySpec, (), ("csv",)),
    "collapse": Stage(
        "eqcollapse.report.metrics", "measure collapse and accuracy of all runs", CollapseSpec,
        None, ("collapse", "accuracy", "answers", "summary"),
    ),
    "table": Stage("eqcollapse.report.tables.job", "write a table", TableSpec, None, ("csv", "md", "tex")),
    "figure": Stage("eqcollapse.report.figures.job", "draw a figure", FigureSpec, None, ("pdf", "png", "svg")),
    "claims": Stage("eqcollapse.report.claims.job", "judge the papers' claims", ClaimsSpec, None, ("json", "md")),
    "page": Stage("eqcollapse.report.page", "write the page that shows all results", PageSpec, None, ("html",)),
}  # fmt: skip
