"""The page, the solver's diagnostics and figure B-5, from made-up results."""

import pandas as pd
import pytest

from eqcollapse.report.accuracy import solver_warning
from eqcollapse.report.page import caption, dag, from_markdown, inline_svg, solver_summary
from eqcollapse.report.solver import solver_figure
from eqcollapse.report.stages import stages_figure

STYLE = {"dpi": 50, "width": 7.0}
SPEC = {"splits": {"digits": ["balanced", "ka3-r10"]}, "models": ["deq"], "seeds": [0, 1], "style": STYLE}


@pytest.fixture
def accuracy() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"dataset": "digits", "split": split, "model": "deq", "seed": seed, "epoch": epoch, "solver_steps": 9.0}
            | {"solver_converged": 0.5 if (split, seed) == ("ka3-r10", 1) else 1.0, "solver_residual": 1e-3}
            | {"solver_spectral_radius": 0.8}
            for split in ("balanced", "ka3-r10")
            for seed in (0, 1)
            for epoch in (1, 2)
        ]
    )


def test_a_deq_that_does_not_converge_is_named(accuracy):
    said = solver_warning(accuracy, SPEC)
    assert "digits/ka3-r10/deq/seed-1." in said
    assert "seed-0" not in said
    assert "1 of 4 DEQs did not converge" in solver_summary(accuracy)
    converged = accuracy.assign(solver_converged=1.0)
    assert solver_warning(converged, SPEC) == ""
    assert "Warning" not in solver_summary(converged)


def test_the_solver_figure_counts_samples_at_the_limit(accuracy):
    axes = solver_figure(accuracy, SPEC).axes
    assert axes[1].lines[1].get_ydata().tolist() == [25.0, 25.0]
    assert axes[3].lines[0].get_ydata().tolist() == [0.8, 0.8]


def test_figure_5_has_a_line_a_stage_and_the_ufm_beside_it():
    rows = [
        {"dataset": "digits", "split": "balanced", "model": "mse", "seed": seed, "epoch": epoch, "layer": layer}
        | {f"tirer2022_{name}": 1.0 / epoch for name in ("nc1", "nc2_of", "nc3_of")}
        for seed in (0, 1)
        for epoch in (1, 10)
        for layer in ("stage-1", "stage-2", "features")
    ]
    frame = pd.DataFrame(rows)
    frame.loc[frame.layer != "features", "tirer2022_nc3_of"] = None
    theory = pd.DataFrame(
        [{"iteration": n, **{f"nc{m}_{i}": 1.0 / n for m in (1, 2, 3) for i in (1, 2)}} for n in (1, 9)]
    )
    spec = {"splits": {"digits": ["balanced"]}, "models": ["mse"], "unbiased": ["mse"], "seeds": [0, 1], "style": STYLE}
    axes = stages_figure(frame, theory, spec).axes
    assert [len(axis.lines) for axis in axes] == [3, 3, 1, 2, 2, 2]
    assert "orthogonal" in axes[1].get_title()


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


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("a-figure-2-digits", "Paper A, figure 2"),
        ("a-figure-appendix-mnist-ka3", "Paper A, appendix: as figure 3, for KA = 3, on mnist"),
        ("b-figure-4", "Paper B, figure 4:"),
        ("b-figure-5", "Paper B, figure 5:"),
        ("a-table-3", "Paper A, table 3"),
        ("theory", "Minima"),
    ],
)
def test_captions_have_the_papers_numbers(name, start):
    assert caption(name).startswith(start)
