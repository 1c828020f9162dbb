"""results/report.html: every table, figure and claim of the study on one page that needs no network."""

import html
import re
from pathlib import Path

import pandas as pd

from eqcollapse.report.config import PageSpec
from eqcollapse.report.results import converged, last_epoch, model_name, read, unconverged
from eqcollapse.runtime.files import write_text

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; margin: 0 auto; max-width: 62rem;
  padding: 1rem; }
nav a { margin-right: 1rem; }
figure { margin: 1.5rem 0; }
figure > div, .table { overflow-x: auto; }
figure svg { width: 100%; min-width: 34rem; height: auto; }
figcaption, caption { color: #444; font-size: 0.9rem; text-align: left; padding: 0.3rem 0; }
table { border-collapse: collapse; font-size: 0.9rem; margin: 0.5rem 0; }
th, td { border-bottom: 1px solid #ccc; padding: 0.25rem 0.7rem 0.25rem 0; text-align: left; vertical-align: top; }
details td:first-child { min-width: 10rem; }
section td:nth-child(n+4) { white-space: nowrap; }
summary { font-weight: bold; padding: 0.2rem 0; cursor: pointer; }
.warning { border-left: 0.3rem solid #d55e00; padding-left: 0.8rem; }
.supported { color: #00664a; } .contradicted { color: #a33c00; } .undecided, .not-learnt { color: #555; }
"""
STAGES = ("data", "splits", "train", "collapse", "report", "theory")


def run(spec: PageSpec, inputs: list[str], outputs: list[str]) -> None:
    """Write the page of `spec` (jobs a stage, names of tables and figures) from accuracy.csv, claims.md, tables (md)
    and figures (svg), in this order, to `outputs` (html).
    """
    accuracy, claims, *shown = inputs
    tables, figures = shown[: len(spec.tables)], shown[len(spec.tables) :]
    parts = [
        "<h1>Neural collapse in deep equilibrium models</h1>",
        "<nav>"
        + "".join(f'<a href="#{name.lower()}">{name}</a>' for name in ("Claims", "Solver", "Tables", "Figures", "DAG"))
        + "</nav>",
        '<h2 id="claims">Claims</h2>',
        claims_html(Path(claims).read_text(encoding="utf-8")),
        '<h2 id="solver">Solver of the DEQs</h2>',
        solver_summary(read(accuracy)),
        '<h2 id="tables">Tables</h2>',
        *(_table(name, path, spec.captions[name]) for name, path in zip(spec.tables, tables, strict=True)),
        '<h2 id="figures">Figures</h2>',
        *(
            _figure(name, path, n, spec.captions[name])
            for n, (name, path) in enumerate(zip(spec.figures, figures, strict=True))
        ),
        '<h2 id="dag">DAG</h2>',
        dag(spec.jobs),
    ]
    write_text(outputs[0], _document("\n".join(parts)))


def claims_html(claims: str) -> str:
    """Return claims.md as HTML: the verdicts, and each claim's numbers to be unfolded."""
    verdicts, *details = claims.split("\n## ")
    parts = [from_markdown(verdicts)]
    for detail in details:
        title, _, text = detail.partition("\n")
        parts.append(f"<details><summary>{_inline(title)}</summary>\n{from_markdown(text)}\n</details>")
    return "\n".join(parts)


def from_markdown(text: str) -> str:
    """Return as HTML what our tables and claims use of Markdown: headings, paragraphs, tables, *emphasis*."""
    blocks = []
    for block in re.split(r"\n\s*\n", text.strip()):
        lines = block.splitlines()
        if lines[0].startswith("|"):
            blocks.append(_html_table(lines))
        elif match := re.match(r"(#+) (.*)", lines[0]):
            level = min(len(match[1]) + 1, 6)
            blocks.append(f"<h{level}>{_inline(match[2])}</h{level}>" if level > 2 else "")
        else:
            kind = ' class="warning"' if block.startswith("Warning") else ""
            blocks.append(f"<p{kind}>{_inline(' '.join(lines))}</p>")
    return "\n".join(blocks)


def _html_table(lines: list[str]) -> str:
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    head, body = rows[0], rows[2:]
    cells = "".join(f"<th>{_inline(cell)}</th>" for cell in head)
    content = "".join("<tr>" + "".join(f"<td>{_marked(cell)}</td>" for cell in row) + "</tr>" for row in body)
    return f'<div class="table"><table><thead><tr>{cells}</tr></thead><tbody>{content}</tbody></table></div>'


def _marked(cell: str) -> str:
    verdict = cell in ("supported", "contradicted", "undecided", "not learnt")
    return f'<b class="{cell.replace(" ", "-")}">{cell}</b>' if verdict else _inline(cell)


def _inline(text: str) -> str:
    return re.sub(r"\*(\w+)\*", r"<em>\1</em>", html.escape(text.replace("\\|", "|"), quote=False))


def solver_summary(accuracy: pd.DataFrame) -> str:
    """Return a table of the DEQs' last epoch, the worst seed of each setting, with a warning where one failed."""
    if "solver_converged" not in accuracy:
        return "<p>This study has no DEQ.</p>"
    final = last_epoch(accuracy).dropna(subset=["solver_converged"])
    lines = ["| Data set | Split | Model | Seeds | Converged (%) | Steps | Residual | Spectral radius, est. |", "|---|"]
    for (dataset, split, model), part in final.groupby(["dataset", "split", "model"], sort=False):
        lines.append(
            f"| {dataset} | {split} | {model_name(model)} | {len(part)} | {100 * converged(part).min():.1f} "
            f"| {part.solver_steps.max():.1f} | {part.solver_residual.max():.2g} "
            f"| {part.solver_spectral_radius.max():.2f} |"
        )
    failed = unconverged(final)
    verdict = "<p>Every DEQ converged for 99 % of its samples or more in its last epoch.</p>"
    if failed:
        verdict = (
            f'<p class="warning">Warning: {len(failed)} of {len(final)} DEQs did not converge. A DEQ that does not '
            f"converge is no equilibrium; these count in no claim: {html.escape(', '.join(failed))}.</p>"
        )
    return f"<p>Last epoch, training and evaluation, the worst of the seeds.</p>{_html_table(lines)}{verdict}"


def _table(name: str, path: str, caption: str) -> str:
    text = from_markdown(Path(path).read_text(encoding="utf-8"))
    return f"<section><h3>{name}</h3><p>{html.escape(caption)}</p>{text}</section>"


def _figure(name: str, path: str, number: int, caption: str) -> str:
    picture = inline_svg(Path(path).read_text(encoding="utf-8"), f"f{number}-")
    return f"<figure><h3>{name}</h3><div>{picture}</div><figcaption>{html.escape(caption)}</figcaption></figure>"


def inline_svg(text: str, prefix: str) -> str:
    """Return the <svg> element of a file, scalable, with `prefix` before its ids: several share one page."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{prefix}', text)
    text = re.sub(r"url\(#", f"url(#{prefix}", text)
    text = re.sub(r'href="#', f'href="#{prefix}', text)
    return re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1))


def dag(jobs: dict[str, int]) -> str:
    """Return the stages and how many jobs each has, as an inline SVG."""
    places = {stage: (10 + 150 * n, 20) for n, stage in enumerate(STAGES[:5])} | {"theory": (460, 100)}
    arrows = ["M120,45h38", "M270,45h38", "M420,45h38", "M570,45h38", "M570,125h40q30,0 30,-30v-18"]
    boxes = "".join(
        f'<rect x="{x}" y="{y}" width="110" height="50" rx="6" fill="#eef3f8" stroke="#0072b2"/>'
        f'<text x="{x + 55}" y="{y + 22}" text-anchor="middle">{stage}</text>'
        f'<text x="{x + 55}" y="{y + 40}" text-anchor="middle" font-size="12">{jobs.get(stage, 0)} jobs</text>'
        for stage, (x, y) in places.items()
    )
    lines = "".join(f'<path d="{path}" fill="none" stroke="#444" marker-end="url(#arrow)"/>' for path in arrows)
    return (
        '<figure><div><svg viewBox="0 0 740 160" role="img" aria-label="The stages" font-family="sans-serif" '
        'font-size="15"><defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" '
        'markerHeight="8" orient="auto"><path d="M0,0L8,4L0,8z" fill="#444"/></marker></defs>'
        f"{boxes}{lines}</svg></div></figure>"
    )


def _document(body: str) -> str:
    return (
        '<!DOCTYPE html>\n<html lang="en-GB">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # Nothing that finds its way into the page may ask for anything; a browser says so on its console.
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">\n"
        '<link rel="icon" href="data:,">\n'  # or a browser asks for one
        f"<title>Neural collapse in deep equilibrium models</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )
