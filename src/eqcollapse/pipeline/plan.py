"""What the Snakefile does around its rules: plan the study while it is parsed, and put results/ in order before a run.

To parse is to look: nothing is written, so a dry run changes no file. Snakemake parses the Snakefile again in every job
that it hands to a cluster, maybe hours later, when params.yaml or the source may be others. So the main process hands
what it planned on in the environment.
"""

import json
import os
import sys
from collections.abc import Collection, Mapping
from typing import Any, NoReturn

from eqcollapse.pipeline import image, machine, own_data, slurm
from eqcollapse.pipeline.sweep import Sweep, pending, put_in_order
from eqcollapse.runtime import locks
from eqcollapse.runtime.errors import EqcollapseError
from eqcollapse.study import yaml_file
from eqcollapse.study.grid import Study
from eqcollapse.study.params import parse

PLAN = "EQCOLLAPSE_PLAN"
"""The environment variable that has what a run was planned from: settings, and the digests of code."""


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


class Run:
    """What Snakemake's `workflow` is to make: `study`, and `sweep`, what there is to move for it before.

    `config` is params.yaml and what the command line overrides. In a job that parses the Snakefile again, the study is
    the one that the main process planned. A fault ends Snakemake with a line for each, before any job.
    """

    def __init__(self, config: Mapping[str, Any], workflow: Any) -> None:
        _put_this_python_first()
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # in jobs neither: see the Snakefile
        self._workflow = workflow
        deployment = workflow.deployment_settings.deployment_method
        self._contained = "APPTAINER" in {method.name for method in deployment}
        try:
            if self._contained:
                image.announce()
            self.study = self._planned(config) if workflow.is_main_process else _handed_on(config)
        except EqcollapseError as error:
            _stop(error)
        self.sweep = pending(self.study) if workflow.is_main_process else Sweep([], [])
        if self.sweep:
            _count_as_missing(self.sweep.going, workflow)

    def begin(self) -> None:
        """Put results/ in order for the jobs that follow; what a dry run leaves alone.

        The jobs were planned by what lay there before. So where anything was moved, Snakemake starts anew.
        """
        try:
            if self.study.params.device == "cuda" and self._workflow.local_exec:
                machine.check_gpu(contained=self._contained)
            if self.study.params.log.tensorboard:
                machine.check_tensorboard(contained=self._contained)
            locks.hold_folder(os.environ[PLAN])
            if slurm.recover() | put_in_order(self.study) | bool(self.sweep):
                self._start_anew()
        except EqcollapseError as error:
            _stop(error)

    def _planned(self, config: Mapping[str, Any]) -> Study:
        files = self._workflow.configfiles  # params.yaml last
        *presets, base = (yaml_file.read_sections(file) for file in files)
        study = Study(parse(config, _named(files), [base, *presets]))
        for warning in own_data.changes(study):
            print(f"params.yaml: warning: {warning}", file=sys.stderr)
        os.environ[PLAN] = freeze(config, study)
        return study

    def _start_anew(self) -> NoReturn:
        self._workflow.tear_down()
        sys.stdout.flush()
        sys.stderr.flush()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _count_as_missing(files: Collection[str], workflow: Any) -> None:
    """Let Snakemake plan as if `files` were not there: they are of other settings, and put aside before a job starts.

    It has no public way to be told so. It asks for files by this method, and knows them in `iocache` while it plans.
    """
    from snakemake.io import _IOFile

    is_there = _IOFile.exists_local

    async def exists_local(file: _IOFile) -> bool:
        return not (str(file) in files and workflow.iocache.active) and await is_there(file)

    setattr(_IOFile, "exists_local", exists_local)  # noqa: B010


def _handed_on(config: Mapping[str, Any]) -> Study:
    plan = os.environ.get(PLAN)
    return frozen(plan) if plan else Study(parse(config))  # as where Snakemake was told by hand to be a job


def freeze(config: Mapping[str, Any], study: Study) -> str:
    """Return what `study` was planned from, as a line of JSON."""
    content = {"config": config, "code": study.code, "own": study.own}
    return json.dumps(content, default=str, sort_keys=True)


def frozen(plan: str) -> Study:
    """Return the study that was planned from what `plan` says."""
    content = json.loads(plan)
    return Study(parse(content["config"]), content["code"], content["own"])


def _stop(error: EqcollapseError) -> NoReturn:
    print(error, file=sys.stderr, flush=True)
    sys.exit(1)  # Snakemake answers other exceptions with a traceback through its own code, which helps nobody here


def _named(files: Collection[str]) -> str:
    """Return what the settings of `files` are called: the last one is what the others are laid over."""
    *overlays, base = (os.path.relpath(file) for file in files)
    return " with ".join((base, *overlays))


def _put_this_python_first() -> None:
    """Let bare jobs run the Python that runs Snakemake, also where its environment is not activated."""
    here = os.path.dirname(sys.executable)
    places = os.environ.get("PATH", "").split(os.pathsep)
    if places[0] != here:
        os.environ["PATH"] = os.pathsep.join([here, *places])
