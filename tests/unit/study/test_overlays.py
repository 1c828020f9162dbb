"""What presets and `--config` can say beside values: that a name is not there, that only some are; and all as text."""

from pathlib import Path

import pytest
import yaml
from snakemake.cli import parse_config

from eqcollapse.runtime.errors import EqcollapseError
from eqcollapse.study.grid import Study
from eqcollapse.study.params import load, parse, read
from eqcollapse.study.stages import STAGES

ROOT = Path(__file__).parents[3]
PARAMS = ROOT / "params.yaml"


def laid_over(tmp_path: Path, *presets: str):
    """Return params.yaml with these presets laid over it."""
    files = [tmp_path / f"{number}.yaml" for number in range(len(presets))]
    for file, text in zip(files, presets, strict=True):
        file.write_text(text)
    return load(PARAMS, *files)


def given(*words: str) -> dict:
    """Return what Snakemake makes of params.yaml and these words after `--config`."""
    from snakemake.utils import update_config

    content = yaml.safe_load(PARAMS.read_text())
    update_config(content, parse_config(list(words)))
    return content


@pytest.mark.parametrize("nothing", ["null", "", "~", "{only: []}"])
def test_a_preset_can_say_that_there_is_no_theory(tmp_path, nothing):
    study = Study(laid_over(tmp_path, f"theory: {nothing}\n"))
    assert not study.jobs["theory"]
    assert study.jobs["train"]


@pytest.mark.parametrize("section", ["datasets", "models", "experiments", "theory"])
def test_a_preset_can_take_a_name_away(tmp_path, section):
    before = getattr(load(PARAMS), section)
    extra = "datasets: {more: {source: digits}}\nmodels: {more: {}}\ntheory: {more: {kind: ufm, figure: more}}\n"
    extra += "experiments: {more: {datasets: [digits], splits: [balanced], models: [deq], seeds: [0], report: none}}\n"
    assert "more" in getattr(laid_over(tmp_path, extra), section)
    assert list(getattr(laid_over(tmp_path, extra, f"{section}: {{more: null}}"), section)) == list(before)


@pytest.mark.parametrize(
    ("section", "name"), [("experiments", "b"), ("theory", "low-rank"), ("models", "deq"), ("datasets", "digits")]
)
def test_a_preset_can_keep_only_some_names(tmp_path, section, name):
    preset = f"{section}: {{only: [{name}]}}\n"
    if section in ("models", "datasets"):
        preset += "experiments: {only: [a], a: {datasets: [digits], models: [deq]}}\n"
    assert list(getattr(laid_over(tmp_path, preset), section)) == [name]


def test_only_may_name_what_the_preset_adds(tmp_path):
    preset = "theory: {only: [mine], mine: {kind: ufm, figure: mine}}"
    assert list(laid_over(tmp_path, preset).theory) == ["mine"]


def test_a_preset_can_take_back_what_a_model_or_theory_experiment_changes(tmp_path):
    params = laid_over(tmp_path, "models: {mse: {train: null}}\ntheory: {b-figure-4: {iterations: null}}\n")
    assert params.resolved("mse").train == params.resolved("explicit").train
    assert params.theory_experiment("b-figure-4").iterations == params.ufm.iterations


@pytest.mark.parametrize(
    ("preset", "words"),
    [
        ("experiments: {bb: null}", ["experiments.bb", "null", "no experiments of that name", "did you mean b?"]),
        ("theory: {only: [low-rang]}", ["theory.only", "'low-rang'", "did you mean low-rank?", "b-figure-1"]),
        ("theory: {only: low-rank}", ["theory.only", "'low-rank'", "list of names"]),
        ("theory: {only: {kind: ufm}}", ["theory.only", "list of names"]),
        ("theory: {only: [[]]}", ["theory.only", "[]"]),
        ("experiments: null", ["experiments", "at least 1"]),
        ("datasets: {only: []}", ["experiments.a.datasets", "digits", "none there"]),
    ],
)
def test_a_name_that_cannot_be_taken_away_or_kept_is_a_fault(tmp_path, preset, words):
    with pytest.raises(EqcollapseError) as caught:
        laid_over(tmp_path, preset)
    lines = str(caught.value).splitlines()
    assert any(all(word in line for word in words) for line in lines), lines


@pytest.mark.parametrize(
    "presets",
    [
        ["theory: null", "theory: {mine: {kind: ufm, figure: mine}}"],
        ["theory: {low-rank: null}", "theory: {low-rank: {kind: ufm, figure: mine}}"],
        ["train: {epochs: 3}\nexperiments: {a: {seeds: [0, 1]}}", "experiments: {a: {seeds: [5]}}"],
        ["models: {only: [deq]}", "models: {only: [mse, ce], ce: null}"],
    ],
)
def test_presets_are_laid_over_each_other_as_snakemake_does(tmp_path, presets):
    """It lays them over each other first, and all of them over params.yaml then."""
    from snakemake.settings.types import ConfigSettings
    from snakemake.utils import update_config

    files = [tmp_path / f"{number}.yaml" for number in range(len(presets))]
    for file, text in zip(files, presets, strict=True):
        file.write_text(text)
    theirs = yaml.safe_load(PARAMS.read_text())
    update_config(theirs, ConfigSettings(configfiles=files).overwrite_config)
    assert read(PARAMS, *files) == theirs


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        ("train={epochs: 5}", "train.epochs", 5),
        ("train={lr: 1e-3, deterministic: false}", "train.lr", 1e-3),
        ("train={lr: 1e-3, deterministic: false}", "train.deterministic", False),
        ("network={bias: False}", "network.bias", False),
        ("train={schedule: {warmup: 0}}", "train.schedule.warmup", 0),
        ("splits={ratios: [10, 2.5]}", "splits.ratios", [10, 2.5]),
        ("splits={majority_classes: [3, 1, 2, 4, 5, 6, 7]}", "splits.majority_classes", list("3124567")),
        ("snapshots={epochs: [1, 4]}", "snapshots.epochs", [1, 4]),
        ("snapshots={epochs: log}", "snapshots.epochs", "log"),
        ("equilibrium={hidden: null}", "equilibrium.hidden", None),
        ("equilibrium={hidden: 16}", "equilibrium.hidden", 16),
        ("ufm={lambda_weights: 0.01}", "ufm.lambda_weights", 0.01),
        ("mirror=null", "mirror", None),
        ("mirror=", "mirror", None),
        ("device=cpu", "device", "cpu"),
    ],
)
def test_numbers_booleans_and_null_are_read_on_the_command_line(words, key, value):
    found = parse(given(words))
    for part in key.split("."):
        found = getattr(found, part)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("words", "section", "names"),
    [
        ("experiments={b: null}", "experiments", ["a"]),
        ("experiments={b: }", "experiments", ["a"]),
        ("experiments={only: [b]}", "experiments", ["b"]),
        ("theory=null", "theory", []),
        ("theory=", "theory", []),
        ("theory={only: []}", "theory", []),
    ],
)
def test_none_and_only_are_read_on_the_command_line(words, section, names):
    assert list(getattr(parse(given(words)), section)) == names


@pytest.mark.parametrize("words", ["train={epochs: 5.0}", "train={epochs: 05}", "train={epochs: 1_0}",
                                   "train={deterministic: yes}", "train={epochs: five}"])  # fmt: skip
def test_text_that_is_no_number_or_boolean_is_refused(words):
    with pytest.raises(EqcollapseError, match=r"params\.yaml: train\.(epochs|deterministic): '.*' is not allowed"):
        parse(given(words))


def test_every_number_and_boolean_of_a_spec_is_read_from_text():
    """The same job, whether its settings were written in YAML or handed over as text."""
    for job in Study(load(PARAMS)):
        assert STAGES[job.stage].parse(as_text(job.settings)) == job.spec


def as_text(value):
    """Return a spec with its numbers, booleans and null as Snakemake's `--config` hands them over."""
    if isinstance(value, dict):
        return {key: as_text(part) for key, part in value.items()}
    if isinstance(value, list):
        return [as_text(part) for part in value]
    return {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value))


def test_settings_that_were_merged_before_are_read_again(tmp_path):
    """The audit hands Snakemake one file of all that was laid over each other."""
    preset = tmp_path / "preset.yaml"
    preset.write_text("experiments: {b: null}\ntheory: null\nmodels: {only: [deq, explicit]}\n")
    merged = tmp_path / "params.yaml"
    merged.write_text(yaml.safe_dump(read(PARAMS, preset)))
    assert load(merged) == load(PARAMS, preset)
