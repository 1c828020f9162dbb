"""Checks of content: what is cheap to make is made again and compared, byte for byte."""

import csv
import io
import json
import math
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

from eqcollapse.data.config import SplitSpec
from eqcollapse.provenance.findings import Finding
from eqcollapse.provenance.reading import Record
from eqcollapse.provenance.records import environment
from eqcollapse.runtime.errors import EqcollapseError
from eqcollapse.study.jobs import Job
from eqcollapse.study.stages import STAGES

if TYPE_CHECKING:  # the audit does without numpy where it can
    import numpy as np

AGAIN = ("table", "claims", "page")
"""The stages that are made again, besides splits."""
DIGITS = 1e-6
"""How far numbers may lie apart that other versions of packages made."""
_HEADER = "index,label,group,part"


def check_contents(
    jobs: list[Job], records: Mapping[str, Record], present: Callable[[str], bool]
) -> tuple[list[Finding], list[str]]:
    """Make splits, tables, claims and the page of `jobs` again from their inputs; return what differs, and what was
    not checked.

    Splits are integers, the same everywhere. Of the rest all bytes are compared where the record names the packages of
    this environment, and elsewhere the numbers of tables, to `DIGITS`. Jobs with a file missing are left out.
    """
    findings: list[Finding] = []
    elsewhere: Counter[str] = Counter()
    here = environment()["packages"]
    for job in jobs:
        record = records.get(job.record)
        if record is None or not record.usable or not all(map(present, (*job.inputs, *job.outputs))):
            continue
        if job.stage == "splits":
            findings += _check_split(job)
        elif job.stage in AGAIN:
            same = record.content["environment"]["packages"] == here
            elsewhere[job.stage] += not same
            findings += _check_again(job, _same_bytes if same else _same_numbers)
    made = [f"{number} of {stage}" for stage, number in elsewhere.items() if number]
    if not made:
        return findings, []
    return findings, [f"made with other package versions: {', '.join(made)}; only their numbers in csv were compared"]


def _check_split(job: Job) -> Iterator[Finding]:
    from eqcollapse.data.splits import labelled, split_csv
    from eqcollapse.data.store import read_classes, read_labels

    try:
        labels = read_labels(job.inputs[0])
        expected = split_csv(labelled(cast(SplitSpec, job.spec), read_classes(job.inputs[0])), labels)
    except EqcollapseError as error:
        yield Finding("content", job.path, "a split of its data", str(error))
        return
    held = Path(job.path).read_bytes()
    if held != expected.encode():
        yield Finding("content", job.path, "the samples that its spec draws", _split_fault(held, expected, labels))


def _split_fault(held: bytes, expected: str, labels: "np.ndarray") -> str:
    """Say in words what is wrong with a split: the worst first."""
    try:
        rows = [(int(row["index"]), int(row["label"])) for row in csv.DictReader(io.StringIO(held.decode()))]
    except (ValueError, KeyError, TypeError):
        return f"not a table {_HEADER}"
    drawn = {int(row["index"]) for row in csv.DictReader(io.StringIO(expected))}
    outside = [index for index, _ in rows if not 0 <= index < len(labels)]
    if outside:
        return f"index {outside[0]} is no training image: there are {len(labels)}"
    mislabelled = [index for index, label in rows if labels[index] != label]
    if mislabelled:
        return f"index {mislabelled[0]} has not the label that the training set gives it"
    extra, lost = sorted({index for index, _ in rows} - drawn), sorted(drawn - {index for index, _ in rows})
    if extra or lost:
        return f"{len(extra)} samples too many{_first(extra)}, {len(lost)} too few{_first(lost)}"
    return "the right samples in another order, group or part"


def _first(indices: list[int]) -> str:
    return f" (index {indices[0]})" if indices else ""


def _check_again(job: Job, same: Callable[[str, str], bool]) -> Iterator[Finding]:
    stage = STAGES[job.stage]
    run, spec = import_module(stage.module).run, stage.parse(json.loads(job.spec_json))  # as the job gets it
    with tempfile.TemporaryDirectory(prefix="eqcollapse-audit-") as folder:
        again = [str(Path(folder, Path(file).name)) for file in job.outputs]
        try:
            run(spec, list(job.inputs), again)
        except Exception as error:
            yield Finding("content", job.path, "what its inputs and spec give", f"cannot be made: {error}")
            return
        for file, copy in zip(job.outputs, again, strict=True):
            if not same(file, copy):
                yield Finding("content", file, "what its inputs and spec give", "another content", "remove it")


def _same_bytes(file: str, copy: str) -> bool:
    return Path(file).read_bytes() == Path(copy).read_bytes()


def _same_numbers(file: str, copy: str) -> bool:
    """Whether two tables have the same words and, to `DIGITS`, the same numbers; whatever is no csv passes."""
    if not file.endswith(".csv"):
        return True
    tables = [list(csv.reader(io.StringIO(Path(path).read_text()))) for path in (file, copy)]
    if [len(row) for row in tables[0]] != [len(row) for row in tables[1]]:
        return False
    return all(_same_cell(one, other) for rows in zip(*tables, strict=True) for one, other in zip(*rows, strict=True))


def _same_cell(one: str, other: str) -> bool:
    try:
        return one == other or math.isclose(float(one), float(other), rel_tol=DIGITS, abs_tol=DIGITS)
    except ValueError:
        return False
