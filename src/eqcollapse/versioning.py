"""Whether dvc.yaml tells the truth: about what the stages read, write and depend on, and about what lies there.

DVC decides by dvc.yaml what is to be run, Snakemake by the study. Where the two differ, DVC skips what has changed, or
records under new settings what was made under old ones. So: every output of a job lies under the outs of one stage,
every input from another stage and every source file under a dep, every key of params.yaml that changes the jobs of a
stage under its params; and nothing is listed that no job needs.
"""

import copy
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from eqcollapse import source
from eqcollapse.errors import EqcollapseError
from eqcollapse.params import Params, parse
from eqcollapse.study import STAGES, Job, Study

OWN = ("data", "splits", "train", "theory", "collapse")
"""The kinds of job that are a DVC stage of their own; the others are the report's."""

PLANNING = {f"src/eqcollapse/{name}.py" for name in ("params", "reporting", "sections", "source", "study")}
"""What says which jobs there are and where their files lie: every stage depends on it."""

_DIGEST = re.compile(r"@[0-9a-f]{10}")
TRIED = 4
"""How many other values of a key are looked at."""


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


def moved(content: Mapping[str, Any], versioned: list[Stage]) -> dict[str, set[str]]:
    """Return, for every leaf of a params file, the stages whose jobs change when it is moved to other values.

    A stage's jobs are what it makes and the settings of that: that a job's inputs change is for deps to say. Leaves
    that can be moved nowhere (the names of other things, or an empty section) are left out.
    """
    before = _seen(content, versioned)
    found: dict[str, set[str]] = {}
    for path in _leaves(content):
        for changed in _variants(content, path):
            after = _seen(changed, versioned)
            moving = {stage for stage in after if after[stage] != before[stage]}
            found.setdefault(".".join(path), set()).update(moving)
    return found


def _seen(content: Mapping[str, Any], versioned: list[Stage]) -> dict[str, set[tuple[str, str]]]:
    study = Study(parse(content))
    return {
        stage.name: {(_DIGEST.sub("@", job.path), job.spec_json) for job in stage.jobs(study)} for stage in versioned
    }


def _leaves(content: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key)


def _variants(content: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Yield copies of `content` with another valid value at `path`, at most `TRIED`; and one without the key."""
    value, tried = _at(content, path), 0
    for other in _others(value, content):
        changed = _laid(content, path, other)
        if tried < TRIED and other != value and _is_valid(changed):
            tried += 1
            yield changed


def _at(content: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        content = content[key]
    return content


def _laid(content: Mapping[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(dict(content))
    _at(changed, path[:-1])[path[-1]] = value
    return changed


def _is_valid(content: Mapping[str, Any]) -> bool:
    try:
        parse(content)
    except EqcollapseError:
        return False
    return True


def _others(value: Any, content: Mapping[str, Any]) -> Iterator[Any]:
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int | float):
        yield from (value + 1, value - 1, value * 2, value / 2, 0.5, 0.25)
    elif isinstance(value, str):
        yield from (*_choices(), "0" * 64, value + "x")
    elif isinstance(value, list):
        yield from (value[:1], value[1:])
        yield from ([*value, item] for item in (*content["models"], *content["datasets"], "balanced", "ka2-r20"))
        yield from ([*value[:-1], other] for last in value[-1:] for other in _others(last, content))
        yield from ([1], [1, 2])
    else:
        yield from (1, 2, [1], "0" * 64, "x")


def _choices() -> list[str]:
    """Return the words that params.yaml may hold somewhere."""
    return sorted(set(_words(Params.model_json_schema())))


def _words(schema: Any) -> Iterator[str]:
    if isinstance(schema, Mapping):
        yield from (word for word in [*schema.get("enum", []), schema.get("const")] if isinstance(word, str))
        schema = schema.values()
    if not isinstance(schema, str) and isinstance(schema, Iterable):
        for part in schema:
            yield from _words(part)


def _names(entries: list[Any]) -> list[str]:
    return [next(iter(entry)) if isinstance(entry, Mapping) else entry for entry in entries]


def _covered(name: str, by: Iterable[str], separator: str = "/") -> bool:
    return any(name == above or name.startswith(above + separator) for above in by)


def confirm(study: Study, stage: Stage) -> None:
    """Check that what lies under the stage's outs is what `study` asks for, to the byte that the records speak of.

    Raises `EqcollapseError` in one line otherwise. Makes the folders of outs that no job writes to: DVC wants them.
    """
    found = [fault for job in stage.jobs(study) for fault in _job_faults(job)]
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise EqcollapseError(found[0] + more)
    files = [file for job in stage.jobs(study) for file in job.files]
    for out in stage.outs:
        if not any(_covered(file, [out]) for file in files):
            Path(out).mkdir(parents=True, exist_ok=True)


def _job_faults(job: Job) -> Iterator[str]:
    missing = [file for file in job.files if not Path(file).exists()]
    if missing:
        yield (f"{missing[0]}: is not there, but params.yaml and the source ask for it: they were edited since the run "
               "began, or it was not all run; run the same command again")  # fmt: skip
        return
    try:
        record = json.loads(Path(job.record).read_text())
        told = {output["path"]: output["sha256"] for output in record["outputs"]}
        digest = record["digest"]
    except (ValueError, KeyError, TypeError):
        yield f"{job.record}: is not a record: remove it, and run the same command again"
        return
    if digest != job.digest:
        yield (f"{job.outputs[0]}: is of other settings than params.yaml and the source now are: they were edited "
               "since the run began; run the same command again")  # fmt: skip
        return
    for file in job.outputs:
        if _sha256(file) != told.get(file):
            yield f"{file}: is not what was made: somebody changed it; remove it, and run the same command again"


def _sha256(file: str) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
