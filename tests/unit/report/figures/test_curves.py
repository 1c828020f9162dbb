"""What the curves over epochs draw, from made-up results."""

import numpy as np
import pandas as pd
import pytest

from eqcollapse.report.config import Figures, RunsFigure
from eqcollapse.report.figures.curves import curves

STYLE = Figures(dpi=50, width=7.0)


def spec(*splits: str) -> RunsFigure:
    return RunsFigure(
        kind="curves", splits={"digits": list(splits)}, models=["explicit", "deq"], seeds=[0, 1], style=STYLE
    )


@pytest.fixture
def results() -> tuple[pd.DataFrame, pd.DataFrame]:
    """collapse.csv and accuracy.csv of two seeds: accuracy at two of four epochs, an angle under imbalance alone."""
    measured, learned = [], []
    for split in ("balanced", "ka3-r10"):
        for model in ("explicit", "deq"):
            for seed in (0, 1):
                for epoch in (1, 2, 3, 4):
                    cell = {"dataset": "digits", "split": split, "model": model, "seed": seed, "epoch": epoch}
                    nc = {f"sun2024_nc{n}": 10.0**-epoch * (1 + seed) for n in (1, 2, 3)}
                    cosine = np.nan if split == "balanced" else 0.2 * epoch - 0.1 * seed
                    measured.append(cell | nc | {"layer": "features", "classes": 10, "cos_weight_minority": cosine})
                    learned.append(cell | {"test_accuracy": 0.2 * epoch if epoch in (2, 4) else np.nan})
    return pd.DataFrame(measured), pd.DataFrame(learned)


def visible(figure) -> list:
    return [axis for axis in figure.axes if axis.get_visible()]


def test_accuracy_is_drawn_at_the_epochs_that_were_evaluated(results):
    axis = curves(*results, spec("balanced")).axes[0]
    assert axis.lines[0].get_xdata().tolist() == [2, 4]
    assert axis.lines[0].get_ydata().tolist() == pytest.approx([40, 80])


def test_metrics_are_means_over_seeds(results):
    axis = curves(*results, spec("balanced")).axes[1]
    assert axis.lines[0].get_ydata().tolist() == pytest.approx([1.5 * 10.0**-epoch for epoch in (1, 2, 3, 4)])


def test_the_minoritys_angle_is_followed_under_imbalance_alone(results):
    assert len(visible(curves(*results, spec("balanced")))) == 4
    figure = curves(*results, spec("balanced", "ka3-r10"))
    assert len(visible(figure)) == 9
    angle = figure.axes[9]
    assert angle.get_title() == "Minority cosine"
    assert angle.lines[0].get_ydata().tolist() == pytest.approx([0.15, 0.35, 0.55, 0.75])
    assert angle.lines[-1].get_ydata()[0] == pytest.approx(-1 / 9)
