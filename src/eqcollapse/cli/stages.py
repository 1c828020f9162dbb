"""The commands `data` to `page`: a job of one stage, as a rule's `shell:` or a person starts it."""

import argparse
import json
import os
import sys
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

from eqcollapse.runtime.errors import EqcollapseError


def add_arguments(commands: Any) -> None:
    """Add a command for each stage to the command line's subparsers."""
    from eqcollapse.study.stages import STAGES

    for name, stage in STAGES.items():
        about = f"{stage.about[0].upper()}{stage.about[1:]}. Snakemake calls this command; `snakemake -n -p` prints it."
        command = commands.add_parser(name, help=stage.about, description=about)
        command.set_defaults(run=_run)
        command.add_argument("--digest", required=True, help="the digest in the output's path or record")
        command.add_argument("--code", help="the digest of the stage's code when the job was planned")
        command.add_argument("--spec", required=True, type=_json_object, help="the resolved settings, as JSON")
        command.add_argument(
            "--inputs",
            nargs="*",
            default=[],
            metavar="FILE",
            help=f"{_listed(stage.reads)}; '-': their names, one a line, on standard input",
        )
        command.add_argument("--outputs", nargs="+", required=True, metavar="FILE", help=_listed(stage.writes))
    commands.choices["data"].add_argument("--path", help="your folder or archive of images")
    commands.choices["data"].add_argument("--mirror", help="a folder or URL that is searched first")
    commands.choices["train"].add_argument(
        "--device", default="auto", choices=("auto", "cpu", "cuda"), help="where to train; auto: CUDA if there is a GPU"
    )
    commands.choices["train"].add_argument(
        "--log", default="csv", choices=("csv", "tensorboard"), help="log the epochs to logs/train/**/*.csv alone, or "
        "as event files of TensorBoard as well"
    )  # fmt: skip


def _listed(files: tuple[str, ...] | None) -> str:
    """Return what a command's help says of the files that its stage takes."""
    return "as many files as the study has" if files is None else ", ".join(files) or "none"


def _json_object(text: str) -> dict[str, Any]:
    """Read the command line's JSON; ArgumentTypeError if it is none."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError("must be a JSON object")
    return value


def resuming(arguments: list[str]) -> str:
    """Return what an interrupted command, which may not have parsed its arguments yet, says of going on."""
    if arguments[:1] != ["train"]:
        return ""
    words = [word for argument in arguments for word in argument.split("=", 1)]
    digest = dict(pairwise(words)).get("--digest")
    if digest and _checkpoint(digest).exists():
        return "; the same command goes on from here"
    return "; no epoch is kept, so the same command begins anew"


def _checkpoint(digest: str) -> Path:
    return Path(".cache/checkpoints", f"{digest}.pt")


def _run(options: argparse.Namespace, arguments: list[str]) -> None:
    from eqcollapse.provenance.records import is_whole
    from eqcollapse.runtime import locks
    from eqcollapse.study.jobs import record_path
    from eqcollapse.study.stages import STAGES

    stage = STAGES[options.command]
    options.spec = stage.parse(options.spec)
    if options.inputs == ["-"]:  # the names of 12 000 cells are longer than the kernel lets a command line be
        options.inputs = sys.stdin.read().splitlines()
    stage.check_files(options.inputs, options.outputs)
    record = record_path(tuple(options.outputs))
    with locks.alone(record) as waited:
        if waited and is_whole(record, options.digest, options.inputs, options.outputs):
            print("it has made all of it", file=sys.stderr)
        else:
            _make(options, arguments, record)


def _make(options: argparse.Namespace, arguments: list[str], record: str) -> None:
    from eqcollapse.provenance.records import recorded, write_record
    from eqcollapse.study import own_code
    from eqcollapse.study.fingerprint import code_digest, runner_digest
    from eqcollapse.study.stages import STAGES

    stage = options.command
    os.environ["MPLBACKEND"] = "agg"  # a notebook's own is no backend outside it, and matplotlib refuses to load
    module = import_module(STAGES[stage].module)  # first: source that is edited from here on is not what runs
    code, runner = code_digest(STAGES[stage].module), runner_digest()
    if options.code and options.code != code[: len(options.code)]:
        raise EqcollapseError(
            f"the source of stage {stage} changed after {options.outputs[0]} was planned: run the same command again"
        )
    for file, digest in own_code.digests(options.spec).items() if stage == "train" else ():
        if options.spec.own.get(file) != digest:
            raise EqcollapseError(f"{file} changed after {options.outputs[0]} was planned: run the same command again")
    run = module.run(options.spec, options.inputs, options.outputs, **_places(options)) or {}
    write_record(
        record,
        stage=stage,
        digest=options.digest,
        command=["python", "-m", "eqcollapse", *recorded(arguments, options.inputs)],
        spec=options.spec.model_dump(mode="json"),
        inputs=options.inputs,
        outputs=options.outputs,
        code={"digest": code, "runner": runner},
        run=run,
    )


def _places(options: argparse.Namespace) -> dict[str, Any]:
    """Return what says where, and not what: the stages that fetch or go on from where they were have such options."""
    if options.command == "data":
        return {"path": options.path, "mirror": options.mirror, "cache": Path(".cache/downloads")}
    if options.command == "train":
        return {"device": options.device, "checkpoint": _checkpoint(options.digest), **_logs(options)}
    return {}


def _logs(options: argparse.Namespace) -> dict[str, Path]:
    """Return where a cell's job logs its epochs: beside its log; of a run in another folder, nowhere."""
    from eqcollapse.study.jobs import log_path

    run = os.path.dirname(options.outputs[0])
    places = {"live": log_path(run, ".csv"), "tensorboard": log_path(run, "") if options.log == "tensorboard" else ""}
    return {name: Path(place) for name, place in places.items() if place}
