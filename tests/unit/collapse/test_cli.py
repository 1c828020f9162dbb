"""`eqcollapse metrics`: files in, table, csv and json out, and one clear line for what is wrong with them."""

import argparse
import csv
import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from eqcollapse.collapse import COLUMNS, Moments, collapse_metrics
from eqcollapse.collapse.cli import add_arguments, class_list, run
from eqcollapse.errors import EqcollapseError

K, D = 4, 6


def metrics(*arguments):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args([str(argument) for argument in arguments]))


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    y = np.concatenate([np.arange(K), rng.integers(0, K, 60)])
    W = rng.normal(size=(K, D))
    return {
        "features": (W[y] + 0.1 * rng.normal(size=(len(y), D))).astype("f4"),
        "labels": y,
        "weight": W,
        "bias": W[:, 0].copy(),
    }


@pytest.fixture
def expected(arrays):
    H, y, W, b = map(torch.from_numpy, arrays.values())
    return collapse_metrics(Moments.of(H, y, K, W, b), W, b, majority=[0, 1])


def assert_same(found, expected):
    assert list(found) == list(COLUMNS)
    assert found == pytest.approx(expected, rel=1e-12, nan_ok=True)


def test_npz_and_safetensors_give_the_library_s_numbers(tmp_path, arrays, expected, capsys):
    np.savez(tmp_path / "own.npz", **arrays)
    save_file({name: torch.from_numpy(array) for name, array in arrays.items()}, tmp_path / "own.safetensors")
    for suffix in ("npz", "safetensors"):
        out = tmp_path / f"{suffix}.csv", tmp_path / f"{suffix}.json"
        assert metrics(tmp_path / f"own.{suffix}", "--majority", "0-1", "--csv", out[0], "--json", out[1]) == 0
        with out[0].open() as file:
            rows = list(csv.DictReader(file))
        assert_same({row["metric"]: float(row["value"]) for row in rows}, expected)
        content = json.loads(out[1].read_text())
        values = {name: math.nan if value is None else value for name, value in content["metrics"].items()}
        assert_same(values, expected)
        assert len(content["classes"]["nc1"]) == K
    printed = capsys.readouterr().out
    assert "nc1_rank" in printed
    assert (tmp_path / "npz.csv").read_bytes() == (tmp_path / "safetensors.csv").read_bytes()


def test_labels_and_classifier_may_lie_in_files_of_their_own(tmp_path, arrays, expected):
    np.savez(tmp_path / "own.npz", features=arrays["features"])
    for name in ("labels", "weight"):
        np.save(tmp_path / f"{name}.npy", arrays[name])
    np.savez(tmp_path / "head.npz", bias=arrays["bias"], weight=arrays["weight"])
    files = [
        "--labels",
        tmp_path / "labels.npy",
        "--weight",
        tmp_path / "weight.npy",
        "--bias",
        tmp_path / "head.npz",
    ]
    assert metrics(tmp_path / "own.npz", *files, "--majority", "0,1", "--csv", tmp_path / "out.csv") == 0
    with (tmp_path / "out.csv").open() as file:
        assert_same({row["metric"]: float(row["value"]) for row in csv.DictReader(file)}, expected)


def test_presets_and_classes_have_tables_too(tmp_path, arrays, capsys):
    np.savez(tmp_path / "own.npz", **arrays)
    assert metrics(tmp_path / "own.npz", "--preset", "zhu2021") == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
        "metric",
        "nc1",
        "nc2",
        "nc3",
        "nc4",
    ]
    assert metrics(tmp_path / "own.npz", "--per-class") == 0
    assert len(capsys.readouterr().out.splitlines()) == K + 1


def test_a_nan_comes_with_its_reason(tmp_path, arrays, capsys):
    np.savez(tmp_path / "own.npz", features=arrays["features"], labels=arrays["labels"])
    assert metrics(tmp_path / "own.npz") == 0
    printed = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "nan" in printed["nc3_etf"]
    assert "no classifier was given" in printed["nc3_etf"]
    assert "no majority classes were given" in printed["nc1_majority"]


class Harmful:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


def test_what_is_wrong_is_said_in_one_line_that_names_the_file(tmp_path, arrays):
    good, path = tmp_path / "good.npz", tmp_path / "own.npz"
    np.savez(good, **arrays)

    def refused(said, *arguments):
        with pytest.raises(EqcollapseError, match=said) as caught:
            metrics(*arguments)
        assert "\n" not in str(caught.value)

    refused("no file .*absent.npz", tmp_path / "absent.npz")
    refused("must end in .safetensors, .npz", tmp_path / "features.pt")
    path.write_bytes(b"nothing")
    refused("own.npz cannot be read", path)
    (tmp_path / "own.safetensors").write_bytes(b"nothing")
    refused("own.safetensors cannot be read", tmp_path / "own.safetensors")
    np.savez(path, features=np.array([Harmful()], dtype=object), labels=[0])
    refused("own.npz cannot be read", path)
    np.savez(path, features=np.array(["a"]), labels=[0])
    refused("features holds <U1", path)
    np.savez(path, x=arrays["features"])
    refused("own.npz has no tensor 'features'; it has x", path)
    np.savez(path, features=arrays["features"])
    refused("own.npz has no tensor 'labels'", path)
    np.savez(path, features=arrays["features"], labels=arrays["labels"][:-1])
    refused("as many labels", path)
    np.savez(path, features=arrays["features"], labels=arrays["labels"], weight=arrays["weight"].T)
    refused("weight must be", path)
    refused("4 rows", good, "--classes", 7)
    refused("majority", good, "--majority", "0,9")
    refused("--per-class", good, "--per-class", "--preset", "zhu2021")
    refused("preset fixes", good, "--preset", "zhu2021", "--mean", "weighted")


def test_lists_of_classes():
    assert class_list("0,1,2") == class_list("0-2") == [0, 1, 2]
    assert class_list("7,0-1") == [7, 0, 1]
    for text in ("", "a", "1-", "-1"):
        with pytest.raises(argparse.ArgumentTypeError):
            class_list(text)
