"""The command `doctor`: what this machine has and lacks for each way of running a study, and what to do."""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

GIGABYTE = 1e9
NEEDED = {"data and results of a demo": 2, "the installation or the image": 8}
"""Disk, in GB, by what takes it."""

OK, WARNING, MISSING = "ok", "warning", "missing"


@dataclass(frozen=True)
class Check:
    """One thing looked at: for which way of running, its state (ok, warning, missing), what is there, what to do."""

    way: str
    state: str
    text: str
    remedy: str = ""


def add_arguments(commands: Any) -> None:
    """Add `doctor` to the command line's subparsers."""
    doctor = commands.add_parser("doctor", help="say what this machine has and lacks for each way of running")
    doctor.add_argument("--json", action="store_true", help="print it for machines")
    doctor.set_defaults(run=_doctor)


def _doctor(options: argparse.Namespace, _: list[str]) -> int:
    checks = list(examine())
    if options.json:
        print(json.dumps([asdict(check) for check in checks], indent=1))
    else:
        print("\n".join(_lines(checks)))
    return 1 if any(check.way == BARE and check.state == MISSING for check in checks) else 0


def _lines(checks: list[Check]) -> Iterator[str]:
    for way in WAYS:
        yield f"{way}:"
        for check in checks:
            if check.way == way:
                yield f"  {check.state:8}{check.text}" + (f" -> {check.remedy}" if check.remedy else "")


def examine() -> Iterator[Check]:
    """Yield every check of this machine, seen from the project's folder (the working directory)."""
    for way, look in WAYS.items():
        for state, text, *remedy in look():
            yield Check(way, state, text, *remedy)


Looks = Iterator[tuple[str, ...]]


def _bare() -> Looks:
    yield OK, f"Python {'.'.join(map(str, sys.version_info[:3]))}"  # an older one stops at the import
    for package in ("torch", "snakemake", "pydantic"):
        yield _installed(package, "make setup")
    yield _code()
    yield from _disk()


def _installed(package: str, remedy: str) -> tuple[str, ...]:
    try:
        return OK, f"{package} {version(package)}"
    except PackageNotFoundError:
        return MISSING, f"{package} is not installed", remedy


def _code() -> tuple[str, ...]:
    """Compare the code that runs with that of this folder: an environment may be another clone's."""
    running, here = Path(__file__).resolve().parents[1], Path("src/eqcollapse").resolve()
    if not here.is_dir():
        return WARNING, f"{Path.cwd()} is no eqcollapse project", "cd to the folder of the Snakefile"
    if running != here:
        return WARNING, f"the code that runs is that of {running}", "make setup here, and use this folder's .venv"
    return OK, "the code that runs is that of this folder"


def _disk() -> Looks:
    free = shutil.disk_usage(".").free / GIGABYTE
    short = [f"{what} ({size} GB)" for what, size in NEEDED.items() if free < size]
    if short:
        yield WARNING, f"disk: {free:.1f} GB are free here", f"make room for {' and '.join(short)}"
    else:
        yield OK, f"disk: {free:.0f} GB are free here"


def _gpu() -> Looks:
    driver = _answer("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
    if driver is None:
        yield MISSING, "no NVIDIA GPU answers (nvidia-smi)", "none: `device: auto` trains on the CPU"
        return
    for line in driver.splitlines():
        yield OK, f"GPU {line}"
    try:
        import torch
    except ImportError:
        return
    build = torch.version.cuda
    if torch.cuda.is_available():
        yield OK, f"torch is built for CUDA {build}, and sees {torch.cuda.device_count()} GPU(s)"
    elif build is None:
        yield MISSING, "torch is built for the CPU alone", "install the lock's torch: make setup"
    else:
        yield MISSING, f"torch is built for CUDA {build}, which this driver does not run", "a newer NVIDIA driver"


def _container() -> Looks:
    told = _answer("apptainer", "--version") or _answer("singularity", "--version")
    if told is None:
        yield MISSING, "apptainer is not installed", "see apptainer.org, or ask the cluster's operators"
    else:
        yield OK, told.splitlines()[0]
    yield _namespaces()
    yield _image(built=told is not None)


def _namespaces() -> tuple[str, ...]:
    """Ask the kernel for a user namespace: what the settings under /proc mean differs by distribution."""
    if _answer("unshare", "--user", "--map-root-user", "true") is not None:
        return OK, "user namespaces: a container starts without root"
    if shutil.which("unshare") is None:
        return WARNING, "user namespaces: unknown, as there is no `unshare`"
    return WARNING, "user namespaces are not allowed", "ask the operators, or for a setuid installation of Apptainer"


def _image(built: bool) -> tuple[str, ...]:
    from eqcollapse.pipeline.image import IMAGE, announce
    from eqcollapse.runtime.errors import EqcollapseError

    try:
        announce()
    except EqcollapseError as error:
        return MISSING, str(error)
    if built and not _current():
        return WARNING, f"{IMAGE} is not of today's definition, lock and base", "make image"
    return OK, f"{IMAGE} is there"


def _current() -> bool:
    return _answer("containers/build", DRY="1") is not None


def _slurm() -> Looks:
    if shutil.which("sbatch") is None:
        yield MISSING, "sbatch is not here", "log in to a node from which jobs are submitted"
        return
    partitions = _answer("sinfo", "--noheader", "--format=%R")
    if partitions is None:
        yield WARNING, "sinfo does not answer", "ask the operators whether the controller is up"
    else:
        yield OK, f"Slurm's partitions: {', '.join(partitions.split())}"
    yield _installed("snakemake-executor-plugin-slurm", "make setup")


def _versioning() -> Looks:
    yield _commit()
    yield _installed("dvc", "make setup")
    remotes = _answer("dvc", "remote", "list")
    if remotes:
        yield OK, f"DVC's remotes: {', '.join(line.split()[0] for line in remotes.splitlines())}"
    else:
        yield WARNING, "DVC has no remote: results stay on this machine", "dvc remote add --default NAME URL"
    if shutil.which("ssh-keygen"):
        yield OK, "ssh-keygen, to sign results and to check signatures"
    else:
        yield MISSING, "ssh-keygen is not here", "install OpenSSH, to sign results or to check signatures"


def _commit() -> tuple[str, ...]:
    if shutil.which("git") is None:
        return MISSING, "git is not installed", "install git: records name the commit"
    commit = _answer("git", "rev-parse", "--short", "HEAD")
    if commit is None:
        told = _complaint("git", "rev-parse", "--short", "HEAD")
        return MISSING, f"git knows no commit here ({told})", "git clone, rather than an archive: records name it"
    if _answer("git", "status", "--porcelain"):
        return WARNING, f"git: at {commit}, with changes that are in no commit", "commit them before you publish"
    return OK, f"git: at {commit}, nothing changed"


BARE = "To run on this machine's CPU"
WAYS: dict[str, Callable[[], Looks]] = {
    BARE: _bare,
    "On a GPU": _gpu,
    "In the container": _container,
    "On a Slurm cluster": _slurm,
    "To version, audit and share": _versioning,
}
"""The ways of running, and what looks at each."""


def _asked(*command: str, **variables: str) -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=20, env={**os.environ, **variables}
        )
    except (OSError, subprocess.TimeoutExpired):
        return None


def _answer(*command: str, **variables: str) -> str | None:
    """Return what a command prints; None where it is not there, fails, or takes more than 20 s."""
    answer = _asked(*command, **variables)
    return None if answer is None or answer.returncode else answer.stdout.strip()


def _complaint(*command: str) -> str:
    answer = _asked(*command)
    return answer.stderr.strip().splitlines()[0] if answer and answer.stderr.strip() else "no reason given"
