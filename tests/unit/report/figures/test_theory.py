"""Figures of the theory, from small experiments that were run."""

import pandas as pd
import pytest

from eqcollapse.report.figures import theory
from eqcollapse.report.figures.style import save


def test_descent_has_a_line_a_layer_and_the_closed_form(frames):
    figure = theory.descent(frames["deep"], width=7)
    loss, nc1, *_ = figure.axes
    assert len(nc1.lines) == 4
    assert loss.lines[-1].get_ydata()[0] == frames["deep"].optimum[0]
    assert [axis.get_xscale() for axis in figure.axes] == ["log"] * 4
    assert len(theory.descent(frames["free"], width=7).axes[0].lines) == 1


def test_descent_does_not_call_a_beaten_value_the_closed_form(frames):
    assert set(frames["deep"].status) == {"beaten"}
    loss = theory.descent(frames["deep"], width=7).axes[0]
    labels = {line.get_label(): line.get_ydata()[0] for line in loss.lines[-2:]}
    assert labels == {"low-rank point": frames["deep"].lower[0], "full collapse": frames["deep"].optimum[0]}
    plain = theory.descent(frames["plain"], width=7).axes[0]
    assert plain.lines[-1].get_label() == "closed form"


def test_a_line_is_the_median_of_the_seeds_of_one_scale(frames):
    """Each of several lambda_scales has a row, with its own closed form."""
    runs = frames["scales"]
    figure = theory.descent(runs, width=7)
    assert len(figure.axes) == 2 * 4
    for row, scale in enumerate([1.0, 2.0]):
        part = runs[(runs.lambda_scale == scale) & (runs.iteration > 0)]
        loss, nc1 = figure.axes[4 * row : 4 * row + 2]
        assert loss.get_ylabel() == f"lambdas x {scale:g}"
        medians = part.pivot_table(index="iteration", columns="seed", values="loss").median(axis=1)
        assert list(loss.lines[0].get_ydata()) == pytest.approx(medians.tolist())
        assert loss.lines[-1].get_ydata()[0] == part.optimum.iloc[0]
        medians = part.pivot_table(index="iteration", columns="seed", values="nc1_2").median(axis=1)
        assert list(nc1.lines[1].get_ydata()) == pytest.approx(medians.tolist())
    assert len({axis.lines[-1].get_ydata()[0] for axis in figure.axes[::4]}) == 2


def test_low_rank_has_a_row_a_scale(frames):
    figure = theory.low_rank(frames["scales"], width=7)
    assert [len(axis.lines) for axis in figure.axes] == [3 + 2, 4] * 2
    assert [axis.get_ylabel() for axis in figure.axes[::2]] == ["lambdas x 1\nLoss", "lambdas x 2\nLoss"]


def test_low_rank_shows_every_seed(frames):
    figure = theory.low_rank(frames["deep"], width=7)
    assert len(figure.axes[0].lines) == 3 + 2
    assert len(figure.axes[1].lines) == 4


def test_layer_peeled_has_a_column_a_bound(frames):
    figure = theory.layer_peeled(pd.concat([frames["peeled-e1"], frames["peeled-e2"]]), width=7)
    assert len(figure.axes) == 5 * 2
    assert all(axis.get_ylabel() for axis in figure.axes[::2])


def test_figures_repeat_to_the_byte(frames, tmp_path):
    for name in ("one", "two"):
        save(theory.descent(frames["deep"], width=7), [tmp_path / f"{name}.png"], dpi=50)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
