"""Checks of content: what is cheap to make is made again and compared, byte for byte."""

import csv
import io
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from eqcollapse.errors import EqcollapseError
from eqcollapse.provenance.findings import Finding
from eqcollapse.provenance.reading import Record
from eqcollapse.provenance.records import environment
from eqcollapse.study import Job

_HEADER = "index,label,group,part"


def check_contents(
    jobs: list[Job], records: Mapping[str, Record], present: Callable[[str], bool]
) -> tuple[list[Finding], list[str]]:
    """Make the splits and tables of `jobs` again from their inputs; return what differs, and what was not checked.

    Splits are integers, the same everywhere. Tables are compared where their record names the packages of this
    environment. Jobs with a file missing are left out.
    """
    findings: list[Finding] = []
    elsewhere = 0
    here = environment()["packages"]
    for job in jobs:
        record = records.get(job.record)
        if record is None or not record.usable or not all(map(present, (*job.inputs, *job.outputs))):
            continue
        if job.stage == "splits":
            findings += _check_split(job)
        elif job.stage == "table":
            if record.content["environment"]["packages"] == here:
                findings += _check_table(job)
            else:
                elsewhere += 1
    notes = [f"{elsewhere} tables were made with other package versions: not made again"] if elsewhere else []
    return findings, notes


def _check_split(job: Job) -> Iterator[Finding]:
    from eqcollapse.data.splits import split_csv
    from eqcollapse.data.store import read_labels

    try:
        labels = read_labels(job.inputs[0])
        expected = split_csv(job.spec, labels)
    except EqcollapseError as error:
        yield Finding("content", job.path, "a split of its data", str(error))
        return
    held = Path(job.path).read_bytes()
    if held != expected.encode():
        yield Finding("content", job.path, "the samples that its spec draws", _split_fault(held, expected, labels))


def _split_fault(held: bytes, expected: str, labels) -> str:
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


def _check_table(job: Job) -> Iterator[Finding]:
    from eqcollapse.report.tables import write_table

    with tempfile.TemporaryDirectory(prefix="eqcollapse-audit-") as folder:
        again = [str(Path(folder, Path(file).name)) for file in job.outputs]
        try:
            write_table(job.spec, list(job.inputs), again)
        except Exception as error:
            yield Finding("content", job.path, "a table of its inputs", f"cannot be made: {error}")
            return
        for file, copy in zip(job.outputs, again, strict=True):
            if Path(file).read_bytes() != Path(copy).read_bytes():
                yield Finding("content", file, "what its inputs and spec give", "other bytes", "remove it")
