"""What the Snakefile does before its rules: check the settings, plan the study, sweep results/.

Snakemake parses the Snakefile again in every job that it hands to a cluster, maybe hours later, when params.yaml or
the source may be others. So the main process freezes what it planned, and hands the file's name on in the environment.
"""

import hashlib
import json
import os
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NoReturn

from eqcollapse.pipeline import folder_lock, image, machine, own_data, slurm
from eqcollapse.pipeline.snakemake_options import Asked, asked, runs_here
from eqcollapse.pipeline.sweep import ATTIC, pending
from eqcollapse.runtime import locks
from eqcollapse.runtime.errors import EqcollapseError
from eqcollapse.runtime.files import write_text
from eqcollapse.study import yaml_file
from eqcollapse.study.grid import Study
from eqcollapse.study.params import Params, parse

PLAN = "EQCOLLAPSE_PLAN"
"""The environment variable that names the frozen plan of a run."""


def look_at(file: str) -> None:
    """Check the text of a params file before Snakemake reads it, which a hostile one would keep busy for ever."""
    try:
        _look_at(file)
    except EqcollapseError as error:
        _stop(error)


def _look_at(file: str) -> None:
    if not os.path.exists(file):
        return  # which Snakemake says
    yaml_file.read_sections(file)


def plan(
    config: Mapping[str, Any], *, files: Collection[str], is_main_process: bool, deployment: Collection[Any] = ()
) -> Study:
    """Return the study that `config` (params.yaml and what the command line overrides) asks for.

    In Snakemake's main process, results/ is swept first; in a job that parses the Snakefile again, the study is the
    one that the main process planned. A fault ends Snakemake with a line for each, before any job.
    `files` are the files that `config` was read from, as Snakemake has them (params.yaml last), for such a line.
    `deployment` are Snakemake's methods of software deployment: with Apptainer, the image must be there.
    """
    _put_this_python_first()
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # in jobs neither: see the Snakefile
    try:
        contained = "APPTAINER" in {method.name for method in deployment}
        if contained:
            image.announce()
        if not is_main_process:
            return _frozen(config)
        *presets, base = (yaml_file.read_sections(file) for file in files)
        params = parse(config, _named(files), [base, *presets])
        if params.device == "cuda" and runs_here():
            machine.check_gpu(contained=contained)
        if params.log.tensorboard and asked().runs:
            machine.check_tensorboard(contained=contained)
        return _planned(params, config)
    except EqcollapseError as error:
        _stop(error)


def _stop(error: EqcollapseError) -> NoReturn:
    print(error, file=sys.stderr, flush=True)
    # Snakemake answers an exception with a traceback through its own code, which helps nobody here.
    os._exit(1)


def _named(files: Collection[str]) -> str:
    """Return what the settings of `files` are called: the last one is what the others are laid over."""
    *overlays, base = (os.path.relpath(file) for file in files)
    return " with ".join((base, *overlays))


def _planned(params: Params, config: Mapping[str, Any]) -> Study:
    study = Study(params)
    try:
        guard = folder_lock.Guard()
    except OSError as error:
        raise EqcollapseError(f"{folder_lock.FOLDER}: cannot be written, and Snakemake needs it: {error}") from None
    command = asked()
    for warning in own_data.changes(study) if command.plans else ():
        print(f"params.yaml: warning: {warning}", file=sys.stderr)
    if command.plans:  # what looks at the rules alone may do so while a run is under way, too
        _sweep(study, guard, command)
    os.environ[PLAN] = _freeze(config, study)
    folder_lock.note_owner(os.environ[PLAN])
    guard.share()
    _HELD.append(guard)
    return study


_HELD: list[folder_lock.Guard] = []
"""The guard of this process, so that it is held to the end."""


def _sweep(study: Study, guard: folder_lock.Guard, command: Asked) -> None:
    """Move what there is to move, unless another run is under way.

    Then the study is refused: with files of other settings under fixed names, Snakemake would find nothing to do.
    """
    alone = guard.alone(patience=0)
    moves = pending(study)
    if moves and not alone:
        alone = guard.alone()  # of two that start at once, the other may be moving just now
        moves = pending(study)
    idle = alone and not folder_lock.locked()
    if idle and command.runs and slurm.recover():  # for who only looks, what is in a queue is left alone
        moves = pending(study)
    hindrance = _hindrance(idle) if moves else ""
    if moves and not hindrance:
        moves.run()
        print(
            f"params.yaml: {len(moves.away)} results put aside in {ATTIC}, {len(moves.back)} brought back",
            file=sys.stderr,
        )
    if idle:
        slurm.trust(study)
        _forget_plans()
    if hindrance and not command.unlocks:
        raise EqcollapseError(
            f"params.yaml: {len(moves.away)} results are of other settings, and cannot be put aside while {hindrance}"
        )


def _hindrance(idle: bool) -> str:
    """Return what is under way here that nothing may be moved under, and what to do about it; "" if nothing is."""
    if not idle:
        who = folder_lock.who_works()
        return f"{who} is running here: wait for its end (or, if it is dead, `snakemake --unlock`)"
    makers = locks.under_way()
    remedy = f"wait for its end, or end it (or, if all that work here are dead, remove {locks.JOB_LOCKS})"
    return f"{makers[0]}, for a run that was killed: {remedy}" if makers else ""


def _freeze(config: Mapping[str, Any], study: Study) -> str:
    """Write what the study was planned from; return the file's name, which is a digest of its content."""
    content = json.dumps({"config": config, "code": study.code, "own": study.own}, default=str, sort_keys=True)
    path = folder_lock.FOLDER / f"plan-{hashlib.sha256(content.encode()).hexdigest()[:10]}.json"
    if not path.exists():
        write_text(path, content)
    return str(path)


def _frozen(config: Mapping[str, Any]) -> Study:
    name = os.environ.get(PLAN)
    return frozen(name) if name else Study(parse(config))


def frozen(name: str) -> Study:
    """Return the study whose plan a run froze in the file `name`; EqcollapseError if that is gone."""
    try:
        content = json.loads(Path(name).read_text())
    except (OSError, ValueError):
        raise EqcollapseError(f"{name}: the plan of the run that this job is of is gone: start the run again") from None
    return Study(parse(content["config"]), content["code"], content["own"])


def _forget_plans() -> None:
    for path in folder_lock.FOLDER.glob("plan-*.json"):
        path.unlink(missing_ok=True)


def _put_this_python_first() -> None:
    """Let bare jobs run the Python that runs Snakemake, also where its environment is not activated."""
    here = os.path.dirname(sys.executable)
    places = os.environ.get("PATH", "").split(os.pathsep)
    if places[0] != here:
        os.environ["PATH"] = os.pathsep.join([here, *places])
