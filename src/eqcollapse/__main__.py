"""The command line: one subcommand a stage, which a rule's `shell:` calls, and a few for people."""

import argparse
import os
import signal
import sys
from contextlib import suppress
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

from eqcollapse.runtime.errors import EqcollapseError, machines_fault, printable

# The rest is imported where it is used: what takes a moment to load is then interrupted as any other work.


def main(arguments: list[str] | None = None) -> int:
    """Run one subcommand; return the exit code: 0, 1 for a fault of the user's, 2 for a wrong command line."""
    arguments = sys.argv[1:] if arguments is None else arguments
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = _run(arguments)
        sys.stdout.flush()  # here, where a reader that has gone is known of
        return code
    except BrokenPipeError:
        return _end_quietly()
    except EqcollapseError as error:
        _tell(arguments, str(error))
        return 1
    except (OSError, MemoryError, RuntimeError, ImportError) as error:
        line = machines_fault(error)
        if line is None:
            raise
        _tell(arguments, line)
        return 1
    except KeyboardInterrupt:
        _tell(arguments, f"interrupted{_kept(arguments)}")
        return 130


def _run(arguments: list[str]) -> int:
    if arguments[:1] == ["metrics"]:
        return _metrics(arguments[1:])
    options = _parser().parse_args(arguments)
    return options.run(options, arguments) or 0


def _end_quietly() -> int:
    """Return the exit code of a command whose reader, such as `head`, has gone; nothing is left to be written."""
    with open(os.devnull, "wb") as nowhere, suppress(OSError, ValueError):
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
    return 128 + signal.SIGPIPE


def _tell(arguments: list[str], message: str) -> None:
    """Print what ends a command, without the control characters that names in files may have."""
    line = f"eqcollapse {' '.join(arguments[:1])}: {message}"
    print(printable(line, keep="\n"), file=sys.stderr)


def _kept(arguments: list[str]) -> str:
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


def _interrupt(number: int, frame: Any) -> None:
    """Let a job that is told to end (by Snakemake, by Slurm) clean up as after Ctrl-C."""
    raise KeyboardInterrupt


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        super().error(printable(message))


def _parser() -> argparse.ArgumentParser:
    from eqcollapse.cli import spec
    from eqcollapse.study.grid import ABOUT, STAGES

    parser = _Parser(prog="eqcollapse", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for stage in STAGES:
        command = commands.add_parser(stage, help=ABOUT[stage])
        command.set_defaults(run=_run_stage)
        command.add_argument("--digest", required=True, help="the digest that the output paths or records carry")
        command.add_argument("--code", help="the digest of the stage's code when the job was planned")
        command.add_argument("--spec", required=True, type=spec.from_json, help="the resolved settings, as JSON")
        command.add_argument("--inputs", nargs="*", default=[], metavar="FILE", help="'-': a line each on stdin")
        command.add_argument("--outputs", nargs="+", required=True, metavar="FILE")
    commands.choices["data"].add_argument("--path", help="an image folder or archive of your own")
    commands.choices["data"].add_argument("--mirror", help="a folder or URL to look at before the canonical source")
    commands.choices["train"].add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    _add_checks(commands)
    return parser


def _add_checks(commands: Any) -> None:
    check = commands.add_parser("check", help="check a params file, and say how many jobs it asks for")
    check.add_argument("params", nargs="*", default=["params.yaml"], help="a params file, and presets laid over it")
    check.set_defaults(run=_check)
    digest = commands.add_parser("hash", help="print the sha256 of an archive or image folder, for params.yaml")
    digest.add_argument("path", type=Path)
    digest.set_defaults(run=_hash)
    confirm = commands.add_parser("confirm", help="check that a stage's files are what params.yaml asks for")
    confirm.add_argument("stage", help="a stage of dvc.yaml")
    confirm.set_defaults(run=_confirm)
    attic = commands.add_parser("attic", help="list what earlier settings left in .attic/, or delete of it")
    attic.add_argument("names", nargs="*", metavar="PATTERN", help="only these: '*' stands for anything")
    attic.add_argument("--older-than", metavar="AGE", help="only what was made longer ago: 12h, 30d, 2w")
    attic.add_argument("--delete", action="store_true", help="delete what is listed")
    attic.set_defaults(run=_attic)
    commands.add_parser("metrics", help="measure collapse in features of your own", add_help=False)
    from eqcollapse.cli.audit import add_arguments

    add_arguments(commands)


def _metrics(arguments: list[str]) -> int:
    """Run `metrics`, whose options come from a package that imports torch: no other command waits for that."""
    from eqcollapse.cli import metrics

    parser = _Parser(prog="eqcollapse metrics", description="Measure collapse in features of your own.")
    metrics.add_arguments(parser)
    return metrics.run(parser.parse_args(arguments))


def _run_stage(options: argparse.Namespace, arguments: list[str]) -> None:
    from eqcollapse.cli import spec
    from eqcollapse.provenance.records import is_whole
    from eqcollapse.runtime import locks
    from eqcollapse.study.grid import record_path

    stage = options.command
    spec.check(stage, options.spec)
    if options.inputs == ["-"]:  # the names of 12 000 cells are longer than the kernel lets a command line be
        options.inputs = sys.stdin.read().splitlines()
    spec.check_files(stage, options.inputs, options.outputs)
    record = record_path(tuple(options.outputs))
    with locks.alone(record) as waited:
        if waited and is_whole(record, options.digest, options.inputs, options.outputs):
            print("it has made all of it", file=sys.stderr)
        else:
            _make(options, arguments, record)


def _make(options: argparse.Namespace, arguments: list[str], record: str) -> None:
    from eqcollapse.provenance.records import recorded, write_record
    from eqcollapse.study.fingerprint import code_digest, runner_digest
    from eqcollapse.study.grid import STAGES

    stage = options.command
    module = import_module(STAGES[stage])  # first: source that is edited from here on is not what runs
    code, runner = code_digest(STAGES[stage]), runner_digest()
    if options.code and options.code != code[: len(options.code)]:
        raise EqcollapseError(
            f"the source of stage {stage} changed after {options.outputs[0]} was planned: run the same command again"
        )
    run = module.run(options.spec, options.inputs, options.outputs, **_places(options)) or {}
    write_record(
        record,
        stage=stage,
        digest=options.digest,
        command=["python", "-m", "eqcollapse", *recorded(arguments, options.inputs)],
        spec=options.spec,
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
        return {"device": options.device, "checkpoint": _checkpoint(options.digest)}
    return {}


def _check(options: argparse.Namespace, _: list[str]) -> None:
    from eqcollapse.study.grid import Study
    from eqcollapse.study.params import load

    study = Study(load(*options.params))
    print(
        f"{' with '.join(options.params)}: "
        + ", ".join(f"{len(jobs)} {stage}" for stage, jobs in study.jobs.items() if jobs)
    )


def _confirm(options: argparse.Namespace, _: list[str]) -> None:
    from eqcollapse.pipeline.confirm import confirm
    from eqcollapse.provenance import dvc_stages
    from eqcollapse.study.grid import Study
    from eqcollapse.study.params import load

    stages = {stage.name: stage for stage in dvc_stages.load()}
    if options.stage not in stages:
        raise EqcollapseError(f"{options.stage!r} is not a stage of dvc.yaml: {', '.join(stages)}")
    confirm(Study(load()), stages[options.stage])


def _attic(options: argparse.Namespace, _: list[str]) -> None:
    from eqcollapse.pipeline import attic

    print(attic.report(options.names, older_than=options.older_than, delete=options.delete))


def _hash(options: argparse.Namespace, _: list[str]) -> None:
    from eqcollapse.data import content_sha256

    print(content_sha256(options.path))


if __name__ == "__main__":
    if Path("src/eqcollapse").is_dir():
        os.environ["MPLBACKEND"] = "agg"
    sys.exit(main())
