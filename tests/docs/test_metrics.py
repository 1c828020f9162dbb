"""What docs/how-to/own-features.md shows is run, and docs/reference/metrics.md explains every metric."""

import argparse
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from eqcollapse.cli.metrics import add_arguments, run
from eqcollapse.collapse import COLUMNS, PRESETS
from eqcollapse.collapse.definitions import ACROSS, GROUP, WHOLE
from eqcollapse.collapse.metrics import CLASS
from eqcollapse.collapse.view import CHOICES

DOCS = Path(__file__).parents[2] / "docs"
STEPS = (DOCS / "how-to" / "own-features.md").read_text()
DEFINITIONS = (DOCS / "reference" / "metrics.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", STEPS, flags=re.DOTALL)


def test_the_python_examples_run(capsys):
    namespace = {}
    for block in blocks("python"):
        exec(block, namespace)
    assert namespace["metrics"]["nc1"] > 0
    assert namespace["metrics"]["classes"] == 10


@pytest.mark.parametrize("command", [line for block in blocks("sh") for line in block.splitlines()])
def test_the_commands_run(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    y, W = np.arange(60) % 6, rng.normal(size=(6, 8))
    features = W[y] + 0.1 * rng.normal(size=(60, 8))
    np.savez("own.npz", features=features, labels=y)
    np.save("own.npy", features)
    save_file({"test/features": torch.from_numpy(features), "test/labels": torch.from_numpy(y)}, "features.safetensors")
    np.savez("head.npz", weight=W, bias=W[:, 0])
    np.save("labels.npy", y)
    program, subcommand, *arguments = shlex.split(command, comments=True)
    assert (program, subcommand) == ("eqcollapse", "metrics")
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert run(parser.parse_args(arguments)) == 0
    assert capsys.readouterr().out


def test_every_name_is_explained():
    explained = set(re.findall(r"`([a-z0-9_]+)`", DEFINITIONS))
    papers = [name for name in COLUMNS if name.startswith(("sun2024", "tirer2022"))]
    for name in ["samples", "classes", *WHOLE, *GROUP, *ACROSS, *CLASS, *PRESETS, *CHOICES, *papers]:
        assert name in explained, name
