"""Table theory, from small experiments that were run."""

import math

import pytest

from eqcollapse.report.tables.theory import theory_table


def test_table_has_every_case_and_its_gap(frames):
    table = theory_table(frames)
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
        (row,) = theory_table({"e1": runs}).query(f"case.str.startswith('{model}, worst of 4 imbalances')").itertuples()
        assert row.relative_gap == pytest.approx((least.loss / least.optimum - 1).max(), rel=1e-9)
        assert row.relative_gap > (least.loss / least.optimum - 1).min()


def test_no_gap_is_stated_to_what_is_no_minimum(frames):
    deep = theory_table(frames).set_index("experiment").loc["deep"]
    assert deep.status == "beaten"
    assert deep.lower == frames["deep"].lower[0] < deep.closed_form
    assert math.isnan(deep.relative_gap)
    assert frames["deep"].gap.isna().all()
    assert frames["plain"].gap.notna().all()
