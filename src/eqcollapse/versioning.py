"""Whether dvc.yaml tells the truth: about what the stages read, write and depend on, and about what lies there.

DVC decides by dvc.yaml what is to be run, Snakemake by the study. Where the two differ, DVC skips what has changed, or
records under new settings what was made under old ones. So: every output of a job lies under the outs of one stage,
every input from another stage and every source file under a dep, every key of params.yaml that changes the jobs of a
stage under its params; and nothing is listed that no job needs.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from eqcollapse import source
from eqcollapse.errors import EqcollapseError
from eqcollapse.provenance import records
from eqcollapse.study import STAGES, Job, Study
from eqcollapse.sweep import ATTIC, forget, is_complete, keep

OWN = ("data", "splits", "train", "theory", "collapse")
"""The kinds of job that are a DVC stage of their own; the others are the report's."""

PLANNING = {f"src/eqcollapse/{name}.py" for name in ("params", "reporting", "sections", "source", "study")}
"""What says which jobs there are and where their files lie: every stage depends on it."""

AGAIN = "run the same command again"
"""What to do, at the end of a line of `confirm`."""


@dataclass(frozen=True)
class Stage:
    """A stage of dvc.yaml."""

    name: str
    deps: tuple[str, ...]
    params: tuple[str, ...]
    outs: tuple[str, ...]

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of job that the stage runs."""
        if self.name == "report":
            return tuple(kind for kind in STAGES if kind not in OWN)
        return (self.name,) if self.name in OWN else ()

    def jobs(self, study: Study) -> list[Job]:
        """Return the stage's jobs in `study`."""
        return [job for kind in self.kinds for job in study.jobs[kind].values()]

    def sources(self) -> set[str]:
        """Return the source files that the stage's jobs depend on, relative to the project."""
        root = source.ROOT.parents[1]
        files = (file for kind in self.kinds for file in source.files(STAGES[kind]))
        return {file.relative_to(root).as_posix() for file in files} | PLANNING


def load(path: str | Path = "dvc.yaml") -> list[Stage]:
    """Read the stages of dvc.yaml."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        return stages(content)
    except (OSError, yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise EqcollapseError(f"{path}: cannot be read as DVC stages: {' '.join(str(error).split())}") from None


def stages(content: Mapping[str, Any]) -> list[Stage]:
    """Return the stages of a parsed dvc.yaml."""
    return [
        Stage(name, *(tuple(_names(stage.get(key, []))) for key in ("deps", "params", "outs")))
        for name, stage in content["stages"].items()
    ]


def faults(study: Study, versioned: list[Stage], moves: Mapping[str, set[str]]) -> list[str]:
    """Return where dvc.yaml is not the truth, a line each; `moves` is what `moved` found.

    Without `moves`, what can be said of any study: that it does without a stage's files is no fault of dvc.yaml.
    """
    lines = [f"dvc.yaml: there is no stage {name}" for name in _missing_stages(versioned)]
    lines += [f"dvc.yaml: no stage has params.yaml's {key} under its params" for key in _unwatched(versioned, moves)]
    lines += _output_faults(study, versioned)
    lines += _idle_faults(study, versioned) if moves else []
    for stage in versioned:
        lines += _dep_faults(study, stage)
        lines += _param_faults(stage, moves)
    return lines


def _missing_stages(versioned: list[Stage]) -> list[str]:
    kinds = {kind for stage in versioned for kind in stage.kinds}
    return [kind for kind in STAGES if kind not in kinds]


def _unwatched(versioned: list[Stage], moves: Mapping[str, set[str]]) -> list[str]:
    """Return the keys of which DVC would take any value: not even a stage that watches the whole file has them."""
    watched = {param for stage in versioned for param in stage.params}
    return [] if "params.yaml" in watched else [key for key in moves if not _covered(key, watched, ".")]


def _output_faults(study: Study, versioned: list[Stage]) -> Iterator[str]:
    for job in study:
        for file in job.files:
            owners = [stage.name for stage in versioned if _covered(file, stage.outs)]
            own = [stage.name for stage in versioned if job.stage in stage.kinds]
            if owners != own:
                under = " and ".join(owners) or "no stage"
                yield f"dvc.yaml: {file} (stage {' and '.join(own) or job.stage}) is under the outs of {under}"


def _idle_faults(study: Study, versioned: list[Stage]) -> Iterator[str]:
    """Yield the outs and deps that no job of `study` has: of a study of everything these are faults."""
    made = {out for stage in versioned for out in stage.outs}
    for stage in versioned:
        jobs = stage.jobs(study)
        needed = {file for job in jobs for file in job.inputs if not _covered(file, stage.outs)} | stage.sources()
        for dep in stage.deps:
            if (jobs or dep not in made) and not any(_covered(file, [dep]) for file in needed):
                yield f"dvc.yaml: stages.{stage.name}.deps: {dep} is read by no job"
        files = [file for job in jobs for file in job.files]
        for out in stage.outs:
            if files and not any(_covered(file, [out]) for file in files):
                yield f"dvc.yaml: stages.{stage.name}.outs: {out} is written by no job"


def _dep_faults(study: Study, stage: Stage) -> Iterator[str]:
    read = {file for job in stage.jobs(study) for file in job.inputs if not _covered(file, stage.outs)}
    needed = read | stage.sources()
    for file in sorted(needed):
        if not _covered(file, stage.deps):
            yield f"dvc.yaml: stages.{stage.name}.deps: {file} is read, but is under none of them"


def _param_faults(stage: Stage, moves: Mapping[str, set[str]]) -> Iterator[str]:
    for key, moving in moves.items():
        if stage.name in moving and not _covered(key, stage.params, "."):
            yield f"dvc.yaml: stages.{stage.name}.params: {key} changes its jobs, but is not under them"
    for param in stage.params:
        under = [key for key in moves if _covered(key, [param], ".")]
        if under and not any(stage.name in moves[key] for key in under):
            yield f"dvc.yaml: stages.{stage.name}.params: {param} changes none of its jobs"


def _names(entries: list[Any]) -> list[str]:
    return [next(iter(entry)) if isinstance(entry, Mapping) else entry for entry in entries]


def _covered(name: str, by: Iterable[str], separator: str = "/") -> bool:
    return any(name == above or name.startswith(above + separator) for above in by)


def confirm(study: Study, stage: Stage) -> None:
    """Check that what lies under the stage's outs is what `study` asks for, made from what lies there now.

    Raises `EqcollapseError` in one line otherwise. Makes the folders of outs that no job writes to: DVC wants them.
    What is costly is linked into the attic, so that it is there for other settings whatever DVC does to results/.
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
    files = {file for job in jobs for file in job.files}
    if strange := [file for out in stage.outs for file in _files(out) if file not in files]:
        raise EqcollapseError(
            f"{strange[0]}: is not asked for by params.yaml and the source: remove it (or wait, where a job of an "
            f"earlier run is making it just now), and {AGAIN}"
        )
    for out in stage.outs:
        if not any(_covered(file, [out]) for file in files):
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
