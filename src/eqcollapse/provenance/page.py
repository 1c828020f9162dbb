"""results/audit.md and audit.json: the verdict first, then what is wrong."""

import json
from collections import Counter
from collections.abc import Iterator

from eqcollapse.provenance.findings import KINDS, AuditReport, Finding

SHOWN = 12
"""How many dependents the page lists; audit.json has all."""


def machine(report: AuditReport) -> str:
    """Return audit.json."""
    return json.dumps(report.as_json(), indent=1, sort_keys=True) + "\n"


def page(report: AuditReport, pictures: dict[str, str]) -> str:
    """Return audit.md; `pictures` are the SVG files to show, by title, relative to the page."""
    return "\n".join(_lines(report, pictures)) + "\n"


def summary(report: AuditReport) -> str:
    """Return the verdict as one line."""
    counts = report.counts
    size = f"{counts['jobs']} jobs, {counts['files']} files, {counts['bytes'] / 1e6:.1f} MB"
    if report.passed:
        return f"The audit passes: {size}."
    kinds = Counter(finding.kind for finding in report.findings)
    return f"The audit FAILS: {', '.join(f'{number} {kind}' for kind, number in kinds.items())} ({size})."


def _lines(report: AuditReport, pictures: dict[str, str]) -> Iterator[str]:
    yield f"# {summary(report)}"
    yield ""
    if report.passed:
        yield "Every file is as its record says, from each table and figure back to the data; every record is that of"
        yield "today's settings and code; nothing lies among the results that no job made."
        yield ""
    for kind, about in KINDS.items():
        findings = [finding for finding in report.findings if finding.kind == kind]
        if findings:
            yield f"## {kind}: {about}"
            yield ""
            for finding in findings:
                yield from _finding(finding)
    if report.notes:
        yield "## Not checked"
        yield ""
        yield from (f"- {note}" for note in report.notes)
        yield ""
    yield from _environments(report)
    for title, file in pictures.items():
        yield f"## {title}"
        yield ""
        yield f"![{title}]({file})"
        yield ""


def _finding(finding: Finding) -> Iterator[str]:
    yield f"### `{finding.path}`"
    yield ""
    yield f"- expected: {finding.expected}"
    yield f"- found: {finding.found}"
    if finding.remedy:
        yield f"- remedy: {finding.remedy}"
    if finding.dependents:
        more = len(finding.dependents) - SHOWN
        names = ", ".join(f"`{path}`" for path in finding.dependents[:SHOWN])
        yield f"- what hangs on it ({len(finding.dependents)}): {names}" + (f" and {more} more" if more > 0 else "")
    yield ""


def _environments(report: AuditReport) -> Iterator[str]:
    if not report.environments:
        return
    yield "## Where it was made"
    yield ""
    yield "| jobs | Python | torch | numpy | processor | GPU | image |"
    yield "|---:|---|---|---|---|---|---|"
    for place in report.environments:
        packages, cuda, image = place["packages"], place["cuda"], place["image"]
        gpu = cuda["gpu"] if cuda else "none used"
        sha256 = image["sha256"][:12] if image else "none"
        cells = (
            place["jobs"],
            place["python"],
            packages.get("torch"),
            packages.get("numpy"),
            place["cpu"],
            gpu,
            sha256,
        )
        yield "| " + " | ".join(map(str, cells)) + " |"
    yield ""
