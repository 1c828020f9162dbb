"""Study x records x files: whether every output, record and input is what it should be."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping

from eqcollapse.provenance.findings import Finding, Lineage
from eqcollapse.provenance.hashing import Content
from eqcollapse.provenance.reading import Record, is_record
from eqcollapse.provenance.staleness import Cause, Relatives, differences
from eqcollapse.study.jobs import Job
from eqcollapse.training.config import TrainSpec

REDO = "run snakemake"
REMAKE = "remove it and run snakemake"


def check_jobs(
    lineage: Lineage,
    records: Mapping[str, Record],
    found: Mapping[str, Content],
    relatives: Relatives,
    code_of: Callable[[str], str],
) -> tuple[list[Finding], dict[str, Cause]]:
    """Check every job of the study; return what is wrong, and why which jobs are to be done, by record path.

    `records` are the jobs' own records by path, `found` the contents of all files, `code_of` gives the digest of a
    stage's code.
    """
    findings: list[Finding] = []
    causes: dict[str, Cause] = {}
    for job in lineage.jobs:
        record = records.get(job.record)
        if _is_to_be_done(job, record, found):
            cause = _cause_of_fixed(job, record, relatives, code_of(job.stage))
            causes[job.record] = cause
            findings += _to_be_done(job, cause, lineage)
        elif record is None:
            findings += _unrecorded(job, found)
        elif not record.usable:
            findings.append(_damaged(record))
        else:
            findings += _check_record(job, record, code_of(job.stage))
            findings += check_outputs(job, record, found)
            findings += check_inputs(job, record, lineage, records)
    return findings, causes


def _is_to_be_done(job: Job, record: Record | None, found: Mapping[str, Content]) -> bool:
    """Whether there is no result of this job: nothing at its path, or at a fixed name that of another digest."""
    if job.pinned or record is None:
        return not any(file in found for file in job.files)
    if not record.usable or record.faults or _command_fault(record.content):
        return False  # whatever it says, it is no record of other settings
    return record.content["digest"] != job.digest


def _cause_of_fixed(job: Job, record: Record | None, relatives: Relatives, code: str) -> Cause:
    if record is not None and record.usable:
        return Relatives([record]).cause(job, code)
    return relatives.cause(job, code)


def _to_be_done(job: Job, cause: Cause, lineage: Lineage) -> Iterator[Finding]:
    if cause.kind == "missing":
        for file in job.files:
            yield Finding("missing", file, f"made by stage {job.stage}", "no such file, and no record of one", REDO)
    else:
        hanging = lineage.after_jobs([job])
        yield Finding("stale", job.path, f"made from today's {_WHAT[cause.kind]}", cause.detail, REDO, hanging)


_WHAT = {"parameter": "params.yaml", "code": "code", "input": "inputs"}


def _unrecorded(job: Job, found: Mapping[str, Content]) -> Iterator[Finding]:
    yield Finding("missing", job.record, "the record of its outputs", "no such file", f"remove its outputs; {REDO}")
    for file in job.outputs:
        if file not in found:
            yield Finding("missing", file, f"made by stage {job.stage}", "no such file", REDO)


def _damaged(record: Record) -> Finding:
    return Finding("record", record.path, "a sound record", record.faults[0], f"remove it and its outputs; {REDO}")


def _check_record(job: Job, record: Record, code: str) -> Iterator[Finding]:
    """Compare the record of a job with the job that params.yaml asks for."""
    content = record.content
    for fault in record.faults:
        yield Finding("record", record.path, "as the job wrote it", fault, f"remove it and its outputs; {REDO}")
    expected = {
        "stage": job.stage,
        "digest": job.digest,
        "spec": job.settings,
        "code": code,
        "inputs": list(job.inputs),
        "outputs": list(job.outputs),
    }
    stated = {
        **{key: content[key] for key in ("stage", "digest", "spec")},
        "code": content["code"]["digest"],
        "inputs": [source["path"] for source in content["inputs"]],
        "outputs": [output["path"] for output in content["outputs"]],
    }
    for key, value in expected.items():
        if stated[key] != value:
            old, new = _contrast(key, value, stated[key])
            yield Finding("record", record.path, f"{key}: {old}", new, f"remove it and its outputs; {REDO}")
    if wrong := _command_fault(content):
        yield Finding("record", record.path, "a command that says what the record says", wrong, REMAKE)
    for key, settled in _run_of(job).items():
        if json.dumps(content["run"].get(key)) != json.dumps(settled):  # 1 is not true
            found = str(content["run"].get(key))
            yield Finding("record", record.path, f"run.{key}: {settled}", found, f"remove it and its outputs; {REDO}")


def _run_of(job: Job) -> dict[str, object]:
    """Return what the record of `job` must say of how it ran, where the study settles it."""
    if isinstance(job.spec, TrainSpec):
        return {"threads": job.spec.train.threads, "deterministic": job.spec.train.deterministic}
    return {"threads": 1} if job.stage in ("theory", "collapse") else {}


def _contrast(key: str, expected: object, stated: object) -> tuple[str, str]:
    if key == "spec":
        return "as params.yaml asks", "; ".join(differences(expected, stated))
    if isinstance(expected, list) and isinstance(stated, list):
        return _short(set(expected) - set(stated)), _short(set(stated) - set(expected))
    return str(expected), str(stated)


def _short(paths: Iterable[str]) -> str:
    names = sorted(paths)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") or "the same, in this order"


def _command_fault(content: dict) -> str | None:
    """Return in what the recorded command line contradicts the rest of its record; None if in nothing."""
    words = content["command"]
    if words[:4] != ["python", "-m", "eqcollapse", content["stage"]]:
        return f"it starts with {' '.join(words[:4])}"
    options: dict[str, list[str]] = {}
    for word in words[4:]:
        if word.startswith("--"):
            options[word] = []
        elif options:
            options[next(reversed(options))].append(word)
    stated = {
        "--digest": [content["digest"]],
        "--inputs": [source["path"] for source in content["inputs"]],
        "--outputs": [output["path"] for output in content["outputs"]],
    }
    for option, value in stated.items():
        if options.get(option, []) != value:
            return f"its {option} is another"
    try:
        same = json.loads("".join(options.get("--spec", []))) == content["spec"]
    except ValueError:
        same = False
    return None if same else "its --spec is another"


def check_outputs(job: Job, record: Record, found: Mapping[str, Content]) -> Iterator[Finding]:
    """Compare every output of `job` with what its record says of it."""
    for file in job.outputs:
        stated = record.outputs.get(file)
        if stated is None:
            continue
        if file not in found:
            yield Finding("missing", file, f"sha256 {stated['sha256']}", "no such file", REDO)
        elif (found[file].sha256, found[file].bytes) != (stated["sha256"], stated["bytes"]):
            expected = f"{stated['bytes']} bytes, sha256 {stated['sha256']}"
            held = f"{found[file].bytes} bytes, sha256 {found[file].sha256}"
            yield Finding("altered", file, expected, held, f"remove it and its record; {REDO}")


def check_inputs(job: Job, record: Record, lineage: Lineage, records: Mapping[str, Record]) -> Iterator[Finding]:
    """Compare what `job` read with what the records of the jobs upstream say that they wrote."""
    for file, stated in record.inputs.items():
        writer = lineage.writer.get(file)
        if writer is None:
            if file not in job.inputs:
                continue  # _check_record names it
            yield Finding("input", record.path, f"{file}: an output of some job", "no job writes it", REDO)
            continue
        upstream = records.get(writer.record)
        if upstream is None or not upstream.usable or file not in upstream.outputs:
            continue  # found at the writer
        wrote = upstream.outputs[file]
        if wrote != stated:
            expected = f"{file}: {wrote['bytes']} bytes, sha256 {wrote['sha256']}"
            found = f"read as {stated['bytes']} bytes, sha256 {stated['sha256']}"
            yield Finding("input", record.path, expected, found, f"remove it and its outputs; {REDO}")


def check_strangers(
    lineage: Lineage, sizes: Mapping[str, int], strays: Mapping[str, Record], exempt: Iterable[str]
) -> Iterator[Finding]:
    """Name every file that is not the study's: results of other settings, a finding a job, or foreign."""
    strangers = set(sizes) - set(lineage.writer) - set(exempt)
    for path, record in sorted(strays.items()):
        unit = {path, *record.outputs} if record.usable else set()
        if unit and unit <= strangers:
            strangers -= unit
            first = record.content["outputs"][0]["path"]
            where = os.path.dirname(path) if os.path.basename(path) == "provenance.json" else first
            held = f"made with digest {record.content['digest']}, which params.yaml does not ask for"
            yield Finding("superseded", where, "no such result", held, "eqcollapse restore puts it in .attic")
    for file in sorted(strangers):
        if os.path.lexists(file):  # a link, a pipe: whatever it is
            held = "a record of no job of the study" if is_record(file) else "a file of no job of the study"
            yield Finding("foreign", file, "no such file", held, "remove it")
