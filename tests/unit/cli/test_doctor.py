"""`doctor`, with each thing that it looks for there and missing."""

import json
from pathlib import Path

import pytest

from eqcollapse.cli import doctor
from eqcollapse.cli.main import main

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """An empty folder to work in and a PATH with nothing but the programs that a test puts there."""
    programs = tmp_path / "bin"
    programs.mkdir()
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    monkeypatch.setenv("PATH", str(programs))

    def put(name: str, script: str) -> None:
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)

    return put


def found(way: str, about: str) -> doctor.Check:
    """Return the one check of `way` whose text has `about` in it."""
    (check,) = [each for each in doctor.examine() if way in each.way and about in each.text]
    return check


def state(way: str, about: str) -> str:
    return found(way, about).state


def test_what_is_missing_says_what_to_do(machine):
    lacking = [check for check in doctor.examine() if check.state == "missing"]
    assert {check.way for check in lacking} == {way for way in doctor.WAYS if way != doctor.BARE}
    assert all(check.remedy or "make image" in check.text for check in lacking)


def test_a_gpu_is_named_by_its_driver(machine):
    assert state("GPU", "no NVIDIA GPU answers") == "missing"
    machine("nvidia-smi", 'echo "NVIDIA H100, 81559 MiB, 570.1"')
    assert found("GPU", "NVIDIA H100").state == "ok"


def test_a_driver_older_than_torchs_cuda_is_said(machine, monkeypatch):
    import torch

    machine("nvidia-smi", "echo old")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert found("GPU", "CUDA 13.0, which this driver does not run").remedy == "a newer NVIDIA driver"
    monkeypatch.setattr(torch.version, "cuda", None)
    assert state("GPU", "built for the CPU alone") == "missing"


def test_apptainer_and_user_namespaces(machine):
    assert state("container", "apptainer is not installed") == "missing"
    assert state("container", "user namespaces: unknown") == "warning"
    machine("apptainer", "echo apptainer version 1.4")
    machine("unshare", "exit 1")
    assert state("container", "apptainer version 1.4") == "ok"
    assert state("container", "user namespaces are not allowed") == "warning"
    machine("unshare", "exit 0")
    assert state("container", "starts without root") == "ok"


def test_an_image_is_missing_outdated_or_current(machine):
    assert state("container", "there is no such image") == "missing"
    machine("apptainer", "echo apptainer version 1.4")
    build = Path("containers/build")
    build.parent.mkdir()
    for name, content in (("eqcollapse.sif", "image"), ("eqcollapse.sif.sha256", "0" * 64)):
        (build.parent / name).write_text(content)
    for code, wanted in (("exit 1", "warning"), ("exit 0", "ok")):
        build.write_text(f"#!/bin/sh\n{code}\n")
        build.chmod(0o755)
        assert state("container", "containers/eqcollapse.sif is") == wanted


def test_slurm_needs_sbatch_and_a_controller_that_answers(machine):
    assert state("Slurm", "sbatch is not here") == "missing"
    machine("sbatch", "exit 0")
    assert state("Slurm", "sinfo does not answer") == "warning"
    machine("sinfo", "echo gpu; echo cpu")
    assert state("Slurm", "gpu, cpu") == "ok"


def test_git_dvc_and_ssh_keygen(machine):
    assert state("version", "git is not installed") == "missing"
    assert state("version", "DVC has no remote") == "warning"
    assert state("version", "ssh-keygen is not here") == "missing"
    machine("git", "echo 'fatal: detected dubious ownership' >&2; exit 128")
    assert state("version", "dubious ownership") == "missing"
    machine("git", 'case "$1" in rev-parse) echo 1a2b3c4;; status) echo " M params.yaml";; esac')
    assert state("version", "at 1a2b3c4, with changes") == "warning"
    machine("git", 'case "$1" in rev-parse) echo 1a2b3c4;; esac')
    machine("dvc", "echo 'store s3://bucket'")
    machine("ssh-keygen", "exit 0")
    assert state("version", "nothing changed") == "ok"
    assert state("version", "DVC's remotes: store") == "ok"
    assert state("version", "ssh-keygen, to sign") == "ok"


def test_the_code_of_another_folder_is_said(machine, monkeypatch):
    assert state("CPU", "is no eqcollapse project") == "warning"
    Path("src/eqcollapse").mkdir(parents=True)
    assert found("CPU", "the code that runs is that of").remedy.startswith("make setup here")
    monkeypatch.chdir(ROOT)
    assert state("CPU", "that of this folder") == "ok"


def test_a_full_disk_is_said(machine, monkeypatch):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 3e9})())
    assert "the installation or the image (8 GB)" in found("CPU", "3.0 GB are free").remedy


def test_a_package_that_is_missing_ends_with_exit_code_1(machine, monkeypatch, capsys):
    assert main(["doctor", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {check["state"] for check in told} <= {"ok", "warning", "missing"}

    def missing(package: str) -> str:
        raise doctor.PackageNotFoundError(package)

    monkeypatch.setattr(doctor, "version", missing)
    assert main(["doctor"]) == 1
    assert "missing snakemake is not installed -> make setup" in capsys.readouterr().out
