"""The command line as a whole: its parser, and what it says and returns when a command ends."""

import argparse
import os
import re
import signal
import sys
from contextlib import suppress
from typing import Any, NoReturn

from eqcollapse.cli import stages
from eqcollapse.runtime.errors import EqcollapseError, machines_fault, printable

# The rest is imported where it is used: what takes a moment to load is then interrupted as any other work.

DESCRIPTION = "The commands from data to page are the stages: Snakemake calls them. The other commands are for you."


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
        _tell(arguments, f"interrupted{stages.resuming(arguments)}")
        return 130


def _run(arguments: list[str]) -> int:
    if arguments[:1] == ["metrics"]:
        return _metrics(arguments[1:])
    options = new_parser().parse_args(arguments)
    return options.run(options, arguments) or 0


def _metrics(arguments: list[str]) -> int:
    """Run `metrics`, whose options come from a package that imports torch: no other command waits for that."""
    from eqcollapse.cli import metrics

    parser = _Parser(prog="eqcollapse metrics", description="Measure collapse in your own features.")
    metrics.add_arguments(parser)
    return metrics.run(parser.parse_args(arguments))


def _end_quietly() -> int:
    """Return the exit code of a command whose reader, such as `head`, has gone; nothing is left to be written."""
    with open(os.devnull, "wb") as nowhere, suppress(OSError, ValueError):
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
    return 128 + signal.SIGPIPE


def _tell(arguments: list[str], message: str) -> None:
    """Print what ends a command, without the control characters that names in files may have."""
    line = f"eqcollapse {' '.join(arguments[:1])}: {message}"
    print(printable(line, keep="\n"), file=sys.stderr)


def _interrupt(number: int, frame: Any) -> None:
    """Let a job that is told to end (by Snakemake, by Slurm) clean up as after Ctrl-C."""
    raise KeyboardInterrupt


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        super().error(printable(message + _nearest_choice(message)))


def _nearest_choice(message: str) -> str:
    """Return the nearest of the words that argparse says could be chosen; "" if its message is another one."""
    from eqcollapse.runtime.nearest import nearest

    match = re.search(r"invalid choice: '(.*)' \(choose from (.*)\)", message)
    return nearest(match[1], re.findall(r"'([^']*)'", match[2])) if match else ""


def new_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; each sets `run`, which takes the options and the words of the command line."""
    from eqcollapse.cli import audit, doctor, init, params, results, watch

    parser = _Parser(prog="eqcollapse", description=DESCRIPTION)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    stages.add_arguments(commands)
    init.add_arguments(commands)
    params.add_arguments(commands)
    watch.add_arguments(commands)
    results.add_arguments(commands)
    commands.add_parser("metrics", help="measure collapse in your own features", add_help=False)
    audit.add_arguments(commands)
    doctor.add_arguments(commands)
    return parser
