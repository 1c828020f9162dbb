"""A caption is held to the kind of a table or figure and to what it is made from, whatever it is called."""

import re

import pytest

from eqcollapse.study.grid import Study
from eqcollapse.study.mappings import merged
from eqcollapse.study.params import load, parse


def captions(content: dict, change: dict | None = None) -> dict[str, str]:
    """Return the captions of all tables and figures, by name."""
    study = Study(parse(merged(content, change or {})))
    jobs = [*study.jobs["table"].values(), *study.jobs["figure"].values()]
    return {job.path.rpartition("/")[2].rpartition(".")[0]: job.caption for job in jobs}


def test_every_table_and_figure_has_one(content):
    for name, text in captions(content).items():
        assert text.endswith("."), name
        assert "{" not in text


@pytest.fixture(scope="module")
def papers_own() -> dict[str, str]:
    """The captions of the study with the papers' own data."""
    study = Study(load("params.yaml", "workflow/presets/paper.yaml"))
    jobs = [*study.jobs["table"].values(), *study.jobs["figure"].values()]
    return {job.path.rpartition("/")[2].rpartition(".")[0]: job.caption for job in jobs}


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("a-figure-2-cifar10", "Paper A, figure 2: "),
        ("a-figure-3-cifar10", "Paper A, figure 3: "),
        ("a-figure-appendix-cifar10-ka3", "Paper A, appendix: .*for KA = 3"),
        ("a-table-1", "Paper A, table 1: "),
        ("a-table-2", "Paper A, table 2: "),
        ("a-table-4", "Paper A, table 4: "),
        ("b-figure-5", "Paper B, figure 5: "),
        ("b-figure-appendix-g-cifar10", "Paper B, appendix G: "),
        ("b-figure-1", "Paper B, figure 1: "),
        ("b-figure-4", "Paper B, figure 4: "),
    ],
)
def test_what_a_paper_has_has_its_number(papers_own, name, start):
    assert re.match(start, papers_own[name])


@pytest.mark.parametrize(
    "name",
    ["b-figure-3-free-bias", "b-figure-4-free-bias", "b-figure-1-cross-entropy", "b-figure-low-rank",
     "a-figure-theory", "a-figure-solver-digits", "theory", "a-solver"],
)  # fmt: skip
def test_what_the_papers_do_not_have_is_credited_to_none(content, name):
    text = captions(content)[name]
    assert text.endswith("Not in the papers.")
    assert not re.search(r"Paper [AB]|As .* of paper", text)


@pytest.mark.parametrize("name", ["a-figure-2-digits", "a-figure-3-digits", "a-table-1", "a-table-2", "b-figure-5"])
def test_other_data_than_the_papers_are_not_theirs(content, name):
    assert re.match(r"As (appendix|figure|tables?) .*of paper [AB]", captions(content)[name])


def test_a_name_changes_nothing(content):
    """A network's curves in an experiment called b, a theory figure called a-figure-3-x."""
    before = captions(content)
    moved = dict(content["experiments"])
    moved["b"], moved["z"] = moved["a"], moved["b"]
    after = captions({**content, "experiments": {"b": moved["b"], "z": moved["z"]}})
    assert after["b-figure-3-digits"] == before["a-figure-3-digits"]
    assert after["z-figure-5"] == before["b-figure-5"]
    renamed = captions(content, {"theory": {"linear-free-bias": {"figure": "a-figure-3-x"}}})
    assert renamed["a-figure-3-x"] == before["b-figure-3-free-bias"]
    assert "accuracy" not in renamed["a-figure-3-x"]


@pytest.mark.parametrize("change", [{"num_classes": 6}, {"lambda_weights": 0.01}, {"per_class": 10}])
def test_other_constants_than_the_papers_are_said(content, change):
    text = captions(content, {"theory": {"b-figure-1": change}})["b-figure-1"]
    assert text.startswith("As figure 1 of paper B, with other constants: ")


def test_long_tails_are_not_in_the_papers(content):
    change = {"experiments": {"a": {"splits": ["balanced", "longtail-10", "longtail-100"]}}}
    texts = captions(content, change)
    for name in ("a-table-longtail", "a-figure-appendix-digits-longtail"):
        assert texts[name].endswith("Not in the papers.")
        assert "long tails" in texts[name]
