"""Whether dvc.yaml tells the truth: about what the stages read, write and depend on, and about what lies there.

DVC decides by dvc.yaml what is to be run, Snakemake by the study. Where the two differ, DVC skips what has changed, or
records under new settings what was made under old ones. So: every output of a job lies under the outs of one stage,
every input from another stage and every source file under a dep, every key of params.yaml that changes the jobs of a
stage under its params; and nothing is listed that no job needs.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from eqcollapse.runtime.errors import EqcollapseError
from eqcollapse.study import fingerprint
from eqcollapse.study.grid import Study
from eqcollapse.study.jobs import Job
from eqcollapse.study.stages import STAGES

OWN = {kind: (kind,) for kind in ("data", "train", "theory", "collapse")} | {"splits": ("splits", "summary")}
"""The stages with jobs of their own, and the kinds of these; the other kinds are the report's."""

PLANNING = {"src/eqcollapse/study", "src/eqcollapse/runtime/section.py"}
"""What says which jobs there are and where their files lie: every stage depends on it."""

OWN_CODE = "own"
"""The folder for code of the user's own. Cells run it, and a trial of it is part of the check of params.yaml."""


@dataclass(frozen=True)
class DvcStage:
    """A stage of dvc.yaml."""

    name: str
    deps: tuple[str, ...]
    params: tuple[str, ...]
    outs: tuple[str, ...]

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of job that the stage runs."""
        if self.name == "report":
            return tuple(kind for kind in STAGES if all(kind not in kinds for kinds in OWN.values()))
        return OWN.get(self.name, ())

    def jobs(self, study: Study) -> list[Job]:
        """Return the stage's jobs in `study`."""
        return [job for kind in self.kinds for job in study.jobs[kind].values()]

    def sources(self) -> set[str]:
        """Return the source files that the stage's jobs depend on, relative to the project."""
        root = fingerprint.ROOT.parents[1]
        code = [file for kind in self.kinds for file in fingerprint.files(STAGES[kind].module)]
        types = [file for kind in self.kinds or STAGES for file in fingerprint.config_files(STAGES[kind].module)]
        own = {OWN_CODE} if "train" in self.kinds or not self.kinds else set()
        return {file.relative_to(root).as_posix() for file in (*code, *types)} | PLANNING | own


def load(path: str | Path = "dvc.yaml") -> list[DvcStage]:
    """Read the stages of dvc.yaml."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        return stages(content)
    except (OSError, yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise EqcollapseError(f"{path}: cannot be read as DVC stages: {' '.join(str(error).split())}") from None


def stages(content: Mapping[str, Any]) -> list[DvcStage]:
    """Return the stages of a parsed dvc.yaml."""
    return [
        DvcStage(name, *(tuple(_names(stage.get(key, []))) for key in ("deps", "params", "outs")))
        for name, stage in content["stages"].items()
    ]


def faults(study: Study, versioned: list[DvcStage], moves: Mapping[str, set[str]]) -> list[str]:
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


def _missing_stages(versioned: list[DvcStage]) -> list[str]:
    kinds = {kind for stage in versioned for kind in stage.kinds}
    return [kind for kind in STAGES if kind not in kinds]


def _unwatched(versioned: list[DvcStage], moves: Mapping[str, set[str]]) -> list[str]:
    """Return the keys of which DVC would take any value: not even a stage that watches the whole file has them."""
    watched = {param for stage in versioned for param in stage.params}
    return [] if "params.yaml" in watched else [key for key in moves if not covered(key, watched, ".")]


def _output_faults(study: Study, versioned: list[DvcStage]) -> Iterator[str]:
    for job in study:
        for file in job.files:
            owners = [stage.name for stage in versioned if covered(file, stage.outs)]
            own = [stage.name for stage in versioned if job.stage in stage.kinds]
            if owners != own:
                under = " and ".join(owners) or "no stage"
                yield f"dvc.yaml: {file} (stage {' and '.join(own) or job.stage}) is under the outs of {under}"


def _idle_faults(study: Study, versioned: list[DvcStage]) -> Iterator[str]:
    """Yield the outs and deps that no job of `study` has: of a study of everything these are faults."""
    made = {out for stage in versioned for out in stage.outs}
    for stage in versioned:
        jobs = stage.jobs(study)
        needed = {file for job in jobs for file in job.inputs if not covered(file, stage.outs)} | stage.sources()
        for dep in stage.deps:
            if (jobs or dep not in made) and not any(covered(file, [dep]) for file in needed):
                yield f"dvc.yaml: stages.{stage.name}.deps: {dep} is read by no job"
        files = [file for job in jobs for file in job.files]
        for out in stage.outs:
            if files and not any(covered(file, [out]) for file in files):
                yield f"dvc.yaml: stages.{stage.name}.outs: {out} is written by no job"


def _dep_faults(study: Study, stage: DvcStage) -> Iterator[str]:
    read = {file for job in stage.jobs(study) for file in job.inputs if not covered(file, stage.outs)}
    needed = read | stage.sources()
    for file in sorted(needed):
        if not covered(file, stage.deps):
            yield f"dvc.yaml: stages.{stage.name}.deps: {file} is read, but is under none of them"
    own = {file for job in stage.jobs(study) for file in own_code_of(job)}
    for file in sorted(own):
        if not covered(file, stage.deps):
            yield (f"dvc.yaml: stages.{stage.name}.deps: {file} is run, but is under none of them: move it to "
                   f"{OWN_CODE}/, or add it there")  # fmt: skip


def own_code_of(job: Job) -> list[str]:
    """Return the files of the project that `job` runs as the user's own code; those of installed packages are not."""
    return [file for file in getattr(job.spec, "own", {}) if Path(file).is_file()]


def _param_faults(stage: DvcStage, moves: Mapping[str, set[str]]) -> Iterator[str]:
    for key, moving in moves.items():
        if stage.name in moving and not covered(key, stage.params, "."):
            yield f"dvc.yaml: stages.{stage.name}.params: {key} changes its jobs, but is not under them"
    for param in stage.params:
        under = [key for key in moves if covered(key, [param], ".")]
        if under and not any(stage.name in moves[key] for key in under):
            yield f"dvc.yaml: stages.{stage.name}.params: {param} changes none of its jobs"


def _names(entries: list[Any]) -> list[str]:
    return [next(iter(entry)) if isinstance(entry, Mapping) else entry for entry in entries]


def covered(name: str, by: Iterable[str], separator: str = "/") -> bool:
    """Return whether `name` is one of `by`, or lies under one of them."""
    return any(name == above or name.startswith(above + separator) for above in by)
