"""The code behind the records: that of a commit, and that of today."""

from collections.abc import Mapping
from dataclasses import dataclass

from eqcollapse.provenance.commits import Sources, head, sources
from eqcollapse.provenance.findings import Finding, Lineage
from eqcollapse.provenance.reading import Record
from eqcollapse.source import ROOT, code_digest, files
from eqcollapse.study import STAGES, Job

COMMIT = "commit it"


@dataclass(frozen=True)
class _Used:
    """The code that some jobs of one stage ran: its digest and the commit that HEAD named then."""

    stage: str
    digest: str
    commit: str


def check_code(lineage: Lineage, records: Mapping[str, Record]) -> tuple[list[Finding], list[str]]:
    """Check the code of each record (of each job, by the job's record path) against its commit, HEAD and today.

    Return a finding for each source file that differs, with what hangs on it, and what could not be checked.
    """
    used: dict[_Used, list[Job]] = {}
    for job in lineage.jobs:
        record = records.get(job.record)
        if record is not None and record.usable and job.stage in STAGES:
            code = record.content["code"]
            used.setdefault(_Used(job.stage, code["digest"], code["commit"] or ""), []).append(job)
    now = head()
    if not used or now is None:
        return [], [] if now else ["no git history here: whether the code is that of a commit could not be checked"]
    with sources() as known:
        blamed: dict[tuple[str, str, str, str], list[Job]] = {}
        for what, jobs in used.items():
            for blame in _blame(what, jobs, known, now):
                blamed.setdefault(blame, []).extend(jobs)
    return [_finding(blame, jobs, lineage) for blame, jobs in sorted(blamed.items())], []


def _blame(used: _Used, jobs: list[Job], known: Sources, now: str) -> list[tuple[str, str, str, str]]:
    """Return path, expected, found, remedy of each source file (or record) at fault; nothing where the code is fine."""
    module = STAGES[used.stage]
    today = code_digest(module)
    origin = next((commit for commit in (used.commit, now) if known.digest(commit, module) == used.digest), None)
    if used.digest == today:
        if origin:
            return []
        return [(path, f"as in commit {now[:12]}", "changed, and in no commit", COMMIT)
                for path in known.changed(now, module) or [_source(module)]]  # fmt: skip
    if origin:
        found = "changed after these results were made"
        return [(path, f"as in commit {origin[:12]}", found, "run snakemake") for path in known.changed(origin, module)]
    paths = sorted({job.record for job in jobs})
    return [(path, "code of a commit of this repository", f"code {used.digest[:12]}, which no known commit has",
             "run snakemake") for path in paths]  # fmt: skip


def _source(module: str) -> str:
    path = next(path for path in files(module) if path.stem == module.rpartition(".")[2])
    return f"src/{path.relative_to(ROOT.parent)}"


def _finding(blame: tuple[str, str, str, str], jobs: list[Job], lineage: Lineage) -> Finding:
    path, expected, found, remedy = blame
    return Finding("code", path, expected, found, remedy, lineage.after_jobs(jobs))
