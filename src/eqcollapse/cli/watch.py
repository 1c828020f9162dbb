"""The command `watch`: all cells of a study, live in the terminal. It reads files, and writes and locks none."""

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eqcollapse.cli.params import add_settings, settings_of
from eqcollapse.runtime.errors import EqcollapseError

if TYPE_CHECKING:
    from eqcollapse.pipeline.cells import Look, Watch

FORMAT = "eqcollapse-watch/1"
SHARE = 0.01
"""Of a core, that looking may take at most: then looks are further apart."""
LONGEST = 15.0
"""Seconds between two looks, at most."""


def add_arguments(commands: Any) -> None:
    """Add the command to the command line's subparsers."""
    watch = commands.add_parser(
        "watch",
        help="show all cells of the study in one table, live",
        description="Show all cells of the study in one table, live: beside a run on this machine, under dvc repro, or "
        "on a cluster from the shared folder. It shows the study of the run under way here; without one, that of "
        "params.yaml and the options. Ends when all is made, or with Ctrl-C.",
    )
    watch.add_argument("--once", action="store_true", help="print the table once, as it is where there is no terminal")
    watch.add_argument("--json", action="store_true", help="print what there is to show once, as JSON")
    watch.add_argument("--every", type=_seconds, default=2.0, metavar="SECONDS", help="look anew after so long (2)")
    add_settings(watch)
    watch.set_defaults(run=run)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0.1 <= value <= 3600:
        raise argparse.ArgumentTypeError("must be from 0.1 to 3600")
    return value


def run(options: argparse.Namespace, _: list[str]) -> None:
    """Show the cells: once, or until all is made."""
    from rich.console import Console

    source = ShownStudy(options)
    if options.json:
        print(watch_json(source.watch().look(), source.name))
        return
    console = Console(highlight=False)
    if options.once or not console.is_terminal:
        _print(console, source)
    else:
        _live(console, source, options.every)


def watch_json(look: "Look", study: str) -> str:
    """Return what there is to show, for programs: one object."""
    content = asdict(look)
    content["stages"] = {stage: {"done": done, "total": total} for stage, (done, total) in look.stages.items()}
    about = {"format": FORMAT, "study": study, "complete": look.complete, "counts": look.counts}
    return json.dumps(about | content, indent=1, allow_nan=False)


def _print(console: Any, source: "ShownStudy") -> None:
    from eqcollapse.cli.watch_screen import screen

    console.print(screen(source.watch().look(), source.name, width=console.width))


def _live(console: Any, source: "ShownStudy", every: float) -> None:
    from rich.live import Live

    from eqcollapse.cli.watch_screen import screen

    try:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                watch = source.watch()
                start = time.process_time()
                look = watch.look()
                live.update(screen(look, source.name, width=console.width, height=console.height), refresh=True)
                if look.complete:
                    break
                time.sleep(max(every, min((time.process_time() - start) / SHARE, LONGEST)))
    except KeyboardInterrupt:
        pass
    _print(console, source)


class ShownStudy:
    """Which study is shown: that of the run under way in this folder, or of the files that the options name.

    A run has its settings from its own command line, and its code from when it began: it froze both.
    """

    def __init__(self, options: argparse.Namespace):
        self._options = options
        self._version: object = None
        self._watch: Watch | None = None
        self.name = ""

    def watch(self) -> "Watch":
        """Return what looks at the study, planned anew if it has changed; EqcollapseError if it cannot be planned,
        and no earlier one is there.
        """
        plan = self._plan()
        version = plan or [self._stamp(file) for file in self._files]
        if self._watch is None or version != self._version:
            try:
                self._replan(plan)
            except EqcollapseError as error:
                if self._watch is None:
                    raise
                self.name = str(error).splitlines()[0]
            self._version = version
        assert self._watch is not None
        return self._watch

    def _replan(self, plan: str | None) -> None:
        from eqcollapse.pipeline.cells import Watch
        from eqcollapse.pipeline.plan import frozen
        from eqcollapse.study.grid import Study
        from eqcollapse.study.params import parse

        named = " with ".join(self._files) or "--config"
        study = frozen(plan) if plan else Study(parse(settings_of(self._options), named))
        self._watch, self.name = Watch(study), "the run under way" if plan else named

    def _plan(self) -> str | None:
        """Return the plan of the run that is under way here, unless options name another study."""
        from eqcollapse.runtime.locks import plan_under_way

        if self._options.config is not None or self._files != ["params.yaml"]:
            return None
        return plan_under_way()

    @property
    def _files(self) -> list[str]:
        options = self._options
        return [] if options.config is not None else [options.params, *options.configfile]

    def _stamp(self, file: str) -> int:
        try:
            return Path(file).stat().st_mtime_ns
        except OSError:
            return 0
