"""Tables of accuracy, against numbers worked out by hand and scipy's intervals."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from eqcollapse.report.answers import write_answers
from eqcollapse.report.config import AccuracyTable
from eqcollapse.report.tables import job
from eqcollapse.report.tables.accuracy import accuracy_table
from made_up_answers import all_right

SPEC = AccuracyTable.model_validate(
    {
        "kind": "accuracy",
        "models": ["explicit", "deq"],
        "seeds": [0, 1, 2],
        "splits": {"digits": ["balanced", "ka3-r10"]},
    }
)


@pytest.fixture
def accuracy() -> pd.DataFrame:
    rows = []
    for split, base in (("balanced", 0.9), ("ka3-r10", 0.5)):
        for model, gain in (("explicit", 0.0), ("deq", 0.02)):
            for seed in range(4):  # one more than the table asks for
                for epoch in (1, 2):
                    value = base + gain + 0.01 * seed * (1 + gain) - (0.3 if epoch == 1 else 0)
                    rows.append(
                        {
                            "dataset": "digits",
                            "split": split,
                            "model": model,
                            "seed": seed,
                            "epoch": epoch,
                            "test_accuracy": value,
                            "test_accuracy_majority": value + 0.1,
                            "test_accuracy_minority": value - 0.1,
                        }
                    )
    return pd.DataFrame(rows).sample(frac=1, random_state=0)


def test_the_last_epoch_of_the_asked_for_seeds(accuracy):
    table = accuracy_table(accuracy, all_right(accuracy), SPEC)
    assert list(zip(table.split, table.group, strict=True)) == [
        ("balanced", "overall"),
        ("ka3-r10", "overall"),
        ("ka3-r10", "majority"),
        ("ka3-r10", "minority"),
    ]
    assert table.explicit[0] == pytest.approx(91.0)
    assert table.deq[3] == pytest.approx(100 * (0.42 + 0.0102))
    assert set(table.seeds) == {3}


def test_a_long_tail_has_one_row(accuracy):
    tails = accuracy[accuracy.split == "balanced"].assign(split="longtail-100")
    spec = SPEC.model_copy(update={"splits": {"digits": ["longtail-100"]}})
    assert accuracy_table(tails, all_right(tails), spec).group.tolist() == ["overall"]


def test_differences_are_paired_by_seed(accuracy):
    table = accuracy_table(accuracy, all_right(accuracy), SPEC)
    differences = 100 * np.array([0.02 + 0.01 * seed * 0.02 for seed in range(3)])
    low, high = stats.t.interval(0.95, 2, loc=differences.mean(), scale=stats.sem(differences))
    images = 1.96 * 100 * np.sqrt(2) / 20_000  # one more image won, one more lost
    assert table.difference[0] == pytest.approx(differences.mean())
    assert table.difference_interval[0] == pytest.approx(np.hypot((high - low) / 2, images), rel=1e-4)


def test_differences_of_one_table_are_a_family(accuracy):
    table = accuracy_table(accuracy, all_right(accuracy), SPEC)
    differences = [100 * (0.02 + 0.01 * seed * 0.02) for seed in range(3)]
    assert table.difference_p[0] == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, rel=0.01)
    assert table.difference_p_holm.tolist() == pytest.approx([min(1, 4 * p) for p in table.difference_p], rel=0.01)


def test_no_row_is_without_uncertainty(accuracy):
    """Three seeds that get no minority image right, and all majority images, may fail on others."""
    flat = accuracy.assign(test_accuracy_minority=0.0, test_accuracy_majority=1.0, test_accuracy=0.3)
    answers = all_right(flat, images=360)
    for ways in answers.right.values():
        ways["test"] = (answers.labels["digits"] == 0).astype(np.uint8)
    table = accuracy_table(flat, answers, SPEC).set_index(["split", "group"])
    # An image with none of 180 right has a share of at most 1.65 % in all images, at 95 %: the rule of three.
    for column in ("explicit_interval", "deq_interval", "difference_interval"):
        for group in ("majority", "minority"):
            assert 1.0 < table.loc[("ka3-r10", group), column] < 2.0
    assert table.difference_p.tolist() == [1.0] * 4


def test_three_formats_tell_the_same(accuracy, tmp_path):
    files = [tmp_path / name for name in ("collapse.csv", "accuracy.csv", "answers.safetensors")]
    accuracy.to_csv(files[0], index=False)
    accuracy.to_csv(files[1], index=False)
    write_answers(files[2], all_right(accuracy))
    outputs = [str(tmp_path / f"table.{suffix}") for suffix in ("csv", "md", "tex")]
    job.run(SPEC, [str(file) for file in files], outputs)
    csv, md, tex = (Path(path).read_text(encoding="utf-8") for path in outputs)
    assert len(pd.read_csv(outputs[0])) == 4
    assert "91.00 ± " in md
    assert "Explicit" in md
    assert r"91.00 $\pm$ " in tex
    assert csv.count("\n") == 5
