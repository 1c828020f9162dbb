"""The attic is listed by settings, size and age, and emptied on request only."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from eqcollapse.pipeline import attic
from eqcollapse.runtime.errors import EqcollapseError

CELL = ".attic/results/runs/digits/balanced/deq/seed-0@{digest}"


@pytest.fixture
def aside(tmp_path, monkeypatch) -> Path:
    """Two cells that differ in lr, a split and a figure, made 40, 10, 5 and 0 days ago."""
    monkeypatch.chdir(tmp_path)
    _cell("aaaaaaaaaa", 0.05, days=40)
    _cell("bbbbbbbbbb", 0.01, days=10)
    split = ".attic/results/splits/digits/balanced@cccccccccc.csv"
    _write(split, "index\n", 5)
    _write(f"{split}.provenance.json", _record("splits", {"seed": 1}), 5)
    for suffix in ("pdf", "png", "provenance.json"):
        content = _record("figure", {"kind": "curves"}) if suffix.endswith("json") else "x"
        _write(f".attic/@dddddddddd/results/figures/a-figure-3.{suffix}", content, 0)
    return tmp_path


def _cell(digest: str, lr: float, days: float) -> None:
    folder = CELL.format(digest=digest)
    _write(f"{folder}/model.safetensors", "x" * 1000, days)
    _write(f"{folder}/provenance.json", _record("train", {"seed": 0, "train": {"lr": lr, "epochs": 2}}), days)


def _record(stage: str, spec: dict) -> str:
    return json.dumps({"stage": stage, "spec": spec})


def _write(path: str, content: str, days: float) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(content)
    then = time.time() - days * 86400
    os.utime(path, (then, then))


def test_an_empty_attic(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert attic.report([]) == ".attic: nothing lies there"


def test_items_are_jobs_oldest_first(aside):
    found = attic.items()
    assert [item.stage for item in found] == ["train", "train", "splits", "figure"]
    assert [item.name for item in found] == [
        "results/runs/digits/balanced/deq/seed-0@aaaaaaaaaa",
        "results/runs/digits/balanced/deq/seed-0@bbbbbbbbbb",
        "results/splits/digits/balanced@cccccccccc.csv",
        "results/figures/a-figure-3@dddddddddd",
    ]
    assert [len(item.files) for item in found] == [2, 2, 2, 3]
    assert found[0].size == sum(file.stat().st_size for file in found[0].files)
    assert found[0].age == pytest.approx(40 * 86400, abs=60)


def test_the_settings_are_told_where_they_differ(aside):
    lines = attic.report([]).splitlines()
    assert lines[0].endswith("train.lr=0.05")
    assert lines[1].endswith("train.lr=0.01")
    assert "40d" in lines[0]
    assert "1.1 kB" in lines[0]
    assert lines[-1].startswith("4 results, ")


def test_only_what_is_chosen_is_deleted(aside):
    said = attic.report(["results/runs/*"], older_than="30d", delete=True)
    assert said.endswith("deleted")
    assert not Path(CELL.format(digest="aaaaaaaaaa")).exists()
    assert len(attic.items()) == 3
    attic.report([], delete=True)
    assert not Path(".attic").exists()


def test_listing_deletes_nothing(aside):
    attic.report(["*"], older_than="1h")
    assert len(attic.items()) == 4


def test_nothing_of_that_kind(aside):
    assert attic.report(["results/theory/*"], delete=True) == ".attic: nothing of that kind lies there"


@pytest.mark.parametrize("text", ["30", "d", "-1d", "3y"])
def test_an_age_that_is_none(aside, text):
    with pytest.raises(EqcollapseError, match="is not an age: write 12h, 30d or 2w"):
        attic.report([], older_than=text)


def test_a_broken_record_is_listed_all_the_same(aside):
    Path(CELL.format(digest="aaaaaaaaaa"), "provenance.json").write_text("{")
    assert attic.items()[0].stage in {"?", "train"}
    assert len(attic.items()) == 4


def test_links_are_listed_and_deleted_without_what_they_lead_to(aside, tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "model.safetensors").write_text("x")
    Path(CELL.format(digest="aaaaaaaaaa"), "features.safetensors").symlink_to("nowhere")
    Path(CELL.format(digest="eeeeeeeeee")).symlink_to(kept)
    assert len(attic.items()) == 5
    attic.report([], delete=True)
    assert not Path(".attic").exists()
    assert (kept / "model.safetensors").exists()


def test_the_command_line(aside):
    words = [sys.executable, "-m", "eqcollapse", "attic", "*seed-0*"]
    answer = subprocess.run(words, capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines()[-1].startswith("2 results, ")
