"""A job's command line in its record, in Snakemake's plan and in what `explain` prints: one and the same."""

import io
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from eqcollapse.cli.main import main
from eqcollapse.provenance.chain import typed
from eqcollapse.provenance.dag import recorded_command
from eqcollapse.provenance.reading import Record
from eqcollapse.report.tables import job as tables


def record(inputs: list[str]) -> Record:
    """Return the part of a record that a command is printed from."""
    words = ["python", "-m", "eqcollapse", "collapse", "--spec", '{"a": "b c"}', "--inputs", *inputs]
    return Record("r", {"command": [*words, "--outputs", "o"], "inputs": [{"path": path} for path in inputs]})


def run(folder: Path, words: list[str]) -> str:
    """Run words by a shell in which `python` says what it was given."""
    folder.mkdir(exist_ok=True)
    (folder / "python").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\ncase " $* " in *" - "*) echo piped; cat;; esac\n')
    (folder / "python").chmod(0o755)
    (folder / "script").write_text(" ".join(words))
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    answer = subprocess.run(["sh", folder / "script"], env={"PATH": path}, capture_output=True, text=True, check=True)
    return answer.stdout


def test_a_short_command_is_typed_as_recorded(tmp_path):
    known = record(["a b", "c"])
    assert run(tmp_path / "bin", typed(known)).splitlines() == known.content["command"][1:]


def test_the_names_of_many_cells_come_by_a_pipe(tmp_path):
    inputs = [f"results/runs/d/balanced/m/seed-{seed}@0123456789/history.csv" for seed in range(40_000)]
    known = record(inputs)
    said, _, piped = run(tmp_path / "bin", typed(known)).partition("piped\n")
    assert piped.splitlines() == inputs
    assert said.splitlines()[:3] == ["-m", "eqcollapse", "collapse"]
    assert said.splitlines()[-4:] == ["--inputs", "-", "--outputs", "o"]


def test_a_planned_command_counts_what_is_piped_as_given():
    words = "printf '%s\\n' a b | PYTHONPATH=src python -m eqcollapse collapse --inputs - --outputs o > log 2>&1"
    known = "python -m eqcollapse collapse --inputs a b --outputs o"
    assert recorded_command(words) == tuple(shlex.split(known))


@pytest.mark.parametrize(
    "words",
    [
        "{}; touch x",
        "touch x; {}",
        "{} && touch x",
        "{}\n\ntouch x",
        "PYTHONPATH=mine:src {}",
        "{} --spec $(touch x)",
        "{} --spec `touch x`",
        "{} --inputs *",
        "cat a | {}",
        "printf 'b\\n' a | {}",
        "{} | sh",
        "{} > x",
    ],
)
@pytest.mark.parametrize("kept", ["> log 2>&1", "2>&1 | tee log"])
def test_a_command_that_does_more_is_that_of_no_record(words, kept):
    spec = """'{"a":"b'"'"'c"}'"""
    call = f"PYTHONPATH=src python -m eqcollapse page --digest 0 --spec {spec}  --inputs a --outputs o {kept}"
    plain = recorded_command(call)
    assert plain[:4] == ("python", "-m", "eqcollapse", "page")
    assert json.loads(plain[7]) == {"a": "b'c"}
    assert plain[-2:] == ("--outputs", "o")
    altered = words.format(call)
    assert recorded_command(altered) == (altered,)


@pytest.mark.parametrize(("words", "typed"), [(["a.csv", "b.csv"], ""), (["-"], "a.csv\nb.csv\n")])
def test_inputs_by_standard_input_are_recorded_as_those_on_the_command_line(tmp_path, monkeypatch, words, typed):
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_text("a")
    Path("b.csv").write_text("b")
    seen = []

    def run(spec, inputs, outputs):
        seen.extend(inputs)
        for file in outputs:
            Path(file).write_text("made")

    monkeypatch.setattr(tables, "run", run)
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    start = ["table", "--digest", "0123456789", "--spec", '{"kind":"theory","experiments":[]}', "--inputs"]
    end = ["--outputs", "o.csv", "o.md", "o.tex"]
    assert main([*start, *words, *end]) == 0
    written = json.loads(Path("o.provenance.json").read_text())
    assert seen == [source["path"] for source in written["inputs"]] == ["a.csv", "b.csv"]
    assert written["command"][3:] == [*start, "a.csv", "b.csv", *end]
