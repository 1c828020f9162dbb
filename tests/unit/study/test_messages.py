"""A name that nobody knows is answered with those that there are, the nearest first; a sha256, with how to get it."""

from contextlib import suppress

import pytest

from eqcollapse.cli.main import main
from eqcollapse.runtime.errors import EqcollapseError
from eqcollapse.study.mappings import merged
from eqcollapse.study.params import parse


def said(content: dict, change: dict) -> str:
    """Return the one line that is said of params.yaml with `change` laid over it."""
    with pytest.raises(EqcollapseError) as caught:
        parse(merged(content, change))
    (line,) = str(caught.value).splitlines()
    return line


@pytest.mark.parametrize(
    ("change", "near"),
    [
        ({"train": {"epoch": 5}}, "epochs"),
        ({"trian": {}}, "train"),
        ({"train": {"schedule": {"warm_up": 5}}}, "warmup"),
        ({"models": {"deq": {"network": {"heads": "x"}}}}, "head"),
        ({"theory": {"b-figure-1": {"iteration": 5}}}, "iterations"),
        ({"models": {"deq": {"network": {"head": "equilibrum"}}}}, "equilibrium"),
        ({"equilibrium": {"forward": {"method": "Andersen"}}}, "anderson"),
        ({"theory": {"b-figure-1": {"kind": "layer_peel"}}}, "layer_peeled"),
        ({"datasets": {"digits": {"source": "digit"}}}, "digits"),
        ({"experiments": {"a": {"models": ["dek"]}}}, "deq"),
        ({"experiments": {"a": {"datasets": ["digit"]}}}, "digits"),
        ({"experiments": {"a": {"splits": ["imbalance"]}}}, "imbalanced"),
        ({"experiments": {"a": {"report": "selections"}}}, "selection"),
        ({"device": "gpu"}, None),  # which is near to cpu as text, and means cuda
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(content, change, near):
    line = said(content, change)
    assert ("did you mean" in line) == (near is not None)
    assert near is None or f"did you mean {near}?" in line
    assert line.count("'cpu'") == (near is None)


@pytest.mark.parametrize(
    ("words", "near"),
    [(["chek"], "check"), (["confirm", "trian"], "train"), (["train", "--device", "cudda"], "cuda")],
)
def test_a_mistyped_command_is_answered_with_the_nearest(words, near, capsys):
    with suppress(SystemExit):
        assert main(words) != 0
    assert f"did you mean {near}?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"sha256": None},
            "sha256: is needed where source is imagefolder (printed by `python -m eqcollapse hash own`)",
        ),
        ({"sha256": "abc"}, "must be the 64 digits that `python -m eqcollapse hash PATH` prints"),
        ({"path": None}, "{train,test}/<class>/<image>"),
        ({"classes": None}, "how many folders train/ has"),
    ],
)
def test_what_own_images_lack_is_said_with_how_to_get_it(content, change, words):
    own = {"source": "imagefolder", "path": "own", "sha256": "0" * 64, "classes": 10}
    assert words in said(content, {"datasets": {"own": {**own, **change}}})
