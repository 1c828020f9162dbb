"""What a record holds, against git and hashlib themselves."""

import hashlib
import json
import subprocess

import pytest
import torch

from eqcollapse.provenance.records import GPU_KERNELS, KERNELS, environment, head_commit, write_record


def git(folder, *words) -> str:
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    answer = subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True, text=True)
    return answer.stdout.strip()


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "clone"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    git(folder, "commit", "-q", "--allow-empty", "-m", "first")
    return folder


def test_the_commit_is_gits(repository, tmp_path):
    assert head_commit(repository) == git(repository, "rev-parse", "HEAD")
    git(repository, "pack-refs", "--all")
    assert head_commit(repository) == git(repository, "rev-parse", "HEAD")
    git(repository, "worktree", "add", "-q", "-b", "side", str(tmp_path / "side"))
    git(tmp_path / "side", "commit", "-q", "--allow-empty", "-m", "second")
    assert head_commit(tmp_path / "side") == git(tmp_path / "side", "rev-parse", "HEAD")
    git(repository, "checkout", "-q", "--detach")
    assert head_commit(repository) == git(repository, "rev-parse", "HEAD")


def test_no_repository_has_no_commit(tmp_path):
    assert head_commit(tmp_path) is None


def test_a_record_is_a_function_of_the_files(tmp_path):
    (tmp_path / "in.txt").write_bytes(b"abc")
    (tmp_path / "out.txt").write_bytes(b"defg")
    records = []
    for name in ("a.json", "b.json"):
        write_record(
            tmp_path / name,
            stage="train",
            digest="0123456789",
            command=["python"],
            spec={"b": 1, "a": 2},
            inputs=[str(tmp_path / "in.txt")],
            outputs=[str(tmp_path / "out.txt")],
            code={"digest": "c0de", "runner": "c0de"},
            run={"threads": 1},
        )
        records.append((tmp_path / name).read_bytes())
    assert records[0] == records[1]
    record = json.loads(records[0])
    assert record["inputs"][0]["sha256"] == hashlib.sha256(b"abc").hexdigest()
    assert record["outputs"][0]["bytes"] == 4
    assert record["environment"]["packages"]["torch"]


def test_the_processor_is_named_with_what_asks_for_other_kernels(monkeypatch):
    for name in KERNELS:
        monkeypatch.delenv(name, raising=False)
    plain = environment()["cpu"]
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    assert "=" not in plain
    assert environment()["cpu"] == f"{plain}, OPENBLAS_CORETYPE=Haswell"


@pytest.mark.parametrize(
    "name",
    [
        *(f"{maker}_{what}" for maker in ("ONEDNN", "DNNL") for what in ("MAX_CPU_ISA", "DEFAULT_FPMATH_MODE")),
        *("ATEN_CPU_CAPABILITY", "MKL_CBWR", "MKL_DEBUG_CPU_TYPE", "MKL_DISABLE_FAST_MM", "MKL_ENABLE_INSTRUCTIONS"),
        *("NPY_DISABLE_CPU_FEATURES", "NPY_ENABLE_CPU_FEATURES", "OPENBLAS_CORETYPE", "TORCH_MKLDNN_MATMUL_MIN_DIM"),
    ],
)
def test_a_variable_that_chooses_kernels_is_named(monkeypatch, name):
    monkeypatch.setenv(name, "other")
    assert f"{name}=other" in environment()["cpu"].split(", ")


@pytest.mark.parametrize("name", ["NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"])
def test_the_gpu_is_named_with_what_asks_for_other_kernels(monkeypatch, name):
    for variable in GPU_KERNELS:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "card")
    assert environment()["cuda"]["gpu"] == "card"
    monkeypatch.setenv(name, "1")
    assert environment()["cuda"]["gpu"] == f"card, {name}=1"
