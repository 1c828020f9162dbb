"""A command line altered by hand is answered by a line that names the key."""

import json

import pytest

from eqcollapse.cli.main import main
from eqcollapse.study.grid import Study
from eqcollapse.study.jobs import Job
from eqcollapse.study.params import parse
from eqcollapse.study.stages import STAGES


def answer(capsys, stage: str, spec: dict, inputs: tuple, outputs: tuple) -> str:
    """Run a job and return the one line in which it fails."""
    words = [stage, "--digest", "0123456789", "--spec", json.dumps(spec)]
    words += ["--inputs", *inputs, "--outputs", *outputs]
    assert main(words) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1, said
    return said[0]


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "collapse"])
def test_a_missing_key_is_named(content, capsys, stage, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = next(iter(Study(parse(content)).jobs[stage].values()))
    for key in required(stage, job):
        spec = {name: value for name, value in job.settings.items() if name != key}
        line = answer(capsys, stage, spec, job.inputs, job.outputs)
        assert line.startswith(f"eqcollapse {stage}: --spec: {key}: ")
        assert line.endswith("is missing")


def required(stage: str, job: Job) -> list[str]:
    """Return the keys of a job's spec but for those that a data set of no images of one's own goes without."""
    return [key for key in job.settings if stage != "data" or key in ("name", "source")]


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("lr", "fast", "--spec: train.lr: 'fast' is not allowed: must be a valid number"),
        ("epochs", 0, "--spec: train.epochs: 0 is not allowed"),
        ("loss", None, "--spec: train.loss: None is not allowed"),
    ],
)
def test_a_value_of_another_type_is_named(content, capsys, key, value, words):
    job = next(iter(Study(parse(content)).jobs["train"].values()))
    spec = json.loads(job.spec_json)
    spec["train"][key] = value
    assert words in answer(capsys, "train", spec, job.inputs, job.outputs)


@pytest.mark.parametrize("stage", STAGES)
def test_files_that_are_too_few_or_too_many_are_told(content, capsys, stage):
    job = next(iter(Study(parse(content)).jobs[stage].values()))
    line = answer(capsys, stage, job.settings, job.inputs, (*job.outputs, "another"))
    assert "--outputs: " in line
    assert f"expected, {len(job.outputs) + 1} files given" in line
    if stage in ("data", "splits", "train", "theory"):
        assert "--inputs: " in answer(capsys, stage, job.settings, (*job.inputs, "another"), job.outputs)


def test_every_spec_of_the_study_is_as_it_should_be(content):
    for job in Study(parse(content)):
        assert STAGES[job.stage].parse(json.loads(job.spec_json)) == job.spec


@pytest.mark.parametrize("stage", ["theory", "table", "figure"])
def test_an_unknown_kind_is_named(content, capsys, stage):
    job = next(iter(Study(parse(content)).jobs[stage].values()))
    line = answer(capsys, stage, {**job.settings, "kind": "x"}, job.inputs, job.outputs)
    assert "--spec: kind: 'x' is not allowed: must be one of" in line


def test_what_is_no_json_is_a_wrong_command_line(capsys):
    for text in ("{", "3", "[]"):
        with pytest.raises(SystemExit, match="2"):
            main(["train", "--digest", "0123456789", "--spec", text, "--outputs", "x"])
        assert "--spec" in capsys.readouterr().err
