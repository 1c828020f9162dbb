"""The page, from made-up results."""

from eqcollapse.report.config import AccuracyTable
from eqcollapse.report.page import dag, from_markdown, inline_svg, solver_summary
from eqcollapse.report.tables.accuracy import solver_warning

SPEC = AccuracyTable(kind="accuracy", splits={"digits": ["balanced", "ka3-r10"]}, models=["deq"], seeds=[0, 1])


def test_a_deq_that_does_not_converge_is_named(solver_rows):
    said = solver_warning(solver_rows, SPEC)
    assert "digits/ka3-r10/deq/seed-1." in said
    assert "seed-0" not in said
    assert "1 of 4 DEQs did not converge" in solver_summary(solver_rows)
    converged = solver_rows.assign(solver_converged=1.0)
    assert solver_warning(converged, SPEC) == ""
    assert "Warning" not in solver_summary(converged)


def test_markdown_of_tables_and_claims():
    text = from_markdown("## A1: *x*\n\nOne\nline.\n\n| a \\| b | verdict |\n| --- | --- |\n| 1 < 2 | supported |\n")
    assert "<h3>A1: <em>x</em></h3>" in text
    assert "<p>One line.</p>" in text
    assert "<th>a | b</th>" in text
    assert '<td>1 &lt; 2</td><td><b class="supported">supported</b></td>' in text


def test_svgs_share_a_page():
    svg = '<?xml version="1.0"?><svg height="1pt" viewBox="0 0 9 9" width="2pt"><g id="a"/><use xlink:href="#a"/></svg>'
    assert inline_svg(svg, "f1-") == '<svg viewBox="0 0 9 9"><g id="f1-a"/><use xlink:href="#f1-a"/></svg>'
    assert ">66 jobs<" in dag({"train": 66})
