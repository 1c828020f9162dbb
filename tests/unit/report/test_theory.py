import math

import pandas as pd
import pytest

from eqcollapse.report import theory as report
from eqcollapse.report.style import save
from eqcollapse.theory.job import experiment

UFM = {
    "kind": "ufm",
    "num_classes": 4,
    "dim": 8,
    "per_class": 2,
    "layers": 4,
    "activation": "relu",
    "bias": "none",
    "loss": "mse",
    "lambda_weights": 0.01,
    "lambda_features": 0.01,
    "lambda_bias": 0.0,
    "lambda_scales": [1.0],
    "seeds": [0, 1, 2],
    "iterations": 400,
    "step": 0.1,
    "start": 0.4,
    "logged": 12,
}
PEELED = {
    "kind": "layer-peeled",
    "models": ["explicit", "deq"],
    "num_classes": 6,
    "dim": 8,
    "majority": [2, 3],
    "ratios": [1, 2, 20],
    "seeds": [0, 1],
    "bound_weight": 1.0,
    "bound_features": 1.0,
    "iterations": 400,
    "step": 0.5,
    "start": 0.3,
}


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    folder = tmp_path_factory.mktemp("theory")
    specs = {
        "deep": UFM,
        "plain": UFM | {"layers": 1},
        "free": UFM | {"layers": 2, "bias": "free"},
        "scales": UFM | {"lambda_scales": [1.0, 2.0]},
        "peeled-e1": PEELED,
        "peeled-e2": PEELED | {"bound_weight": 2.0, "bound_features": 2.0},
    }
    for name, spec in specs.items():
        experiment(spec, folder / f"{name}@0.csv")
    return {name: pd.read_csv(folder / f"{name}@0.csv") for name in specs}


def test_descent_has_a_line_a_layer_and_the_closed_form(frames):
    figure = report.descent(frames["deep"], width=7)
    loss, nc1, *_ = figure.axes
    assert len(nc1.lines) == 4
    assert loss.lines[-1].get_ydata()[0] == frames["deep"].optimum[0]
    assert [axis.get_xscale() for axis in figure.axes] == ["log"] * 4
    assert len(report.descent(frames["free"], width=7).axes[0].lines) == 1


def test_descent_does_not_call_a_beaten_value_the_closed_form(frames):
    assert set(frames["deep"].status) == {"beaten"}
    loss = report.descent(frames["deep"], width=7).axes[0]
    labels = {line.get_label(): line.get_ydata()[0] for line in loss.lines[-2:]}
    assert labels == {"low-rank point": frames["deep"].lower[0], "full collapse": frames["deep"].optimum[0]}
    plain = report.descent(frames["plain"], width=7).axes[0]
    assert plain.lines[-1].get_label() == "closed form"


def test_a_line_is_the_median_of_the_seeds_of_one_scale(frames):
    """Each of several lambda_scales has a row, with its own closed form."""
    runs = frames["scales"]
    figure = report.descent(runs, width=7)
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
    figure = report.low_rank(frames["scales"], width=7)
    assert [len(axis.lines) for axis in figure.axes] == [3 + 2, 4] * 2
    assert [axis.get_ylabel() for axis in figure.axes[::2]] == ["lambdas x 1\nLoss", "lambdas x 2\nLoss"]


def test_low_rank_shows_every_seed(frames):
    figure = report.low_rank(frames["deep"], width=7)
    assert len(figure.axes[0].lines) == 3 + 2
    assert len(figure.axes[1].lines) == 4


def test_layer_peeled_has_a_column_a_bound(frames):
    figure = report.layer_peeled(pd.concat([frames["peeled-e1"], frames["peeled-e2"]]), width=7)
    assert len(figure.axes) == 5 * 2
    assert all(axis.get_ylabel() for axis in figure.axes[::2])


def test_table_has_every_case_and_its_gap(frames):
    table = report.table(frames)
    assert set(table.experiment) == set(frames)
    plain = table[table.experiment == "plain"].iloc[0]
    assert plain.relative_gap == pytest.approx(plain.measured / plain.closed_form - 1)
    assert plain.status == "global"
    assert table[table.experiment == "free"].closed_form.isna().all()
    balanced = table[table.case == "deq, balanced"]
    assert len(balanced) == 2
    assert (balanced.relative_gap.abs() < 1e-3).all()
    gains = math.log(6) - balanced.closed_form
    assert balanced.range_gap.tolist() == pytest.approx(((balanced.measured - balanced.closed_form) / gains).tolist())
    assert table[~table.experiment.str.startswith("peeled")].range_gap.isna().all()


def test_the_table_has_the_worst_of_the_imbalances(frames):
    runs = frames["peeled-e1"]
    for model in ("explicit", "deq"):
        part = runs[(runs.model == model) & (runs.ratio > 1)]
        least = part.groupby(["majority", "ratio"])[["loss", "optimum"]].min()
        (row,) = report.table({"e1": runs}).query(f"case.str.startswith('{model}, worst of 4 imbalances')").itertuples()
        assert row.relative_gap == pytest.approx((least.loss / least.optimum - 1).max(), rel=1e-9)
        assert row.relative_gap > (least.loss / least.optimum - 1).min()


def test_figures_repeat_to_the_byte(frames, tmp_path):
    for name in ("one", "two"):
        save(report.descent(frames["deep"], width=7), [tmp_path / f"{name}.png"], dpi=50)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
