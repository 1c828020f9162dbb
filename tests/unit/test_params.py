"""A fault in params.yaml is a line that names the key, the value and what is allowed."""

import pytest
import yaml

from eqcollapse.errors import EqcollapseError
from eqcollapse.params import load, parse


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
        ("train.momentun", 0.9, ["train.momentun", "not a key"]),
        ("train.momentum", 1, ["train.momentum", "less than 1"]),
        ("splits.majority", [10], ["splits.majority", "10", "1 to 9"]),
        ("splits.majority", [0], ["splits.majority", "greater than or equal to 1"]),
        ("splits.ratios", [0.5], ["splits.ratios", "0.5", "greater than or equal to 1"]),
        ("splits.ratios", [], ["splits.ratios", "empty grid"]),
        ("splits.majority_classes", "last", ["splits.majority_classes", "'last'", "'first'"]),
        ("splits.majority_classes", [0, 0, 1], ["splits.majority_classes", "different"]),
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
        ("snapshots.epochs", [1, 26], ["snapshots.epochs", "26", "train.epochs = 25"]),
        ("experiments", {}, ["experiments", "at least 1"]),
        ("experiments.a.models", [], ["experiments.a.models", "at least 1"]),
        ("experiments.a.models", ["deq", "resnet"], ["experiments.a.models", "'resnet'", "deq"]),
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


@pytest.mark.parametrize("text", ["", "[1, 2]", "3", "a: [", "\x00", "train: 1"])
def test_what_is_no_params_file_is_refused(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(EqcollapseError, match=r"params\.yaml"):
        load(path)


def test_numbers_as_yaml_1_2_writes_them(content):
    text = yaml.safe_dump(content).replace("lr: 0.05", "lr: 5e-2")
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
