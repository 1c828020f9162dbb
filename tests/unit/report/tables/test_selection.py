"""Settings are chosen by validation accuracy, against numbers worked out by hand; the test set has no say."""

import pandas as pd
import pytest

from eqcollapse.report.config import SelectionTable
from eqcollapse.report.tables import job
from eqcollapse.report.tables.selection import selection_table
from eqcollapse.runtime.errors import EqcollapseError
from eqcollapse.study.grid import Study
from eqcollapse.study.params import parse

SPEC = SelectionTable.model_validate(
    {
        "kind": "selection",
        "splits": {"digits": ["balanced", "ka3-r10"]},
        "models": ["slow", "fast", "deq"],
        "seeds": [0, 1],
        "heads": {"slow": "explicit", "fast": "explicit", "deq": "equilibrium"},
        "settings": {"slow": "train.lr = 0.01", "fast": "train.lr = 0.1", "deq": "train.lr = 0.1"},
    }
)
VALIDATION = {"slow": 0.8, "fast": 0.9, "deq": 0.7}


@pytest.fixture
def accuracy() -> pd.DataFrame:
    """Runs whose test accuracy, and whose first epoch, would choose otherwise."""
    return pd.DataFrame(
        [
            {
                "dataset": "digits",
                "split": split,
                "model": model,
                "seed": seed,
                "epoch": epoch,
                "test_accuracy": 1 - value,
                "validation_accuracy": value + 0.02 * seed - (0.1 if split != "balanced" else 0)
                if epoch == 2
                else 0.99,
                "solver_steps": 5.0 if model == "deq" else None,
            }
            for model, value in VALIDATION.items()
            for split in ("balanced", "ka3-r10")
            for seed in (0, 1)
            for epoch in (1, 2)
        ]
    )


def test_the_best_of_each_head_on_the_validation_share(accuracy):
    table = selection_table(accuracy, SPEC).set_index("model")
    # balanced and imbalanced averaged (- 0.05), then the seeds 0 and 1 (+ 0.01); t(0.975, 1) = 12.7062
    assert table.validation.to_dict() == pytest.approx({"slow": 76.0, "fast": 86.0, "deq": 66.0})
    assert table.validation_interval.to_dict() == pytest.approx(dict.fromkeys(VALIDATION, 12.7062), rel=1e-4)
    assert table.chosen.to_dict() == {"slow": False, "fast": True, "deq": True}
    assert table.solver_steps["deq"] == 5


def test_of_equals_the_first_is_chosen(accuracy):
    accuracy["validation_accuracy"] = 0.5
    assert selection_table(accuracy, SPEC).set_index("model").chosen.to_dict() == {
        "slow": True,
        "fast": False,
        "deq": True,
    }


def test_without_a_validation_share_there_is_nothing_to_choose_by(accuracy):
    with pytest.raises(EqcollapseError, match=r"digits: .*splits\.validation"):
        selection_table(accuracy.drop(columns="validation_accuracy"), SPEC)


def test_it_is_written_for_people(accuracy, tmp_path):
    file = tmp_path / "accuracy.csv"
    accuracy.to_csv(file, index=False)
    outputs = [str(tmp_path / f"table.{suffix}") for suffix in ("csv", "md", "tex")]
    job.run(SPEC, ["", str(file)], outputs)
    text = (tmp_path / "table.md").read_text()
    assert "| digits | explicit | fast | train.lr = 0.1 | 86.00 ± 12.71 |  | 2 | chosen |" in text
    assert "| digits | equilibrium | deq | train.lr = 0.1 | 66.00 ± 12.71 | 5.0 | 2 | chosen |" in text


def test_an_experiment_plans_it(content):
    content["splits"]["validation"] = 0.2
    content["models"]["deq-fast"] = {"network": {"head": "equilibrium"}, "train": {"lr": 0.1}}
    content["experiments"]["a"] |= {"report": "selection", "models": ["explicit", "deq-fast"]}
    jobs = Study(parse(content)).jobs["table"]
    spec = jobs["results/tables/a-selection.csv"].spec
    assert spec.heads == {"explicit": "explicit", "deq-fast": "equilibrium"}
    assert spec.settings == {"explicit": "", "deq-fast": "train.lr = 0.1"}


def test_it_needs_a_validation_share(content):
    content["experiments"]["a"]["report"] = "selection"
    with pytest.raises(EqcollapseError, match=r"experiments\.a\.report: selection .*splits\.validation"):
        parse(content)
