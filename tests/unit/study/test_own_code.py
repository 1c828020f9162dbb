"""Code of the user's own: what is wrong with it is one line before any job, and its digests are its cells'."""

import json
from pathlib import Path

import pytest

from eqcollapse.runtime.errors import EqcollapseError
from eqcollapse.runtime.references import imported_callable, located
from eqcollapse.study import trial
from eqcollapse.study.grid import Study
from eqcollapse.study.own_code import own_files
from eqcollapse.study.params import parse
from eqcollapse.training.trial import fault

NET = """
from torch import nn
from parts_here import block


class Net(nn.Module):
    def __init__(self, channels, num_classes, *, width=8):
        super().__init__()
        self.body = block(channels, width)
        self.fc = nn.Linear(width, num_classes)

    def forward(self, images):
        return self.fc(self.body(images).mean(dim=(2, 3)))
"""
PARTS = """
from torch import nn


def block(before, after):
    return nn.Sequential(nn.Conv2d(before, after, 3, padding=1), nn.ReLU())
"""
LOSS = """
def loss(logits, labels, class_counts, *, scale=1.0):
    return scale * logits.square().mean()


def vector(logits, labels, class_counts):
    return logits.square()


def two(logits, labels):
    return logits.square().mean()


class Wide:
    pass


def wide(channels):
    from torch import nn

    class Layer(nn.Module):
        def forward(self, z, x):
            return x[:1]

    return Layer()


def broken(channels, num_classes):
    raise KeyError("no such thing")
"""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A project's folder with a network of two files, and a loss."""
    for name, text in {"net_here": NET, "parts_here": PARTS, "loss_here": LOSS}.items():
        path = tmp_path / "mine" / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def study(content, folder, monkeypatch) -> dict:
    """A study of three models of which two have code of the user's own."""
    monkeypatch.setattr(trial, "_ask", lambda requests: [None] * len(requests))
    content["theory"] = {}
    content["models"] = {
        "plain": {},
        "net": {"network": {"architecture": "mine/net_here.py:Net"}},
        "loss": {"train": {"loss": "mine/loss_here.py:loss", "loss_options": {"scale": "1e-3"}}},
    }
    one = {"datasets": ["digits"], "splits": ["balanced"], "models": list(content["models"]), "seeds": [0]}
    content["experiments"] = {"x": {**one, "report": "none"}}
    return content


def cells(content: dict) -> dict[str, str]:
    return {job.settings["model"]: job.digest for job in Study(parse(content)).jobs["train"].values()}


@pytest.mark.parametrize(
    ("file", "old", "new", "changed"),
    [
        ("net_here", "nn.Linear(width", "nn.Linear(width + 0", {"net"}),
        ("parts_here", "padding=1", "padding=2", {"net"}),
        ("loss_here", "square()", "abs()", {"loss"}),
        ("net_here", "\nfrom torch", "\n# why\nfrom torch", set()),
        ("parts_here", "def block(before, after):", 'def block(before, after):\n    """Say."""', set()),
    ],
)
def test_an_edit_changes_the_digests_of_its_cells_alone(study, folder, file, old, new, changed):
    before = cells(study)
    path = folder / "mine" / f"{file}.py"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    after = cells(study)
    assert {model for model in before if before[model] != after[model]} == changed


def test_a_frozen_plan_keeps_the_digests_of_its_cells(study, folder):
    planned = Study(parse(study))
    frozen = json.loads(json.dumps(planned.own))
    path = folder / "mine/parts_here.py"
    path.write_text(path.read_text().replace("padding=1", "padding=2"))
    again = Study(parse(study), planned.code, frozen)
    assert list(again.jobs["train"]) == list(planned.jobs["train"])
    assert list(Study(parse(study)).jobs["train"]) != list(planned.jobs["train"])


def test_options_of_another_choice_do_not_carry_over(study):
    study["network"] |= {"architecture": "mlp", "options": {"width": 32}}
    params = parse(study)
    assert params.resolved("plain").network.options == {"width": 32, "depth": 3}
    assert params.resolved("net").network.options == {}
    assert params.resolved("loss").train.loss_options == {"scale": 0.001}


def test_modules_of_a_package_are_found_beside_and_above_it(folder):
    package = folder / "pack" / "inner"
    package.mkdir(parents=True)
    (folder / "pack/__init__.py").write_text("ONE = 1\n")
    (package / "__init__.py").write_text("")
    (package / "net.py").write_text("from . import core\nfrom ..other import thing\nimport json\nNet = core.Net\n")
    (package / "core.py").write_text("Net = dict\n")
    (folder / "pack/other.py").write_text("thing = 1\n")
    (folder / "pack/unread.py").write_text("thing = 2\n")
    assert set(own_files("pack.inner.net:Net")) == {
        f"pack/{name}" for name in ("__init__.py", "inner/__init__.py", "inner/net.py", "inner/core.py", "other.py")
    }
    assert imported_callable("pack.inner.net:Net") is dict


def test_an_installed_package_counts_by_its_version(folder):
    from importlib.metadata import version

    assert own_files("torchvision.models.resnet:resnet18") == {"torchvision": version("torchvision")}
    assert own_files("sklearn.cluster:KMeans") == {"sklearn": version("scikit-learn")}


def test_what_it_imports_of_ours_beyond_training_counts_too(folder):
    (folder / "mine/more_here.py").write_text(
        "from eqcollapse.theory.distances import *\nfrom torch import nn\nNet = nn\n"
    )
    files = own_files("mine/more_here.py:Net")
    assert any(name.endswith("theory/distances.py") for name in files)
    assert not any(name.endswith("networks/resnet.py") for name in files)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("mine/nett.py:Net", "there is no file mine/nett.py"),
        ("mine/net_here.py", "must be path/to/file.py:Name"),
        ("mine/net_here.py:Nett", "net_here.py has no Nett (did you mean Net?)"),
        ("/etc/net.py:Net", "relative to the project's folder and inside it"),
        ("../net.py:Net", "relative to the project's folder and inside it"),
        ("mine/my-net.py:Net", "not named as a Python module is"),
        ("no_such_module:Net", "there is no module no_such_module here or installed"),
        ("torch.no_such:Net", "there is no module torch.no_such here or installed"),
        ("math:Net", "is no module of Python source"),
        ("mine/torn_here.py:Net", "torn_here.py, line 2 is not Python"),
    ],
)
def test_a_path_that_is_wrong_is_one_line(study, folder, text, words):
    (folder / "mine/torn_here.py").write_text("x = 1\ndef f(:\n")
    (folder / "mine/my-net.py").write_text("Net = 1\n")
    study["models"]["net"] = {"network": {"architecture": text}}
    with pytest.raises(EqcollapseError) as caught:
        parse(study)
    (line,) = str(caught.value).splitlines()
    assert line.startswith("params.yaml: network.architecture (model net): ")
    assert words in line


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"network": {"architecture": "resnet17"}}, ["network.architecture (model net)", "did you mean resnet1"]),
        ({"network": {"cut": "x", "head": "equilibrium"}}, ["network.cut (model net)", "network.stages"]),
        ({"network": {"architecture": "resnet18", "head": "equilibrium"}}, ["network.cut (model net)", "null"]),
        (
            {"network": {"classifier": "etf", "width": 2, "stages": 2}},
            ["network.classifier", "9 dim", "= 4"],
        ),
        (
            {"network": {"classifier": "cosine"}, "train": {"feature_decay": 1.0}},
            ["train.feature_decay (model net)", "norm 1"],
        ),
        ({"train": {"loss": "focale"}}, ["models.net.train.loss", "did you mean focal?", "'ldam'", "path/to/file.py"]),
        ({"train": {"loss": "focal", "loss_options": {"gama": 1}}}, ["loss_options", "gama is no option", "gamma"]),
        ({"train": {"optimizer": "adamw", "optimizer_options": {"beta2": 2}}}, ["optimizer_options", "beta2"]),
        ({"network": {"architecture": "mlp", "options": {"depth": 0}}}, ["network.options", "depth"]),
        ({"equilibrium": {"options": {"a": 1}}}, ["equilibrium.options", "a is no option"]),
        ({"train": {"optimizer": "nesterov", "momentum": 0}}, ["momentum: 0", "nesterov"]),
    ],
)
def test_what_cannot_work_is_one_line(study, change, words):
    study["models"]["net"] = change
    with pytest.raises(EqcollapseError) as caught:
        parse(study)
    (line,) = str(caught.value).splitlines()
    assert all(word in line for word in words), line


def test_an_option_of_a_section_that_is_wrong_is_said_once(study):
    study["train"]["loss_options"] = {"gamma": 1}
    with pytest.raises(EqcollapseError) as caught:
        parse(study)
    assert str(caught.value) == (
        "params.yaml: train.loss_options: gamma is no option of ce; known: class_balanced, deferred, label_smoothing"
    )


def asked(content: dict, change: dict, **more) -> dict:
    content["models"]["tried"] = change
    model = parse(content).resolved("tried")
    request = trial.request(model, (1, 8, 8), 10)
    assert request is not None
    return request | more


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"network": {"architecture": "mine/net_here.py:Net", "options": {"width": 4}}}, None),
        ({"network": {"architecture": "mine/net_here.py:Net", "head": "equilibrium", "cut": "body"}}, None),
        ({"train": {"loss": "mine/loss_here.py:loss"}}, None),
        (
            {"network": {"architecture": "mine/net_here.py:Net", "options": {"wide": 4}}},
            "network.architecture: mine/net_here.py:Net is called with (channels, num_classes, wide=...)",
        ),
        (
            {"network": {"architecture": "mine/loss_here.py:broken"}},
            "network.architecture: KeyError: 'no such thing' (mine/loss_here.py, line ",
        ),
        (
            {"network": {"architecture": "mine/loss_here.py:Wide"}},
            "network.architecture: mine/loss_here.py:Wide is called with (channels, num_classes)",
        ),
        (
            {"network": {"architecture": "mine/net_here.py:Net", "head": "equilibrium", "cut": "bodi"}},
            "network.cut: 'bodi' is no submodule of the network (did you mean body?)",
        ),
        (
            {"network": {"head": "equilibrium"}, "equilibrium": {"layer": "mine/loss_here.py:wide"}},
            "equilibrium.layer: f(z, x) must have the shape of z",
        ),
        (
            {"train": {"loss": "mine/loss_here.py:two"}},
            "train.loss: mine/loss_here.py:two is called with (logits, labels, class_counts)",
        ),
        (
            {"train": {"loss": "mine/loss_here.py:vector"}},
            "train.loss: mine/loss_here.py:vector must return one number",
        ),
        (
            {"network": {"architecture": "mine/net_here.py:Net"}, "snapshots": {"layers": ["bod"]}},
            "snapshots.layers: the model has no layers encoder.network.bod",
        ),
        ({"network": {"architecture": "squeezenet1_1"}}, "network.architecture: "),
    ],
)
def test_a_trial_finds_what_training_would_run_into(study, monkeypatch, folder, change, words):
    monkeypatch.syspath_prepend(folder / "mine")
    for name in ("net_here", "parts_here", "loss_here"):  # of another test's folder
        monkeypatch.delitem(__import__("sys").modules, name, raising=False)
    found = fault(asked(study, change))
    if words is None:
        assert found is None
    else:
        assert found is not None
        assert found.startswith(words), found
        assert "\n" not in found


def test_what_passed_is_not_tried_again_until_it_changes(study, folder, monkeypatch):
    tried = []
    monkeypatch.setattr(trial, "_ask", lambda requests: tried.append(len(requests)) or [None] * len(requests))
    parse(study)
    parse(study)
    assert tried == [2]
    path = folder / "mine/parts_here.py"
    path.write_text(path.read_text().replace("padding=1", "padding=2"))
    parse(study)
    assert tried == [2, 1]


def test_what_failed_is_tried_each_time(study, monkeypatch):
    monkeypatch.setattr(trial, "_ask", lambda requests: ["network.architecture: no"] * len(requests))
    for _ in range(2):
        with pytest.raises(EqcollapseError, match=r"network\.architecture \(model loss\): no"):
            parse(study)


def test_the_default_study_needs_no_trial(content, monkeypatch):
    monkeypatch.setattr(trial, "_ask", lambda requests: pytest.fail("a trial"))
    parse(content)


def test_torchvisions_names_are_torchvisions():
    from torchvision import models

    assert trial.torchvision_classifiers() == sorted(models.list_models(module=models))


@pytest.mark.slow
def test_a_trial_in_its_own_process(content, folder):
    content["models"] |= {"mine": {"network": {"architecture": "mine/net_here.py:Net"}}}
    content["experiments"]["a"]["models"].append("mine")
    parse(content)
    content["models"]["mine"]["network"]["options"] = {"wide": 1}
    with pytest.raises(EqcollapseError) as caught:
        parse(content)
    assert len(str(caught.value).splitlines()) == 1
    assert "network.architecture (model mine): mine/net_here.py:Net is called with" in str(caught.value)


def test_a_module_of_the_same_name_is_said(folder):
    (folder / "mine/random.py").write_text("Net = dict\n")
    assert located("mine/random.py:Net").module == "random"
    with pytest.raises(EqcollapseError, match=r"another module is named random .*: rename the file"):
        imported_callable("mine/random.py:Net")
