"""Check that the files of a DVC stage are what params.yaml and the source ask for, before DVC records them."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from eqcollapse.pipeline.sweep import ATTIC, forget, is_complete, keep, pending, put_in_order
from eqcollapse.provenance import records
from eqcollapse.provenance.dvc_stages import DvcStage, covered
from eqcollapse.runtime import locks
from eqcollapse.runtime.errors import EqcollapseError
from eqcollapse.study.grid import Study
from eqcollapse.study.jobs import Job

AGAIN = "run the same command again"
"""What to do, at the end of a line of `confirm`."""


def confirm(study: Study, stage: DvcStage) -> None:
    """Check that what lies under the stage's outs is what `study` asks for, made from what lies there now.

    Raises `EqcollapseError` in one line otherwise. Makes the folders of outs that no job writes to: DVC wants them.
    Results of other settings are put aside. What is costly is linked into the attic, so that it is there for other
    settings whatever DVC does to results/.
    """
    jobs = stage.jobs(study)
    ledger = Ledger(study)
    faulty = {job.path: faults for job in jobs if (faults := list(_job_faults(job, ledger)))}
    found = [fault for faults in faulty.values() for fault in faults]
    if found:
        for job in jobs:
            if job.path in faulty and is_complete(job) and not _is_kept_right(job, ledger):
                forget(job)  # or it would come back when what is wrong here is removed, as we ask for
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise EqcollapseError(found[0] + more)
    if pending(study):  # where Snakemake found nothing to do, it put nothing aside
        locks.hold_folder()
        put_in_order(study)
    files = {file for job in jobs for file in job.files}
    if strange := [file for out in stage.outs for file in _files(out) if file not in files]:
        raise EqcollapseError(f"{strange[0]}: is not asked for by params.yaml and the source: remove it, and {AGAIN}")
    for out in stage.outs:
        if not any(covered(file, [out]) for file in files):
            Path(out).mkdir(parents=True, exist_ok=True)
    keep(jobs)


def _files(out: str) -> Iterator[str]:
    """Yield the files under `out`, but for hidden ones, such as half ones are."""
    folder = Path(out)
    paths = [folder] if folder.is_file() else sorted(folder.rglob("*")) if folder.is_dir() else []
    yield from (str(path) for path in paths if path.is_file() and not path.name.startswith("."))


class Ledger:
    """The records of a study's jobs, each read once."""

    def __init__(self, study: Study) -> None:
        self._study = study
        self._stated: dict[str, records.Stated] = {}

    def of(self, job: Job) -> records.Stated:
        """Return what the record of `job` says; OSError if it is not there, `EqcollapseError` if it is no record."""
        if job.record not in self._stated:
            self._stated[job.record] = _stated(job.record)
        return self._stated[job.record]

    def written(self, file: str) -> str | None:
        """Return the sha256 with which `file` was made by its job; None if the record of that is not there.

        Which is so where only the report was pulled: what is not here is no fault of what is.
        """
        try:
            return self.of(self._makers[file]).outputs.get(file, "")
        except FileNotFoundError:
            return None

    @cached_property
    def _makers(self) -> dict[str, Job]:
        return {file: job for job in self._study for file in job.outputs}


def _stated(record: str) -> records.Stated:
    try:
        return records.stated(record)
    except ValueError:
        raise EqcollapseError(f"{record}: is not a record: remove it, and {AGAIN}") from None


def _job_faults(job: Job, ledger: Ledger) -> Iterator[str]:
    missing = [file for file in job.files if not Path(file).exists()]
    if missing:
        yield (f"{missing[0]}: is not there, but params.yaml and the source ask for it: they were edited since the run "
               f"began, or it was not all run; {AGAIN}")  # fmt: skip
        return
    try:
        stated = ledger.of(job)
        stale = list(_input_faults(job, stated, ledger))
    except EqcollapseError as error:
        yield str(error)
        return
    if stated.digest != job.digest:
        yield (f"{job.outputs[0]}: is of other settings than params.yaml and the source now are: they were edited "
               f"since the run began; {AGAIN}")  # fmt: skip
        return
    yield from stale
    for file in job.outputs:
        if records.sha256(file) != stated.outputs.get(file):
            yield f"{file}: is not what was made: somebody changed it; remove it, and {AGAIN}"


def _is_kept_right(job: Job, ledger: Ledger) -> bool:
    """Return whether the attic has `job` to the byte of its record, and made from what lies here now."""
    try:
        stated = _stated(str(ATTIC / job.record))
        outputs = {file: records.sha256(ATTIC / file) for file in job.outputs}
        return (stated.digest, stated.outputs) == (job.digest, outputs) and not any(_input_faults(job, stated, ledger))
    except (OSError, EqcollapseError):
        return False


def _input_faults(job: Job, stated: records.Stated, ledger: Ledger) -> Iterator[str]:
    """Yield the inputs that were others when `job` read them than those which the jobs before it have made."""
    for file in job.inputs:
        written = ledger.written(file)
        if written is not None and stated.inputs.get(file) != written:
            # Of what is costly no more than has to go; of the others, all of a kind at once.
            stale = job.record if job.pinned else "/".join(job.record.split("/")[:2])
            yield (f"{job.outputs[0]}: was made from another {file} than the one that is there: "
                   f"remove {stale}, and {AGAIN}")  # fmt: skip
