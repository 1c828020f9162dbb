"""The audit: everything under results/ and resources/ against the study, the records, git, DVC and Snakemake."""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from eqcollapse.provenance import dvclock
from eqcollapse.provenance.checks import check_jobs, check_strangers
from eqcollapse.provenance.code import check_code
from eqcollapse.provenance.content import check_contents
from eqcollapse.provenance.dag import Planning, check_plan
from eqcollapse.provenance.findings import KINDS, AuditReport, Finding, Lineage
from eqcollapse.provenance.hashing import Content, contents, walk
from eqcollapse.provenance.images import check_image
from eqcollapse.provenance.reading import Record, attic_records, is_record, read
from eqcollapse.provenance.signature import MANIFEST, SIGNATURE, check_signature, sign
from eqcollapse.provenance.staleness import Cause, Relatives
from eqcollapse.runtime.errors import EqcollapseError
from eqcollapse.study.fingerprint import code_digest
from eqcollapse.study.grid import Study
from eqcollapse.study.jobs import Job
from eqcollapse.study.params import parse
from eqcollapse.study.stages import STAGES

ROOTS = ("resources", "results")
PAGE, MACHINE = "results/audit.md", "results/audit.json"
STAGES_PICTURE, JOBS_PICTURE = "results/audit/stages.svg", "results/audit/jobs.svg"
WRITTEN = (PAGE, MACHINE, STAGES_PICTURE, JOBS_PICTURE, MANIFEST, SIGNATURE)
"""What an audit or a signature writes: the files under results/ that need no job."""


@dataclass
class Audit:
    """An audit under way: what was read, and what it led to. Paths are relative to the project's folder."""

    lineage: Lineage
    sizes: dict[str, int]
    found: dict[str, Content]
    records: dict[str, Record]
    strays: dict[str, Record]
    causes: dict[str, Cause] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, findings: Iterable[Finding]) -> None:
        """Take up findings, each with the outputs that hang on it."""
        for finding in findings:
            known = finding.dependents or self.lineage.hanging_on(finding.path)
            path = finding.path.encode("utf-8", "backslashreplace").decode()  # a name that is no text can be said, too
            self.findings.append(replace(finding, path=path, dependents=known))

    def report(self) -> AuditReport:
        """Return what there is to say, the worst first."""
        order = {kind: position for position, kind in enumerate(KINDS)}
        findings = sorted(set(self.findings), key=lambda f: (order[f.kind], f.path, f.expected, f.found))
        counts = {
            "jobs": len(self.lineage.jobs),
            "files": len(self.found),
            "bytes": sum(content.bytes for content in self.found.values()),
            "findings": len(findings),
        }
        return AuditReport(findings, self.notes, counts, _environments(self.records.values()))

    def states(self) -> dict[str, tuple[str, str]]:
        """Return the state of every job by its record's path (fresh, wrong, or why it is to be done) and a detail."""
        at_fault = {finding.path: finding.kind for finding in reversed(self.findings)}
        states = {}
        for job in self.lineage.jobs:
            cause = self.causes.get(job.record)
            fault = next((at_fault[file] for file in (*job.files, job.path) if file in at_fault), None)
            if cause:
                states[job.record] = (cause.kind, cause.detail)
            else:
                states[job.record] = ("wrong", KINDS[fault]) if fault else ("fresh", "")
        return states


def audit(
    config: Mapping[str, Any],
    *,
    name: str = "params.yaml",
    snakemake: bool = True,
    signers: str | None = None,
    revoked: str | None = None,
) -> Audit:
    """Audit the project in the working directory against the study of `config`, the content of a params file.

    `name` is what errors call it; without `snakemake`, Snakemake's own DAG is not compared. `signers` and `revoked`
    are files of ssh keys (see eqcollapse.provenance.signature); without `signers`, no signature is asked for.
    Nothing is changed. Raises EqcollapseError if `config` is not a study.
    """
    study = Study(parse(config, name))
    planning = Planning(config) if snakemake and Planning.possible() else None  # plans while files are hashed
    under_way = audit_jobs(list(study), lambda stage: code_digest(STAGES[stage].module))
    found, notes = check_contents(under_way.lineage.jobs, under_way.records, under_way.found.__contains__)
    under_way.add(found)
    under_way.notes += notes
    _audit_code(under_way)
    _audit_image(under_way)
    _audit_versioning(under_way, study, config)
    _audit_plan(under_way, planning)
    _audit_signature(under_way, signers, revoked)
    return under_way


def audit_jobs(jobs: list[Job], code_of: Callable[[str], str]) -> Audit:
    """Audit files and records against `jobs`, in time linear in bytes and in the files that the jobs read and write.

    `code_of` gives the digest of a stage's code today.
    """
    lineage = Lineage(jobs)
    sizes = _sizes()
    known = {job.record for job in jobs}
    records = {path: read(path) for path in sizes if path in known and os.path.isfile(path)}
    strays = {path: read(path) for path in sizes if is_record(path) and path not in known and os.path.isfile(path)}
    under_way = Audit(lineage, sizes, contents(sizes), records, strays)
    relatives = _relatives(under_way)
    findings, under_way.causes = check_jobs(lineage, records, under_way.found, relatives, code_of)
    under_way.add(findings)
    under_way.add(check_strangers(lineage, sizes, strays, filter(_is_dvcs, list(sizes))))
    return under_way


def sign_results(key: str) -> str:
    """Sign everything under results/ and resources/ with the ssh key `key`; return the signer's fingerprint."""
    return sign(key, _signable(contents(_sizes())))


def _sizes() -> dict[str, int]:
    return {path: size for path, size in walk(ROOTS).items() if path not in WRITTEN}


def _signable(found: Mapping[str, Content]) -> dict[str, Content]:
    return {path: each for path, each in found.items() if not _is_dvcs(path)}


def _relatives(under_way: Audit) -> Relatives:
    """Return earlier results: the strays, and what lies in the attic if any job has no result."""
    strays = [record for record in under_way.strays.values() if record.usable]
    here = all(job.record in under_way.records for job in under_way.lineage.jobs)
    return Relatives([*strays, *([] if here else attic_records())])


def _is_dvcs(path: str) -> bool:
    """Whether this is a .gitignore such as DVC writes beside its outs: it names outs of dvc.yaml, and nothing else."""
    if not path.endswith("/.gitignore") or os.path.islink(path) or not os.path.isfile(path):
        return False
    named = {os.path.dirname(path) + line for line in Path(path).read_text(errors="replace").splitlines()}
    return named <= dvclock.outs()


def _audit_code(under_way: Audit) -> None:
    earlier = {path: cause.old for path, cause in under_way.causes.items() if cause.old and cause.kind == "code"}
    current = {path: record for path, record in under_way.records.items() if path not in under_way.causes}
    findings, notes = check_code(under_way.lineage, {**current, **earlier})
    under_way.add(findings)
    under_way.notes += notes


def _audit_image(under_way: Audit) -> None:
    found, notes = check_image(record for record in under_way.records.values() if record.usable)
    for finding, paths in found:
        jobs = [under_way.lineage.writer[path] for path in paths]
        under_way.add([replace(finding, dependents=under_way.lineage.after_jobs(jobs))])
    under_way.notes += notes


def _audit_versioning(under_way: Audit, study: Study, config: Mapping[str, Any]) -> None:
    findings, notes = dvclock.check_lock(under_way.found, config)
    under_way.notes += notes
    everything = under_way.lineage.everything
    under_way.add(replace(finding, dependents=everything) for finding in dvclock.check_stages(study))
    for finding, paths in findings:
        jobs = [job for job in under_way.lineage.jobs if any(file.startswith(paths) for file in job.files)]
        under_way.add([replace(finding, dependents=under_way.lineage.after_jobs(jobs))])


def _audit_plan(under_way: Audit, planning: Planning | None) -> None:
    if planning is None:
        under_way.notes.append("Snakemake's own job DAG was not compared")
        return
    try:
        under_way.add(check_plan(planning.jobs(), under_way.lineage, under_way.records))
    except EqcollapseError as error:
        expected, everything = "a DAG that Snakemake can plan", under_way.lineage.everything
        under_way.add([Finding("snakemake", "Snakefile", expected, str(error), dependents=everything)])


def _audit_signature(under_way: Audit, signers: str | None, revoked: str | None) -> None:
    if signers is None:
        if os.path.exists(SIGNATURE):
            under_way.notes.append("the results are signed; --signers FILE checks by whom")
        return
    findings, notes = check_signature(signers, _signable(under_way.found), revoked)
    under_way.add(findings)
    under_way.notes += notes


def _environments(records: Iterable[Record]) -> list[dict[str, Any]]:
    """Return the environments of the records and how many jobs ran in each, the most first."""
    counted = Counter(json.dumps(r.content["environment"], sort_keys=True) for r in records if r.usable)
    ranked = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    return [{"jobs": number, **json.loads(text)} for text, number in ranked]
