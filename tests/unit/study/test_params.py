"""A fault in params.yaml is a line that names the key, the value and what is allowed."""

import copy
from pathlib import Path

import pytest
import yaml

from eqcollapse.runtime.errors import EqcollapseError
from eqcollapse.study.grid import Study
from eqcollapse.study.params import load, parse

ROOT = Path(__file__).parents[3]


def put(content: dict, key: str, value: object) -> dict:
    """Set the leaf `a.b.c` of a nested mapping."""
    *above, last = key.split(".")
    for part in above:
        content = content[part]
    content[last] = value
    return content


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("train.lr", -1, ["train.lr", "-1", "greater than 0"]),
        ("train.lr", 0, ["train.lr", "greater than 0"]),
        ("train.lr", "fast", ["train.lr", "'fast'", "number"]),
        ("train.lr", True, ["train.lr", "True", "number"]),
        ("train.lr", float("nan"), ["train.lr", "finite"]),
        ("train.epochs", 1.5, ["train.epochs", "integer"]),
        ("train.epochs", True, ["train.epochs", "integer"]),
        ("train.momentun", 0.9, ["train.momentun", "not a key", "0.9", "momentum"]),
        ("train.momentum", 1, ["train.momentum", "less than 1"]),
        ("splits.majority", [10], ["splits.majority", "10", "1 to 9"]),
        ("splits.majority", [0], ["splits.majority", "greater than or equal to 1"]),
        ("splits.ratios", [0.5], ["splits.ratios", "0.5", "greater than or equal to 1"]),
        ("splits.ratios", [], ["splits.ratios", "at least 1"]),
        ("splits.ratios", [1e7], ["splits.ratios", "1000000"]),
        ("splits.ratios", [10, 10.0], ["splits.ratios", "2 times"]),
        ("splits.majority", [], ["splits.majority", "at least 1"]),
        ("splits.majority_classes", "last", ["splits.majority_classes", "'last'", "'first'"]),
        ("splits.majority_classes", ["seven"], ["splits.majority_classes: 'seven'", "no class of digits", "0, 1"]),
        ("splits.majority_classes", ["12"], ["splits.majority_classes: '12'", "no class of digits"]),
        ("splits.majority_classes", [0, 0, 1], ["splits.majority_classes", "different"]),
        ("splits.seed", "own", ["splits.seed:", "'own'", "'run'", "integer"]),
        ("splits.seed", -1, ["splits.seed:", "-1", "'run'", "greater than or equal to 0"]),
        ("splits.validation", 1.0, ["splits.validation", "less than 1"]),
        ("datasets.digits.source", "digitz", ["datasets.digits.source", "'digitz'", "'imagefolder'"]),
        ("datasets.digits.path", "x.tar", ["datasets.digits", "path", "imagefolder"]),
        ("datasets.mine", {"source": "imagefolder"}, ["datasets.mine", "path", "imagefolder"]),
        ("equilibrium.forward.method", "newton", ["equilibrium.forward.method", "'newton'", "'anderson'"]),
        (
            "equilibrium.forward.max_iter",
            0,
            ["equilibrium.forward.max_iter", "0", "greater than or equal to 1"],
        ),
        ("snapshots.epochs", [1, 999], ["snapshots.epochs", "999", "train.epochs = "]),
        ("experiments", {}, ["experiments", "at least 1"]),
        ("experiments.a.models", [], ["experiments.a.models", "at least 1"]),
        ("experiments.a.models", ["deq", "resnet"], ["experiments.a.models", "'resnet'", "deq"]),
        ("experiments.a.splits", ["longtail-0"], ["experiments.a.splits", "'longtail-0'", "longtail-100"]),
        ("experiments.a.splits", ["ldam-100"], ["experiments.a.splits", "'ldam-100'", "digits", "cifar10"]),
        ("experiments.a.datasets", ["svhn"], ["experiments.a.datasets", "'svhn'", "digits"]),
        ("experiments.a.seeds", [0, 0], ["experiments.a.seeds", "2 times"]),
        ("experiments.a.splits", ["ka3"], ["experiments.a.splits", "'ka3'", "ka3-r10"]),
        ("experiments.a.splits", ["ka12-r10"], ["experiments.a.splits", "12", "1 to 9"]),
        (
            "models.deq",
            {"network": {"head": "implicit"}},
            ["models.deq.network.head", "'implicit'", "'equilibrium'"],
        ),
        ("models.deq", {"solver": {}}, ["models.deq.solver", "not a key"]),
        ("experiments.a.splits", ["ka03-r10"], ["experiments.a.splits", "'ka03-r10'", "ka3-r10"]),
        ("snapshots.epochs", "all", ["snapshots.epochs", "'all'", "'log', or must be a valid list"]),
        ("snapshots.epochs", [], ["snapshots.epochs", "at least 1"]),
        ("train.schedule.warmup", 999, ["train", "warmup: 999", "train.epochs = "]),
        ("theory.b-figure-1.lambda_weights", 0, ["theory.b-figure-1.lambda_weights: 0", "greater than 0"]),
        ("theory.b-figure-1.kind", "x", ["theory.b-figure-1", "'ufm'", "'layer_peeled'"]),
        ("theory.b-figure-1.figure", "b-figure-2", ["theory.b-figure-2.figure", "b-figure-1"]),
        ("theory.b-figure-1.seeds", [0, 0], ["theory.b-figure-1.seeds", "2 times"]),
        ("train", 3, ["train", "3", "mapping"]),
        ("device", "tpu", ["device", "'tpu'", "'cuda'"]),
    ],
)
def test_a_bad_value_is_named(content, key, value, words):
    put(content, key, value)
    with pytest.raises(EqcollapseError) as caught:
        parse(content)
    lines = str(caught.value).splitlines()
    assert any(all(word in line for word in ["params.yaml", *words]) for line in lines), lines


def test_a_missing_key_is_named(content):
    del content["train"]["lr"]
    with pytest.raises(EqcollapseError, match=r"params\.yaml: train\.lr: is missing"):
        parse(content)


def test_every_fault_has_its_line(content):
    put(content, "train.lr", -1)
    put(content, "splits.seed", "x")
    with pytest.raises(EqcollapseError) as caught:
        parse(content)
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(
    "text",
    [
        "a: " + ":".join(["59"] * 9000),
        "a: 0" + "7" * 9000,
        "mirror: 0x" + "f" * 9000,
        f"{'k' * 900}: 1\n{'k' * 900}: 2",
        f"? {'k' * 9000}\n: 1",
        f"models: {{? {'k' * 9000}\n : 1}}",
        "experiments: {a: {seeds: [" + "-1, " * 9000 + "]}}",
        "a: 1\n" * 90_000,
    ],
    ids=lambda text: text[:20],
)
def test_long_values_and_many_faults_are_cut_short(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(EqcollapseError) as caught:
        load(path)
    lines = str(caught.value).splitlines()
    assert len(lines) <= 51
    assert max(map(len, lines)) < 600
    assert all(line.startswith(str(path)) for line in lines)


@pytest.mark.parametrize("text", ["", "[1, 2]", "3", "a: [", "\x00", "train: 1"])
def test_what_is_no_params_file_is_refused(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(EqcollapseError, match=r"params\.yaml"):
        load(path)


def test_numbers_as_yaml_1_2_writes_them(content):
    text = yaml.safe_dump(content).replace("lr: 0.1\n", "lr: 5e-2\n", 1)
    assert yaml.safe_load(text)["train"]["lr"] == "5e-2"  # what PyYAML makes of it
    assert parse(yaml.safe_load(text)).train.lr == 0.05


def test_a_model_changes_only_what_it_names(content):
    content["models"]["mse"] = {
        "train": {"loss": "mse", "schedule": {"kind": "step"}},
        "network": {"bias": False},
    }
    params = parse(content)
    model, base = params.resolved("mse"), params.resolved("explicit")
    assert (model.train.loss, model.train.schedule.kind, model.network.bias) == ("mse", "step", False)
    assert model.train.lr == base.train.lr
    assert model.train.schedule.every == base.train.schedule.every


def test_one_fault_is_one_line(content):
    for key, value in (("snapshots.epochs", 5), ("splits.majority_classes", "last"), ("train.lr", "x")):
        fresh = copy.deepcopy(content)
        put(fresh, key, value)
        with pytest.raises(EqcollapseError) as caught:
            parse(fresh)
        assert len(str(caught.value).splitlines()) == 1


def test_a_figure_of_an_experiment_is_not_drawn_over(content):
    content["theory"]["b-figure-1"]["figure"] = "a-figure-3-digits"
    with pytest.raises(EqcollapseError, match="a-figure-3-digits"):
        Study(parse(content))


def test_a_ratio_is_named_to_its_last_digit(content):
    content["splits"]["ratios"] = [12.345678, 100000]
    names = {job.spec.split: job.spec.ratio for job in Study(parse(content)).jobs["splits"].values()}
    assert names["ka3-r12.345678"] == 12.345678
    assert names["ka3-r100000"] == 100000


def test_a_preset_is_laid_over_params_and_named_in_faults(tmp_path):
    preset = tmp_path / "preset.yaml"
    preset.write_text("train: {lr: 0.01}\nexperiments: {a: {seeds: [4]}}\n")
    params = load(ROOT / "params.yaml", preset)
    assert params.train.lr == 0.01
    assert params.experiments["a"].seeds == [4]
    assert params.train.epochs == load(ROOT / "params.yaml").train.epochs
    preset.write_text("train: {lr: -1}\n")
    with pytest.raises(EqcollapseError, match=r"params\.yaml with .*preset\.yaml: train\.lr: -1"):
        load(ROOT / "params.yaml", preset)
    preset.write_text("- 1\n")
    with pytest.raises(EqcollapseError, match=r"preset\.yaml: must be a mapping"):
        load(ROOT / "params.yaml", preset)


@pytest.mark.parametrize("name", ["ka" + "9" * 5000 + "-r1", "ka3-r" + "9" * 400, "ka3-r10.00000000001"])
def test_names_of_splits_are_short(content, name):
    content["experiments"]["a"]["splits"] = [name]
    with pytest.raises(EqcollapseError, match=r"experiments\.a\.splits: .* is not allowed"):
        parse(content)


@pytest.mark.parametrize(
    ("experiments", "words"), [(1, "experiments.x0: 22000 cells are"), (22, "experiments: 22000 cells together are")]
)
def test_the_cells_of_all_experiments_are_bounded(content, experiments, words):
    """A study of many experiments fills the memory like one large one."""
    content["experiments"] = with_cells(experiments, 22_000 // experiments)
    with pytest.raises(EqcollapseError, match=rf"^params\.yaml: {words} not allowed: at most 20000$"):
        parse(content)
    content["experiments"] = with_cells(20, 1000)
    assert parse(content)


def with_cells(experiments: int, cells: int) -> dict:
    """Return so many experiments of so many cells each."""
    one = {"datasets": ["digits"], "splits": ["balanced"], "models": ["deq"], "report": "none"}
    return {f"x{number}": {**one, "seeds": list(range(cells))} for number in range(experiments)}
