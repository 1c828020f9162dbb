"""What `explain` says of a file: the answer on a page, of what the file shows, and all of the chain on request."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from eqcollapse.provenance.chain import Chain
from eqcollapse.provenance.explain import answer, tree
from eqcollapse.provenance.records import write_record
from eqcollapse.runtime.errors import EqcollapseError
from eqcollapse.study.fingerprint import code_digest
from eqcollapse.study.grid import Study
from eqcollapse.study.params import parse
from eqcollapse.study.stages import STAGES
from projects import merged

GIT = ("git", "-c", "user.name=test", "-c", "user.email=test@example.org")
FIGURE = "results/figures/a-figure-3-digits.svg"
CODE = {name: code_digest(stage.module) for name, stage in STAGES.items()}


def made(content: dict, code: dict[str, str] = CODE) -> Study:
    """Write a file and a record for every output of the study of `content`, as if its jobs had run."""
    study = Study(parse(content), code)
    for job in study:
        for file in job.outputs:
            Path(file).parent.mkdir(parents=True, exist_ok=True)
            Path(file).write_text(file)
        words = ["python", "-m", "eqcollapse", job.stage, "--digest", job.digest, "--spec", job.spec_json]
        write_record(
            job.record,
            stage=job.stage,
            digest=job.digest,
            command=[*words, "--inputs", *job.inputs, "--outputs", *job.outputs],
            spec=job.settings,
            inputs=job.inputs,
            outputs=job.outputs,
            code={"digest": code[job.stage], "runner": "b" * 64},
            run={},
        )
    return study


@pytest.fixture
def committed(tmp_path, monkeypatch, content) -> dict:
    """A repository with params.yaml as committed, and the working directory in it."""
    monkeypatch.chdir(tmp_path)
    content["splits"] |= {"majority": [3, 5], "ratios": [10, 50]}
    content["theory"] = {"b-figure-1": content["theory"]["b-figure-1"]}
    Path("params.yaml").write_text(yaml.safe_dump(content))
    subprocess.run([*GIT, "init", "-q"], check=True)
    subprocess.run([*GIT, "add", "-A"], check=True)
    subprocess.run([*GIT, "commit", "-q", "-m", "params"], check=True)
    return content


def test_a_figure_of_twelve_cells_names_these_with_their_digests_and_no_other(committed):
    study = made(committed)
    said = answer(Chain(FIGURE))
    named = re.findall(r"results/runs/\S+", said)
    expected = [
        job.path for job in study.jobs["train"].values()
        if job.spec.split in ("balanced", "ka3-r10") and job.spec.model in ("explicit", "deq")
    ]  # fmt: skip
    assert len(expected) == 12
    assert sorted(named) == sorted(expected)
    assert f"12 that it shows, of {len(study.jobs['train'])} behind it" in said
    assert re.findall(r"results/splits/\S+", said) == [
        job.path for job in study.jobs["splits"].values() if job.spec.split in ("balanced", "ka3-r10")
    ]


def test_the_answer_fits_on_a_page_and_comes_before_the_cells(committed):
    made(committed)
    said = answer(Chain(FIGURE))
    assert len(said.splitlines()) < 45
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    before, _, _ = said.partition("\ncells")
    for words in ("as recorded", "resources/datasets/digits@", commit, "no container", "snakemake --cores all", FIGURE):
        assert words in before
    assert "model deq: network.head: 'explicit' -> 'equilibrium'" in before
    assert before.count("network.head") == 1
    assert "mse" not in said, "a model that is not in the figure"


def test_settings_that_were_never_committed_are_the_difference(committed):
    made(merged(committed, {"train": {"lr": 0.01}}))
    said = answer(Chain(FIGURE))
    assert "model deq, model explicit: train.lr: 0.1 -> 0.01" in said
    assert "snakemake --cores all" not in said, "HEAD asks for another file of this name"
    assert f"explain --commands {FIGURE}" in said


def test_code_that_is_not_todays_is_not_rebuilt_by_snakemake(committed):
    made(committed, {**CODE, "train": "0" * 64})
    assert "snakemake --cores all" not in answer(Chain(FIGURE))


def test_the_answer_of_one_cell_is_short_and_that_of_a_page_is_cut(committed):
    study = made(committed)
    cell = next(iter(study.jobs["train"].values()))
    said = answer(Chain(cell.outputs[0]))
    assert cell.path in said
    assert len(said.splitlines()) < 25
    assert len(answer(Chain("results/report.html")).splitlines()) < 100
    assert len(tree(Chain("results/report.html")).splitlines()) > 200


def test_everything_is_in_the_tree_with_digests(committed):
    study = made(committed)
    said = tree(Chain(FIGURE))
    for job in (*study.jobs["train"].values(), *study.jobs["data"].values()):
        assert f"└─ {job.stage}: {job.path}" in said
    assert Chain(FIGURE).script() in said


def test_an_altered_file_is_called_so_first(committed):
    made(committed)
    Path(FIGURE).write_text("drawn by hand")
    assert "ALTERED" in answer(Chain(FIGURE)).splitlines()[1]


def test_a_file_that_no_record_speaks_of_is_one_line(committed):
    with pytest.raises(EqcollapseError, match="give a file under resources or results/"):
        Chain("README.md")
