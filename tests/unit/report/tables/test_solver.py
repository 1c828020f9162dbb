"""The table of what skipping a DEQ's solver costs, against numbers worked out by hand."""

import pandas as pd
import pytest

from eqcollapse.report.answers import write_answers
from eqcollapse.report.config import SolverTable
from eqcollapse.report.tables import job
from eqcollapse.report.tables.solver import solver_table
from made_up_answers import all_right

SPEC = SolverTable(kind="solver", models=["deq"], seeds=[0, 1], splits={"digits": ["balanced", "ka3-r10"]})


@pytest.fixture
def accuracy() -> pd.DataFrame:
    """Two seeds of an explicit network and a DEQ; skipping costs 10 and 20 points, solving to 1e-8 gains one."""
    rows = []
    for split in ("balanced", "ka3-r10"):
        for seed in (0, 1):
            cell = {"dataset": "digits", "split": split, "seed": seed, "epoch": 2}
            rows.append(cell | {"model": "explicit", "test_accuracy": 0.95})
            deq = {"model": "deq", "solved_converged": 1.0 - 0.1 * seed}
            for group, lower in (("", 0.0), ("_majority", -0.05), ("_minority", 0.2)):
                base = 0.9 - lower
                deq |= {
                    f"test_accuracy{group}": base,
                    f"skipped_accuracy{group}": base - 0.1 * (1 + seed),
                    f"solved_accuracy{group}": base + 0.01,
                }
            rows.append(cell | deq)
    return pd.DataFrame(rows)


def test_a_row_for_every_deq_row_of_the_accuracy_tables(accuracy):
    table = solver_table(accuracy, all_right(accuracy), SPEC)
    assert list(zip(table.split, table.group, strict=True)) == [
        ("balanced", "overall"),
        *(("ka3-r10", group) for group in ("overall", "majority", "minority")),
    ]
    assert table.test.tolist() == pytest.approx([90, 90, 95, 70])
    assert table.skipped_difference.tolist() == pytest.approx([-15] * 4)
    assert table.solved_difference.tolist() == pytest.approx([1] * 4)
    assert table.solved_converged.tolist() == pytest.approx([0.95] * 4)
    # Student's t of two values -10 and -20: 12.706 standard errors of 5.
    assert table.skipped_difference_interval[0] == pytest.approx(63.53, abs=0.01)


def test_it_is_written_for_people(accuracy, tmp_path):
    accuracy.to_csv(tmp_path / "accuracy.csv", index=False)
    outputs = [str(tmp_path / f"a-solver.{suffix}") for suffix in ("csv", "md", "tex")]
    write_answers(tmp_path / "answers.safetensors", all_right(accuracy))
    job.run(SPEC, ["", str(tmp_path / "accuracy.csv"), str(tmp_path / "answers.safetensors")], outputs)
    with open(outputs[1], encoding="utf-8") as stream:
        lines = stream.read().splitlines()
    assert lines[0].startswith("| Dataset | Split | Model | Group | As trained | Skipped | Skipped, difference |")
    assert "-15.00 ± 63.53" in lines[2]
