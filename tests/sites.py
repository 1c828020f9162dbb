"""A site of one's own: the image built without a registry, and a Slurm cluster on this machine's loopback.

Both by ../shared/tools, which stand in for what a user's site has: a public base image, Apptainer, Slurm.
"""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NoReturn

import pytest
import yaml

from projects import ROOT, Project, cloned

TOOLS = ROOT.parent / "shared" / "tools"
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
BASE = """Bootstrap: {{ BOOTSTRAP }}
From: {{ FROM }}
%arguments
    PIP_ARGS=none
%post
    : {{ PIP_ARGS }}
"""


def absent(what: str) -> NoReturn:
    """Skip the test for want of `what`; fail where EQCOLLAPSE_REQUIRE is set, as in .ci/run, which needs all of it."""
    if os.environ.get("EQCOLLAPSE_REQUIRE"):
        pytest.fail(what)
    pytest.skip(what)


def tool(name: str, *words: str) -> str:
    """Run one of ../shared/tools; skip the test where they are not."""
    if not (TOOLS / name).exists() or os.geteuid() != 0:
        absent(f"needs root and {TOOLS.parent.name}/tools/{name}")
    # Of OMP_NUM_THREADS, nproc makes a number of processors.
    variables = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    variables["PATH"] = os.pathsep.join([variables["PATH"], "/usr/sbin", "/sbin"])  # not on every user's
    command = ["bash", str(TOOLS / name), *words]
    answer = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout[-3000:] + answer.stderr[-3000:]
    return answer.stdout


def image() -> Path:
    """Return a folder of Makefile, lock and containers/ in which `make image` has built the image, as a directory.

    It is kept in .cache/ and built again only when the definition or the lock changed, as `make image` does.
    """
    tool("install-apptainer")
    folder, said = _built()
    assert said.returncode == 0, said.stdout[-3000:] + said.stderr[-3000:]
    return folder


@cache  # also of a failure: what fails once, after minutes, fails each time
def _built() -> tuple[Path, subprocess.CompletedProcess]:
    folder = ROOT / ".cache" / "tests" / "image"
    base = ROOT / ".cache" / "tests" / "base"
    if not (base / "usr").is_dir():
        shutil.rmtree(base, ignore_errors=True)
        base.parent.mkdir(parents=True, exist_ok=True)
        definition = base.with_suffix(".def")
        definition.write_text(BASE)
        tool("build-image", str(definition), f"{base}/")
    give_build(folder)
    return folder, make_image(folder, base)


def give_build(folder: Path) -> None:
    """Put all that `make image` reads into `folder`."""
    for name in ("Makefile", "requirements.lock", "containers/eqcollapse.def", "containers/build", "containers/digest"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)


def make_image(
    folder: Path, base: Path = ROOT / ".cache" / "tests" / "base", **settings: str
) -> subprocess.CompletedProcess:
    """Run `make image` in `folder`, from the local base and as a directory."""
    words = [
        "make", "image", "BOOTSTRAP=localimage", f"FROM={base}", "SANDBOX=1", f"IMAGE_ARGS=--bind {CERTIFICATES}",
        *(f"{name}={value}" for name, value in settings.items()),
    ]  # fmt: skip
    variables = {"APPTAINER_TMPDIR": str(base.parent), **os.environ}
    return subprocess.run(words, cwd=folder, env=variables, capture_output=True, text=True, check=False)


def give_image(project: Project) -> None:
    """Put the image and what is stated of it into `project`."""
    built = image() / "containers"
    (project.folder / "containers/eqcollapse.sif").symlink_to(built / "eqcollapse.sif")
    shutil.copy2(built / "eqcollapse.sif.sha256", project.folder / "containers")


def tiny(folder: Path, epochs: int = 2, models: tuple[str, ...] = ("explicit", "deq")) -> Project:
    """Return a clone whose study, at its commit, has one split, `models` and one theory experiment."""
    project = cloned(folder)
    path = project.folder / "params.yaml"
    training = {"epochs": epochs, "schedule": {"warmup": 0}}
    project.edit({"experiments": {"a": {"splits": ["ka3-r10"], "models": list(models)}}, "train": training})
    content = yaml.safe_load(path.read_text())
    content["theory"] = {"b-figure-1": content["theory"]["b-figure-1"]}
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    author = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    project.run("git", *author, "commit", "-q", "-a", "-m", "tiny study")
    return project


def results(project: Project) -> dict[str, bytes]:
    """Return what the jobs of `project` made, without the records of how."""
    return {name: content for name, content in project.files().items() if not name.endswith("provenance.json")}


def records(project: Project) -> dict[str, dict]:
    """Return the records of `project`, by path."""
    return {name: json.loads(text) for name, text in project.files().items() if name.endswith("provenance.json")}


def kill(process: subprocess.Popen) -> None:
    """End snakemake as a crash of its machine would."""
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def wait_for(what: str, happened: Callable[[], object], seconds: float = 180) -> object:
    """Wait until `happened()` is true, and return it; fail after `seconds`."""
    end = time.monotonic() + seconds
    while not (found := happened()):
        assert time.monotonic() < end, f"waited {seconds} s for: {what}"
        time.sleep(0.5)
    return found


def slurm(*words: str) -> str:
    """Return what a command of Slurm's says."""
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout
