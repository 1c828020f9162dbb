"""`eqcollapse metrics`: files in, table, csv and json out, and one clear line for what is wrong with them."""

import argparse
import csv
import io
import json
import math
import os
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from eqcollapse.cli.main import main
from eqcollapse.cli.metrics import add_arguments, class_list, run
from eqcollapse.collapse import COLUMNS, Moments, collapse_metrics, features
from eqcollapse.runtime.errors import EqcollapseError

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
    assert "nc1_majority" not in printed


def test_features_whose_means_overflow_are_a_nan_with_a_reason_too(tmp_path, capsys):
    np.savez(tmp_path / "own.npz", features=np.full((9, 4), 1e308), labels=np.arange(9) % 3)
    assert metrics(tmp_path / "own.npz") == 0
    printed = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "so large that squares overflow" in printed["nc1"]


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


def zipped(path, compression=zipfile.ZIP_STORED, **members):
    """Write a zip file of members that may be anything."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_npy", ".npy"), content)


def encrypted(path):
    """Have the members of the zip file at `path` say that they are encrypted."""
    patched(path, local=6, central=8, value=b"\x01\x00")


def patched(path, *, local, central, value):
    """Put `value` at these places of the zip file's headers."""
    content = bytearray(path.read_bytes())
    for mark, place in ((b"PK\x03\x04", local), (b"PK\x01\x02", central)):
        start = content.find(mark)
        while start >= 0:
            content[start + place : start + place + len(value)] = value
            start = content.find(mark, start + 1)
    path.write_bytes(content)


def odd_files(path, arrays):
    """Write each odd file, one after the other, and yield what is said of it."""
    H, y = arrays["features"], arrays["labels"]
    content = io.BytesIO()
    np.save(content, H)
    zipped(path, features_npy=content.getvalue(), labels="0 1 2 3")
    yield "labels is not an array"
    zipped(path, features_npy="no array")
    yield "features is not an array"
    zipped(path, features_npy=content.getvalue()[:100])
    yield "own.npz cannot be read"
    zipped(path, zipfile.ZIP_DEFLATED, features_npy=content.getvalue())
    patched(path, local=60, central=400, value=b"\xff" * 20)
    yield "own.npz cannot be read"
    np.savez(path, features=H, labels=y)
    encrypted(path)
    yield "own.npz cannot be read: .*encrypted"
    np.savez(path, features=H, labels=y)
    patched(path, local=8, central=10, value=b"\x2a\x00")
    yield "own.npz cannot be read: .*compression"
    np.savez(path, features=H, labels=np.full(len(H), 2**62))
    yield "4611686018427387905 classes in 6 dimensions take .* more than half of this machine's memory"
    np.savez(path, features=H, labels=np.full(len(H), 2**63, dtype=np.uint64))
    yield "labels holds numbers of 9223372036854775808 and more"
    np.savez(path, features=H, labels=np.full(len(H), math.inf))
    yield "labels must be N integers, not torch.float64"
    np.savez(path, features=H, labels=y[:, None])
    yield "labels must be N integers"
    np.savez(path, features=H, labels=-y)
    yield "labels run from -3"
    np.savez(path, features=H, labels=np.full(len(H), -1))
    yield r"labels run from -1 to -1: they must be class numbers 0\.\.K-1"
    np.savez(path, features=H, labels=np.full(len(H), math.nan))
    yield "labels must be N integers, not torch.float64"
    np.savez(path, features=np.float64(3), labels=y)
    yield "features must be real, N×d"
    np.savez(path, features=H[:, :0], labels=y)
    yield "must be at least 1"
    np.savez(path, **{"a\x1b[2J\nb": H, "\u202e": H})
    yield r"it has a\\x1b\[2J\\nb, \\u202e"


def test_odd_files_are_refused_in_one_printable_line(tmp_path, arrays):
    path = tmp_path / "own.npz"
    for said in odd_files(path, arrays):
        with pytest.raises(EqcollapseError, match=said) as caught:
            metrics(path)
        assert str(caught.value).isprintable()


def test_an_npz_named_npy_is_refused_and_the_other_way_round(tmp_path, arrays):
    np.savez(tmp_path / "own.npz", **arrays)
    (tmp_path / "own.npz").rename(tmp_path / "own.npy")
    with pytest.raises(EqcollapseError, match=r"own\.npy cannot be read: it is not an array of numpy's"):
        metrics(tmp_path / "own.npy")
    np.save(tmp_path / "one.npy", arrays["features"])
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    with pytest.raises(EqcollapseError, match=r"one\.npz cannot be read"):
        metrics(tmp_path / "one.npz")


@pytest.mark.parametrize("kind", ["uint8", "uint16", "uint32", "uint64", "int16", ">i4"])
@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_labels_may_be_integers_of_any_kind(tmp_path, arrays, suffix, kind):
    def table(labels):
        content = {"features": arrays["features"], "labels": labels}
        if suffix == "npz":
            np.savez(tmp_path / "own.npz", **content)
        else:
            save_file({name: torch.from_numpy(array) for name, array in content.items()}, tmp_path / "own.safetensors")
        assert metrics(tmp_path / f"own.{suffix}", "--majority", "0-1", "--csv", tmp_path / "out.csv") == 0
        return (tmp_path / "out.csv").read_bytes()

    y = arrays["labels"].astype(kind)
    assert table(y if suffix == "npz" else y.astype(y.dtype.newbyteorder("="))) == table(arrays["labels"])


@pytest.mark.parametrize(
    "arguments",
    [
        ("--classes", "1e30"),
        ("--majority", "0-99999999999"),
        ("--majority", ",".join(["0-999999"] * 3)),
        ("--majority", "9" * 5000),
        ("--majority", "\x1b[2J"),
        ("--mean", "\x1b[2J"),
        ("\x1b[2J",),
    ],
)
def test_odd_arguments_are_one_printable_line(tmp_path, arrays, capsys, arguments):
    np.savez(tmp_path / "own.npz", **arrays)
    with pytest.raises(SystemExit) as caught:
        main(["metrics", str(tmp_path / "own.npz"), *arguments])
    *_, said = capsys.readouterr().err.removesuffix("\n").split("\n")
    assert caught.value.code == 2
    assert "error: " in said
    assert said.isprintable()
    assert len(said) < 300


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--classes", str(10**30)), f"{10**30} classes in 6 dimensions take "),
        (("--classes", "0"), "must be at least 1"),
        (("--classes", "-1"), "must be at least 1"),
        (
            ("--majority", "0-999999"),
            r"different classes in 0\.\.3, not \[0, 1, 2, 3, 4, 5, \.\.\.\]$",
        ),
        (("--majority", str(10**30)), "majority must be different classes"),
    ],
)
def test_numbers_of_classes_are_bounded(tmp_path, arrays, arguments, said):
    np.savez(tmp_path / "own.npz", features=arrays["features"], labels=arrays["labels"])
    with pytest.raises(EqcollapseError, match=said):
        metrics(tmp_path / "own.npz", *arguments)


def test_what_takes_more_than_half_of_the_memory_is_refused_before_it_is_taken(tmp_path, arrays, monkeypatch):
    np.savez(tmp_path / "own.npz", features=arrays["features"], labels=arrays["labels"])
    monkeypatch.setattr(features, "_half_of_memory", lambda: 100_000)
    assert metrics(tmp_path / "own.npz") == 0
    with pytest.raises(EqcollapseError, match="1000 classes in 6 dimensions take 24288000 bytes, more than half"):
        metrics(tmp_path / "own.npz", "--classes", 1000)
    np.savez_compressed(tmp_path / "bomb.npz", features=np.zeros((20_000, 6)), labels=np.zeros(20_000))
    with pytest.raises(EqcollapseError, match=r"bomb\.npz cannot be read: it unpacks to 11.* bytes, more than half"):
        metrics(tmp_path / "bomb.npz")


def test_a_long_majority_takes_no_time():
    """With a set made anew for each class it took half a minute."""
    K = 50_000
    moments = Moments(K, 1)
    moments.update(torch.zeros(2, 1), torch.tensor([0, 1]))
    started = time.process_time()
    assert collapse_metrics(moments, majority=range(K // 2))["classes"] == 2
    assert time.process_time() - started < 5


def test_lists_of_classes():
    assert class_list("0,1,2") == class_list("0-2") == [0, 1, 2]
    assert class_list("7,0-1") == [7, 0, 1]
    for text in ("", "a", "1-", "-1"):
        with pytest.raises(argparse.ArgumentTypeError):
            class_list(text)


def test_groups_are_printed_only_where_they_were_asked_for(tmp_path, arrays, capsys):
    np.savez(tmp_path / "own.npz", **arrays)
    assert metrics(tmp_path / "own.npz", "--csv", tmp_path / "out.csv") == 0
    assert "majority" not in capsys.readouterr().out
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 1 + len(COLUMNS)
    assert metrics(tmp_path / "own.npz", "--majority", "0-1") == 0
    assert "nc1_majority" in capsys.readouterr().out


def test_a_transposed_classifier_is_named_so(tmp_path, arrays):
    np.savez(tmp_path / "own.npz", **{**arrays, "weight": arrays["weight"].T})
    with pytest.raises(EqcollapseError, match="it is transposed"):
        metrics(tmp_path / "own.npz")


def test_features_may_be_a_npy_with_labels_beside_it(tmp_path, arrays):
    np.save(tmp_path / "own.npy", arrays["features"])
    np.save(tmp_path / "labels.npy", arrays["labels"])
    with pytest.raises(EqcollapseError, match="give their labels with --labels"):
        metrics(tmp_path / "own.npy")
    assert metrics(tmp_path / "own.npy", "--labels", tmp_path / "labels.npy") == 0


def test_a_run_s_own_features_are_measured(tmp_path, arrays, capsys):
    H, y = torch.from_numpy(arrays["features"]), torch.from_numpy(arrays["labels"])
    content = {"train/features": H, "train/labels": y, "test/features": H[:9].clone(), "test/labels": y[:9].clone()}
    save_file(content, tmp_path / "features.safetensors")
    for part, samples in ((), len(y)), (("--part", "test"), 9), (("--part", "train"), len(y)):
        assert metrics(tmp_path / "features.safetensors", *part) == 0
        assert capsys.readouterr().out.splitlines()[1].split() == ["samples", str(samples)]
    np.savez(tmp_path / "own.npz", **arrays)
    with pytest.raises(EqcollapseError, match="leave --part out"):
        metrics(tmp_path / "own.npz", "--part", "test")


def test_arrays_and_lists_are_taken_as_tensors(arrays, expected):
    for of in (np.asarray, lambda array: array.tolist()):
        H, y, W, b = map(of, arrays.values())
        found = collapse_metrics(Moments.of(H, y, K, W, b), W, b, majority=[0, 1])
        assert found == pytest.approx(expected, rel=1e-6, nan_ok=True)
    with pytest.raises(ValueError, match="features must be numbers in a tensor, an array or lists, not str"):
        Moments.of("features", [0], 1)


def test_a_reader_that_goes_early_ends_it_quietly(tmp_path, arrays):
    np.savez(tmp_path / "own.npz", **arrays)
    reading, writing = os.pipe()
    os.close(reading)
    words = [sys.executable, "-m", "eqcollapse", "metrics", str(tmp_path / "own.npz")]
    done = subprocess.run(words, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_the_api_names_a_transposed_classifier_too(arrays):
    H, y, W, _ = (torch.from_numpy(array) for array in arrays.values())
    with pytest.raises(ValueError, match="it is transposed"):
        Moments.of(H, y, K, W.mT)


@pytest.mark.parametrize("values", [[2**63], ["a"], [[1.0], [2.0, 3.0]], [True], {"a": 1}])
def test_what_holds_no_numbers_for_torch_is_refused_with_its_name(values):
    with pytest.raises(ValueError, match=r"^features "):
        Moments.of(values, [0], 1)
