"""The code behind the records: that of a commit, and that of today."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from eqcollapse.provenance.commits import Sources, at_head, head, sources
from eqcollapse.provenance.dvc_stages import own_code_of
from eqcollapse.provenance.findings import Finding, Lineage
from eqcollapse.provenance.reading import Record
from eqcollapse.study.fingerprint import ROOT, code_digest, files, runner_digest, runner_files
from eqcollapse.study.jobs import Job
from eqcollapse.study.stages import STAGES

COMMIT = "commit it"


@dataclass(frozen=True)
class _Used:
    """The code that some jobs ran, that of their stage or (None) what every job passes through: its digest, and the
    commit that HEAD named then.
    """

    stage: str | None
    digest: str
    commit: str

    def digest_in(self, root: Path = ROOT) -> str:
        """Return the digest of this code as it is in `root`, a folder of the package."""
        return code_digest(STAGES[self.stage].module, root) if self.stage else runner_digest(root)

    @property
    def files(self) -> list[Path]:
        """The source files of this code today."""
        return files(STAGES[self.stage].module) if self.stage else runner_files()

    @property
    def entry(self) -> str:
        """The file by which it is called."""
        module = STAGES[self.stage].module if self.stage else "eqcollapse.__main__"
        path = next(path for path in self.files if path.stem == module.rpartition(".")[2])
        return f"src/{path.relative_to(ROOT.parent)}"


def check_code(lineage: Lineage, records: Mapping[str, Record]) -> tuple[list[Finding], list[str]]:
    """Check the code of each record (of each job, by the job's record path) against its commit, HEAD and today.

    Return a finding for each source file that differs, with what hangs on it, and what could not be checked.
    """
    used: dict[_Used, list[Job]] = {}
    for job in lineage.jobs:
        record = records.get(job.record)
        if record is not None and record.usable and job.stage in STAGES:
            code = record.content["code"]
            for stage, digest in ((job.stage, code["digest"]), (None, code["runner"])):
                used.setdefault(_Used(stage, digest, code["commit"] or ""), []).append(job)
    now = head()
    if not used or now is None:
        return [], [] if now else ["no git history here: whether the code is that of a commit could not be checked"]
    notes = []
    with sources() as known:
        blamed: dict[tuple[str, str, str, str], list[Job]] = {}
        for what, jobs in used.items():
            if what.stage is None and known.root(what.commit) is None and not _is_of(what, now, known):
                notes.append(f"commit {what.commit[:12]} is not in this clone: the code that {len(jobs)} jobs passed "
                             "through was not checked (git fetch --unshallow)")  # fmt: skip
                continue
            for blame in _blame(what, jobs, known, now):
                blamed.setdefault(blame, []).extend(jobs)
        for path, found in _rest(known, now):
            blamed[path, f"as in commit {now[:12]}", found, COMMIT] = lineage.jobs
    for job in lineage.jobs:
        for path in own_code_of(job):
            if at_head(path) != Path(path).read_bytes():
                blame = (path, f"as in commit {now[:12]}", "changed, or in no commit", COMMIT)
                blamed.setdefault(blame, []).append(job)
    return [_finding(blame, jobs, lineage) for blame, jobs in sorted(blamed.items())], notes


def _is_of(used: _Used, commit: str, known: Sources) -> bool:
    return known.digest(commit, used.digest_in) == used.digest


def _rest(known: Sources, now: str) -> Iterator[tuple[str, str]]:
    """Yield what is in no job's code, and plans or starts all of them, where it is not as HEAD has it."""
    covered = {path for stage in STAGES.values() for path in files(stage.module)} | set(runner_files())
    for path in known.changed(now, sorted(set(ROOT.rglob("*.py")) - covered)):
        if at_head(path) is not None:
            yield path, "changed, and in no commit"
    for path in ("Snakefile", "dvc.yaml", *sorted(map(str, Path("workflow/rules").glob("*.smk")))):
        committed = at_head(path)
        if committed is not None and Path(path).read_bytes() != committed:
            yield path, "changed, and in no commit"
    for beside in sorted(ROOT.parent.iterdir()):
        if beside.suffix == ".py" or (beside.is_dir() and beside != ROOT and (beside / "__init__.py").exists()):
            yield f"src/{beside.name}", "beside the package: every job could import it instead of what it means to"


def _blame(used: _Used, jobs: list[Job], known: Sources, now: str) -> list[tuple[str, str, str, str]]:
    """Return path, expected, found, remedy of each source file (or record) at fault; nothing where the code is fine."""
    origin = next((commit for commit in (used.commit, now) if _is_of(used, commit, known)), None)
    today = used.digest == used.digest_in()
    if today and origin:
        return []
    if today or (origin and used.stage is None):  # what every job passes through makes no result stale
        paths = known.changed(now, used.files) or ([used.entry] if today else [])
        return [(path, f"as in commit {now[:12]}", "changed, and in no commit", COMMIT) for path in paths]
    if origin:
        found = "changed after these results were made"
        return [
            (path, f"as in commit {origin[:12]}", found, "run snakemake") for path in known.changed(origin, used.files)
        ]
    paths = sorted({job.record for job in jobs})
    return [(path, "code of a commit of this repository", f"code {used.digest[:12]}, which no known commit has",
             "run snakemake") for path in paths]  # fmt: skip


def _finding(blame: tuple[str, str, str, str], jobs: list[Job], lineage: Lineage) -> Finding:
    path, expected, found, remedy = blame
    return Finding("code", path, expected, found, remedy, lineage.after_jobs(jobs))
