"""The record beside every output: which data, parameters, code and environment made it.

No clock, user, host name or absolute path: on one kind of machine two runs write the same record.
"""

import hashlib
import json
import os
import platform
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from eqcollapse.runtime.files import write_text

FORMAT = "eqcollapse-provenance/2"
TENSOR_STAGES = ("train", "theory", "collapse")
UNRECORDED = ("--path", "--mirror", "--device", "--log")
"""Options that say where, not what: they are no part of a record. Each has a value."""
KERNELS = (
    "ATEN_CPU_CAPABILITY",
    "DNNL_CPU_ISA_HINTS",
    "DNNL_DEFAULT_FPMATH_MODE",
    "DNNL_MAX_CPU_ISA",
    "MKL_CBWR",
    "MKL_DEBUG_CPU_TYPE",
    "MKL_DISABLE_FAST_MM",
    "MKL_ENABLE_INSTRUCTIONS",
    "NPY_DISABLE_CPU_FEATURES",
    "NPY_ENABLE_CPU_FEATURES",
    "ONEDNN_CPU_ISA_HINTS",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "ONEDNN_MAX_CPU_ISA",
    "OPENBLAS_BLOCK_FACTOR",
    "OPENBLAS_CORETYPE",
    "OPENBLAS_L2_SIZE",
    "TORCH_MKLDNN_MATMUL_MIN_DIM",
    "TORCH_MKLDNN_MATMUL_MIN_SIZE",
)
"""Environment variables that choose the kernels of torch, its MKL and oneDNN, NumPy and its OpenBLAS."""
GPU_KERNELS = (
    "CUBLASLT_WORKSPACE_SIZE",
    "CUBLAS_EMULATE_DOUBLE_PRECISION",
    "CUBLAS_EMULATE_SINGLE_PRECISION",
    "CUBLAS_EMULATION_STRATEGY",
    "CUBLAS_FIXEDPOINT_EMULATION_MANTISSA_BIT_COUNT",
    "NVIDIA_TF32_OVERRIDE",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "TORCH_BLAS_PREFER_CUBLASLT",
    "TORCH_CUDNN_V8_API_DISABLED",
    "TORCH_LINALG_PREFER_CUSOLVER",
)
"""The same of torch's CUDA libraries; `cublas_workspace` has CUBLAS_WORKSPACE_CONFIG."""
PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "scipy",
    "scikit-learn",
    "pandas",
    "matplotlib",
    "pillow",
    "safetensors",
)


def write_record(
    path: str | Path,
    *,
    stage: str,
    digest: str,
    command: list[str],
    spec: Mapping[str, Any],
    inputs: Iterable[str],
    outputs: Iterable[str],
    code: Mapping[str, str],
    run: Mapping[str, Any],
) -> None:
    """Write the record of one job to `path`, as JSON with sorted keys, in the form of record.schema.json.

    `code` has the digests of the source files that the stage imports and of those that every job passes through; `run`
    is what the stage says of how it ran (device, threads, determinism). The record ends in a seal, so that one edited
    by hand is told apart.
    """
    record = {
        "format": FORMAT,
        "stage": stage,
        "digest": digest,
        "command": command,
        "spec": spec,
        "inputs": [described(file) for file in inputs],
        "outputs": [described(file) for file in outputs],
        "code": {**code, "commit": head_commit()},
        "environment": environment(),
        "run": {**_tensor_settings(stage), **run},
    }
    write_text(path, written({**record, "seal": seal(record)}))


@dataclass(frozen=True)
class Stated:
    """What a record says of files: the digest of its job, and the sha256 of the job's inputs and outputs by path."""

    digest: str
    inputs: dict[str, str]
    outputs: dict[str, str]


def stated(path: str | Path) -> Stated:
    """Return what the record at `path` says; OSError if it cannot be read, ValueError if it is no record."""
    content = Path(path).read_bytes()
    try:
        told = json.loads(content)
        sides = ({each["path"]: each["sha256"] for each in told[side]} for side in ("inputs", "outputs"))
        return Stated(told["digest"], *sides)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(f"{path}: is not a record") from None


def is_whole(path: str, digest: str, inputs: Iterable[str], outputs: Iterable[str]) -> bool:
    """Return whether the record at `path` has this digest, and `inputs` and `outputs` are to the byte what it says."""
    try:
        return stated(path) == Stated(digest, *({file: sha256(file) for file in side} for side in (inputs, outputs)))
    except (OSError, ValueError):
        return False


def written(record: Mapping[str, Any]) -> str:
    """Return the text of a record's file."""
    return json.dumps(record, sort_keys=True, indent=1) + "\n"


def recorded(words: Iterable[str], piped: Iterable[str]) -> list[str]:
    """Return what a record keeps of a command line: all but the options of UNRECORDED and their values.

    The names in `piped`, which came by standard input, stand in the place of `-`.
    """
    kept: list[str] = []
    skip = False
    for word in words:
        skip, skipped = word in UNRECORDED, skip
        if not (skip or skipped or word.startswith(tuple(f"{option}=" for option in UNRECORDED))):
            kept += piped if word == "-" else [word]
    return kept


def seal(record: Mapping[str, Any]) -> str:
    """Return the sha256 of `record` without its own `seal`, as canonical JSON.

    It keeps out the careless and the accident, not who knows the format: see docs/explanation/limits.md.
    """
    content = {key: value for key, value in record.items() if key != "seal"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def sha256(file: str | Path) -> str:
    """Return the sha256 of a file's content."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def described(file: str) -> dict[str, Any]:
    """Return path, size in bytes and sha256 of `file`."""
    return {"path": file, "bytes": os.path.getsize(file), "sha256": sha256(file)}


def environment() -> dict[str, Any]:
    """Return Python, package versions, processor and container image of this process."""
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": ", ".join([_cpu_model(), *_asked_for(KERNELS)]),
        "cuda": _cuda(),
        "image": image(),
    }


def image(definition: str | Path = "containers/eqcollapse.def") -> dict[str, str | None] | None:
    """Return sha256 of the container image that this process runs in and of its definition; None outside one."""
    running = os.environ.get("EQCOLLAPSE_IMAGE")
    if not running:
        return None
    path = Path(definition)
    return {"sha256": running, "definition": described(str(path))["sha256"] if path.exists() else None}


def _cuda() -> dict[str, Any] | None:
    """Return the versions of CUDA and cuDNN, the GPU and cuBLAS' workspace, where this process used a GPU."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    return {
        "runtime": torch.version.cuda,
        "cudnn": str(torch.backends.cudnn.version()),
        "gpu": ", ".join([torch.cuda.get_device_name(), *_asked_for(GPU_KERNELS)]),
        "cublas_workspace": os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    }


def _tensor_settings(stage: str) -> dict[str, Any]:
    """Return torch's threads and determinism, for the stages whose numbers torch makes."""
    torch = sys.modules.get("torch")
    if stage not in TENSOR_STAGES or torch is None:
        return {}
    return {"threads": torch.get_num_threads(), "deterministic": torch.are_deterministic_algorithms_enabled()}


def head_commit(folder: str | Path = ".") -> str | None:
    """Return the commit that HEAD names, read from .git by hand (an image holds no git); None outside a clone."""
    git = Path(folder, ".git")
    try:
        if git.is_file():  # a worktree
            git = Path(folder, git.read_text().removeprefix("gitdir:").strip())
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head
        return _resolved(git, head.removeprefix("ref: "))
    except OSError:
        return None


def _resolved(git: Path, reference: str) -> str | None:
    common = git / (git / "commondir").read_text().strip() if (git / "commondir").exists() else git
    for folder in (git, common):
        if (folder / reference).exists():
            return (folder / reference).read_text().strip()
    for line in (common / "packed-refs").read_text().splitlines():
        commit, _, name = line.partition(" ")
        if name == reference:
            return commit
    return None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _asked_for(variables: Iterable[str]) -> list[str]:
    """Return what in the environment has a library take other kernels, and so other roundings, than the processor's."""
    return [f"{name}={os.environ[name]}" for name in variables if os.environ.get(name)]


@cache
def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
