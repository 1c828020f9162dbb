"""A failed run ends with its cause."""

import shutil

import pytest

from eqcollapse.pipeline import failures
from eqcollapse.pipeline.failures import cause_in, words_of_failure

BLOCK = """Error in rule cell:
    message: None
    jobid: {number}
    output: results/x
    log: {log} (check log file(s) for error details)
"""


@pytest.fixture
def failed(tmp_path):
    """Return Snakemake's log of a run in which the jobs with these logs failed; one more job ran."""

    def write(**contents: str) -> list[str]:
        blocks = ["localrule cell:\n    log: ran.log\n    jobid: 0\n"]
        for number, (name, content) in enumerate(contents.items()):
            (tmp_path / f"{name}.log").write_text(content)
            blocks.append(BLOCK.format(number=number, log=f"{tmp_path / name}.log"))
        (tmp_path / "ran.log").write_text("eqcollapse cell: this one went well after all\n")
        (tmp_path / "snakemake.log").write_text("\n".join(blocks))
        return [str(tmp_path / "snakemake.log")]

    return write


def test_the_cause_is_the_line_of_the_job_itself(failed):
    said = words_of_failure(failed(a="cell: 50%\reqcollapse train: cell a diverged: try a smaller lr\n"))
    first, *rest = said.splitlines()
    assert first.startswith("Cause: eqcollapse train: cell a diverged: try a smaller lr (")
    assert "went well" not in said
    assert "memory" not in said
    assert any("goes on from here" in line for line in rest)


def test_a_traceback_ends_with_its_last_line(failed):
    trace = 'Traceback (most recent call last):\n  File "x.py", line 1\nValueError: expected groups\nat exit\n'
    assert "Cause: ValueError: expected groups (" in words_of_failure(failed(a=trace))


@pytest.mark.parametrize("content", ["", "cell: 50%|####    | 1/2", "iteration 5 of 9\n"])
def test_a_job_that_says_nothing_was_killed_from_outside(failed, content):
    said = words_of_failure(failed(a=content))
    assert "Cause" not in said
    assert "a.log) was killed from outside, most often for memory" in said


def test_each_job_is_named_once_and_not_all_of_many(failed):
    logs = failed(**{f"cell{number}": f"eqcollapse train: cause {number}\n" for number in range(9)})
    said = words_of_failure([*logs, *logs])
    assert said.count("Cause: ") == 5
    assert "And 4 more jobs failed" in said


def test_a_job_on_a_cluster_has_its_own_log_before_that_of_the_cluster(failed, tmp_path):
    logs = failed(a="eqcollapse train: it is this\n")
    text = (tmp_path / "snakemake.log").read_text().replace("a.log (", "a.log, logs/slurm/5.log (")
    (tmp_path / "snakemake.log").write_text(text)
    assert "Cause: eqcollapse train: it is this" in words_of_failure(logs)


def test_an_interrupted_run_says_how_to_go_on_and_nothing_of_causes(tmp_path):
    assert words_of_failure([tmp_path / "gone.log"]).splitlines() == [
        "What is finished is kept: the same command goes on from here, a cell from its last epoch."
    ]


def test_a_full_disk_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, failures.SCARCE - 1))
    assert "This disk is full" in words_of_failure([])


def test_a_long_log_is_read_at_its_end(tmp_path):
    (tmp_path / "long.log").write_text("eqcollapse train: old\n" + "x" * failures.TAIL + "\neqcollapse train: new\n")
    assert cause_in(tmp_path / "long.log") == "eqcollapse train: new"
