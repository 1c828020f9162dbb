"""What `watch` shows: the study's progress, a table of cells, and the reasons of those that failed."""

from collections.abc import Iterable, Iterator

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from eqcollapse.pipeline.cells import CellState, CellStatus, Look
from eqcollapse.runtime.errors import printable

MARKS: dict[CellState, tuple[str, str]] = {
    "running": ("▶", "bold cyan"),
    "failed": ("✗", "bold red"),
    "stopped": ("■", "yellow"),
    "done": ("✓", "green"),
    "waiting": ("·", "dim"),
}
"""The mark and the style of each state, in the order in which cells are shown."""
WIDE = 110
"""Columns of a terminal from which each cell has a bar."""
LINES_PER_REASON = 12
"""Of a terminal's height: one failed cell's reason is written out for so many lines, at least one."""
BAR = 12


def screen(look: Look, study: str, *, width: int, height: int | None = None) -> RenderableType:
    """Return `look` as it is shown on `width` columns and, if that is given, at most `height` lines.

    `study` says where the study comes from.
    """
    above, below = list(_heading(look, study)), list(_notes(look.cells, height))
    rows = None
    if height is not None:
        taken = len(above) + 2 + sum(_lines(note, width) for note in below)
        rows = max(height - taken - 3, 3)  # the table's head, and the line that counts what is not shown
    return Group(*above, Text(), _table(look.cells, rows, wide=width >= WIDE), *_rest(look.cells, rows), *below)


def duration(seconds: float) -> str:
    """Return a duration as people write it: 48 s, 12 min, 5 h 12, 3 d 4 h."""
    minutes, hours = seconds / 60, seconds / 3600
    if seconds < 60:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes:.0f} min"
    if hours < 48:
        return f"{int(hours)} h {int(minutes) % 60:02}"
    return f"{int(hours) // 24} d {int(hours) % 24} h"


def _heading(look: Look, study: str) -> Iterator[RenderableType]:
    title = Table.grid(expand=True, padding=(0, 1))
    title.add_column(overflow="ellipsis", no_wrap=True, ratio=1)
    title.add_column(justify="right", no_wrap=True)
    title.add_row(Text.assemble(("eqcollapse ", "bold"), (printable(study), "dim")), _time_left(look))
    yield title
    total = sum(cell.epochs for cell in look.cells)
    ended = sum(cell.epochs if cell.state == "done" else cell.epoch for cell in look.cells)
    progress = Table.grid(expand=True, padding=(0, 1))
    progress.add_column(ratio=1)
    progress.add_column(justify="right", no_wrap=True)
    progress.add_row(
        ProgressBar(max(total, 1), ended, complete_style="cyan", finished_style="green"),
        f"{ended / max(total, 1):.0%} of {total} epochs",
    )
    yield progress
    counts = [Text(f"{mark} {look.counts[state]} {state}", style if look.counts[state] else "dim")
              for state, (mark, style) in MARKS.items()]  # fmt: skip
    yield Text("   ").join(counts)
    yield Text("  ").join(_stage(name, *numbers) for name, numbers in look.stages.items())


def _time_left(look: Look) -> Text:
    if look.complete:
        return Text("all is made", "green")
    if look.seconds_left:
        return Text.assemble((duration(look.seconds_left), "bold"), " of training left")
    if look.work_left:
        return Text(f"nothing runs; {duration(look.work_left)} of work left", "dim")
    return Text("")


def _stage(name: str, done: int, total: int) -> Text:
    return Text(f"{name}\N{NO-BREAK SPACE}{done}/{total}", "green" if done == total else "dim" if done == 0 else "")


def _in_order(cells: Iterable[CellStatus]) -> list[CellStatus]:
    order = list(MARKS)
    return sorted(cells, key=lambda cell: order.index(cell.state))


def _table(cells: list[CellStatus], rows: int | None, *, wide: bool) -> Text:
    """Return the table of cells, as one text: of a table of rich's, each field would be laid out on its own, which for
    50 rows takes a twentieth of a second.
    """
    several = len({cell.dataset for cell in cells}) > 1
    shown = _in_order(cells)[:rows]
    names = ["", *(("data",) if several else ()), "split", "model"]
    numbers = ["seed", *(("",) if wide else ()), "epoch", "loss", "test %", "NC1", "conv. %", "epochs/s", "left"]
    fields = [_fields(cell, several=several, wide=wide) for cell in shown]
    widths = [max(map(len, column)) for column in zip([*names, *numbers], *fields, strict=True)]
    gap = "  " if wide else " "
    lines = [Text(gap.join(_aligned([*names, *numbers], widths, len(names))), "bold dim")]
    for cell, row in zip(shown, fields, strict=True):
        style = MARKS[cell.state][1]
        line = Text(gap.join(_aligned(row, widths, len(names))), "dim" if cell.state == "waiting" else "")
        line.stylize(style, 0, widths[0])
        line.highlight_regex("━+", style)
        line.highlight_regex("─+", "bright_black")
        lines.append(line)
    table = Text("\n", no_wrap=True, overflow="ellipsis").join(lines)
    table.no_wrap, table.overflow = True, "ellipsis"
    return table


def _aligned(fields: list[str], widths: list[int], names: int) -> list[str]:
    """Return the fields at these widths: names to the left, numbers to the right."""
    pairs = list(zip(fields, widths, strict=True))
    return [*(field.ljust(width) for field, width in pairs[:names]),
            *(field.rjust(width) for field, width in pairs[names:])]  # fmt: skip


def _fields(cell: CellStatus, *, several: bool, wide: bool) -> list[str]:
    mark = MARKS[cell.state][0]
    about = [f"{mark} {cell.state}" if wide else mark, *((cell.dataset,) if several else ())]
    about += [cell.split, cell.model, str(cell.seed)]
    if cell.state == "waiting":
        return [*about, *[""] * (8 if wide else 7)]
    full = BAR * cell.epoch // cell.epochs
    about += ["━" * full + "─" * (BAR - full)] if wide else []
    pace = cell.seconds_per_epoch if cell.state != "failed" else None
    return [
        *about,
        f"{cell.epoch}/{cell.epochs}",
        _number(cell.loss, "{:#.3g}"),
        _number(cell.test_accuracy, "{:.1f}", 100),
        _number(cell.nc1, "{:#.3g}"),
        _number(cell.converged, "{:.1f}", 100),
        _number(1 / pace if pace else None, "{:#.3g}"),
        "" if cell.state == "done" else "–" if cell.seconds_left is None else duration(cell.seconds_left),
    ]


def _number(value: float | None, form: str, times: float = 1) -> str:
    return "–" if value is None else form.format(times * value)


def _rest(cells: list[CellStatus], rows: int | None) -> Iterator[RenderableType]:
    """Yield a line on the cells for which there is no room."""
    hidden = _in_order(cells)[rows:] if rows is not None else []
    if hidden:
        counts = {state: sum(cell.state == state for cell in hidden) for state in MARKS}
        said = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
        yield Text(f"  and {said}: `eqcollapse watch --once` lists all", "dim")


def _notes(cells: list[CellStatus], height: int | None) -> Iterator[RenderableType]:
    failed = [cell for cell in cells if cell.state == "failed"]
    shown = failed if height is None else failed[: max(height // LINES_PER_REASON, 1)]
    for cell in shown:
        yield Text()
        yield Text.assemble(("✗ ", "bold red"), (cell.name, "bold"))
        yield Padding(Text(printable(cell.reason), "red"), (0, 0, 0, 2))
        yield Text(f"  {cell.log}", "dim")
    if len(failed) > len(shown):
        yield Text(f"  and {len(failed) - len(shown)} more failed", "red")
    for reason in sorted({cell.reason for cell in cells if cell.state == "stopped"}, reverse=True):
        number = sum(cell.state == "stopped" and cell.reason == reason for cell in cells)
        yield Text()
        yield Text(f"■ {number} stopped: the next run {reason}", "yellow")


def _lines(note: RenderableType, width: int) -> int:
    """Return how many lines a note takes, at most."""
    if isinstance(note, Padding):
        return 1 + len(str(note.renderable)) // max(width - 12, 20)
    return 1
