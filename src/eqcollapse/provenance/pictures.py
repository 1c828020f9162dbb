"""The DAG as SVG, written by hand so that the bytes repeat: the graph of stages, and of jobs with what is stale."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape

from eqcollapse.data.config import SplitSpec
from eqcollapse.provenance.findings import Lineage
from eqcollapse.study.jobs import Job
from eqcollapse.training.config import TrainSpec

COLOURS = {
    "fresh": "#d5eadf",
    "wrong": "#f4b6b0",
    "missing": "#e4e4e4",
    "parameter": "#ffe2a8",
    "code": "#ffd0a0",
    "input": "#fff3c9",
}
"""Fill of a box by the state of its jobs; the worst comes first in `_RANK`. Words say the same in the box."""
_RANK = ("wrong", "missing", "parameter", "code", "input", "fresh")
_WORDS = {
    "fresh": "as recorded", "wrong": "wrong: see the findings", "missing": "missing",
    "parameter": "stale: parameter", "code": "stale: code", "input": "stale: input",
}  # fmt: skip
WIDTH, HEIGHT, GAP, COLUMN = 210, 40, 10, 270
MOST = 40
"""Most boxes in a column: above it, boxes are merged by the front of their names."""

States = Mapping[str, tuple[str, str]]


@dataclass(frozen=True)
class _Box:
    """Some jobs of one stage, drawn as one."""

    name: str
    jobs: tuple[Job, ...]


def stage_graph(lineage: Lineage, states: States) -> str:
    """Return the graph of stages with counts of jobs and files, as SVG."""
    columns: dict[str, list[_Box]] = {}
    for job in lineage.jobs:
        columns.setdefault(job.stage, [])
    for stage in columns:
        jobs = tuple(job for job in lineage.jobs if job.stage == stage)
        columns[stage] = [_Box(f"{sum(len(job.outputs) for job in jobs)} files", jobs)]
    return _drawn(columns, lineage, states)


def job_graph(lineage: Lineage, states: States) -> str:
    """Return the graph of jobs, seeds together, with counts and why each is to be done, as SVG."""
    columns: dict[str, list[_Box]] = {}
    for job in lineage.jobs:
        columns.setdefault(job.stage, [])
    for stage in columns:
        columns[stage] = _boxes([job for job in lineage.jobs if job.stage == stage])
    return _drawn(columns, lineage, states)


def _boxes(jobs: list[Job]) -> list[_Box]:
    """Group jobs by name, coarser until there are at most MOST groups."""
    depth = max(len(_names(job)) for job in jobs)
    while True:
        groups: dict[str, list[Job]] = {}
        for job in jobs:
            groups.setdefault("/".join(_names(job)[:depth]), []).append(job)
        if len(groups) <= MOST or depth == 1:
            break
        depth -= 1
    boxes = [_Box(name, tuple(group)) for name, group in groups.items()]
    rest = boxes[MOST - 1 :]
    if len(boxes) > MOST:
        boxes = [*boxes[: MOST - 1], _Box(f"{len(rest)} others", tuple(job for box in rest for job in box.jobs))]
    return boxes


def _names(job: Job) -> list[str]:
    """Return the parts of the name under which a job is drawn: data set, split, model; or the file's name."""
    if isinstance(job.spec, TrainSpec):
        return [job.spec.dataset, job.spec.split, job.spec.model]
    if isinstance(job.spec, SplitSpec):
        return [job.spec.dataset, job.spec.split]
    name = job.path.rpartition("/")[2]
    return [name.partition("@")[0] if "@" in name else name.rpartition(".")[0]]


def _drawn(columns: dict[str, list[_Box]], lineage: Lineage, states: States) -> str:
    rows = max((len(boxes) for boxes in columns.values()), default=1)
    height = 40 + rows * (HEIGHT + GAP) + 30
    width = max(len(columns), 1) * COLUMN
    places, order = {}, {}
    for column, boxes in enumerate(columns.values()):
        top = 34 + (rows - len(boxes)) * (HEIGHT + GAP) / 2
        for row, box in enumerate(boxes):
            place = (20 + column * COLUMN, top + row * (HEIGHT + GAP))
            order[(column, row)] = (box, place)
            places.update({job.record: (column, row) for job in box.jobs})
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height:g}" '
        f'viewBox="0 0 {width} {height:g}" font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        *_edges(lineage, places, order),
        *_titles(columns),
    ]
    for box, place in order.values():
        lines += _box(box, place, states)
    return "\n".join([*lines, *_legend(height, states), "</svg>", ""])


def _edges(lineage: Lineage, places: dict, order: dict) -> Iterator[str]:
    """Yield one curve for each pair of boxes of which one reads from the other."""
    pairs = {(places[up.record], places[job.record]) for job in lineage.jobs for up in lineage.upstream(job)}
    for start, end in sorted(pairs):
        (x1, y1), (x2, y2) = order[start][1], order[end][1]
        x1, y1, y2 = x1 + WIDTH, y1 + HEIGHT / 2, y2 + HEIGHT / 2
        middle = (x1 + x2) / 2
        path = f"M{x1:g},{y1:g} C{middle:g},{y1:g} {middle:g},{y2:g} {x2:g},{y2:g}"
        yield f'<path d="{path}" fill="none" stroke="#8a8a8a" stroke-opacity="0.55"/>'


def _titles(columns: dict[str, list[_Box]]) -> Iterator[str]:
    for column, (stage, boxes) in enumerate(columns.items()):
        number = sum(len(box.jobs) for box in boxes)
        words = f"{stage}: {number} job{'s' if number != 1 else ''}"
        yield f'<text x="{20 + column * COLUMN}" y="20" font-weight="bold">{escape(words)}</text>'


def _box(box: _Box, place: tuple[float, float], states: States) -> Iterator[str]:
    x, y = place
    counted = Counter(states[job.record][0] for job in box.jobs)
    worst = min(counted, key=_RANK.index)
    details = dict.fromkeys(detail for job in box.jobs if (detail := states[job.record][1]))
    said = ", ".join(f"{_WORDS[state]} ({counted[state]})" for state in _RANK if counted[state])
    yield "<g>"
    yield f"<title>{escape(chr(10).join([box.name, said, *list(details)[:10]]))}</title>"
    size = f'width="{WIDTH}" height="{HEIGHT}" rx="5"'
    yield f'<rect x="{x:g}" y="{y:g}" {size} fill="{COLOURS[worst]}" stroke="#555555"/>'
    yield f'<text x="{x + 8:g}" y="{y + 16:g}">{escape(_fitting(f"{box.name} × {len(box.jobs)}"))}</text>'
    reason = next(iter(details), "") if worst != "fresh" else ""
    words = f"{_WORDS[worst]} {counted[worst]}" + (f": {reason}" if reason and worst == "parameter" else "")
    yield f'<text x="{x + 8:g}" y="{y + 31:g}" fill="#444444">{escape(_fitting(words))}</text>'
    yield "</g>"


def _fitting(words: str) -> str:
    return words if len(words) <= 36 else f"{words[:35]}…"


def _legend(height: float, states: States) -> Iterator[str]:
    present = {state for state, _ in states.values()}
    x = 20
    for state in (state for state in _RANK if state in present):
        yield f'<rect x="{x}" y="{height - 22:g}" width="12" height="12" fill="{COLOURS[state]}" stroke="#555555"/>'
        yield f'<text x="{x + 18}" y="{height - 12:g}">{_WORDS[state]}</text>'
        x += 40 + 7 * len(_WORDS[state])
