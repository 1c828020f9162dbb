"""What an audit finds: each with its path, what was expected, what was found and what hangs on it."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from eqcollapse.study.jobs import Job

KINDS = {
    "signature": "results are not as they were signed, or the signature does not count",
    "altered": "a file is not as its record says",
    "missing": "a file of the study is not there",
    "stale": "a file was made from other settings, inputs or code than today's",
    "record": "a record is damaged, edited, or not the one of its job",
    "input": "what a job read is not what the job upstream wrote",
    "content": "a file is not what its spec and inputs give",
    "foreign": "a file that no job of the study made",
    "superseded": "results of other settings, which lie among today's",
    "code": "source code is not that of the commit",
    "image": "the container image is not the recorded one",
    "dvc": "dvc.yaml or dvc.lock tells another story",
    "snakemake": "Snakemake's jobs tell another story",
}
"""Every kind of finding, the worst first."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong. `dependents` are the outputs that hang on it."""

    kind: str
    path: str
    expected: str
    found: str
    remedy: str = ""
    dependents: tuple[str, ...] = ()


@dataclass
class AuditReport:
    """What an audit says: findings, what could not be checked, and counts."""

    findings: list[Finding]
    notes: list[str]
    counts: dict[str, int]
    environments: list[dict[str, Any]] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    def as_json(self) -> dict[str, Any]:
        """Return the report as what audit.json holds."""
        return {
            "format": "eqcollapse-audit/1",
            "verdict": "pass" if self.passed else "fail",
            "counts": self.counts,
            "findings": [asdict(finding) for finding in self.findings],
            "notes": self.notes,
            "environments": self.environments,
        }


class Lineage:
    """Who wrote and who reads each file of a study; jobs come in any order."""

    def __init__(self, jobs: Iterable[Job]):
        self.jobs = list(jobs)
        self.writer: dict[str, Job] = {file: job for job in self.jobs for file in job.files}
        self.readers: dict[str, list[Job]] = {}
        for job in self.jobs:
            for file in job.inputs:
                self.readers.setdefault(file, []).append(job)

    @cached_property
    def _memo(self) -> dict[str, tuple[str, ...]]:
        return {}

    def upstream(self, job: Job) -> list[Job]:
        """Return the jobs that wrote what `job` reads, each once."""
        writers = {self.writer[file].record: self.writer[file] for file in job.inputs if file in self.writer}
        return list(writers.values())

    def hanging_on(self, path: str) -> tuple[str, ...]:
        """Return the outputs that hang on `path`: of its own job (where it is the record) and of all after it."""
        job = self.writer.get(path)
        if job is None:
            return self.after_jobs(self.readers.get(path, []))
        if path == job.record:
            return self.after_jobs([job])
        return self.after_jobs(self.readers.get(path, []))

    @property
    def everything(self) -> tuple[str, ...]:
        """All outputs of all jobs, sorted."""
        return self.after_jobs(self.jobs)

    def after_jobs(self, jobs: Iterable[Job]) -> tuple[str, ...]:
        """Return the outputs of `jobs` and of all jobs that read from them, at any depth, sorted."""
        seen: dict[str, Job] = {}
        waiting = list(jobs)
        key = "\n".join(sorted(job.record for job in waiting))
        if key not in self._memo:
            while waiting:
                job = waiting.pop()
                if job.record not in seen:
                    seen[job.record] = job
                    waiting.extend(reader for file in job.outputs for reader in self.readers.get(file, []))
            self._memo[key] = tuple(sorted(file for job in seen.values() for file in job.outputs))
        return self._memo[key]
