"""How torch computes: device, threads, determinism, and what float32 means; each set on purpose."""

import os
from typing import Any

import torch
import torch.utils.deterministic

from eqcollapse.runtime.errors import EqcollapseError


def prepare(device: str, threads: int, deterministic: bool) -> torch.device:
    """Set torch up for one training job and return its device: `auto` is CUDA where there is one, and else the CPU.

    float32 means float32: TF32, which cuDNN would use for convolutions by itself, keeps 10 bits of 23. Deterministic,
    an operation that has no deterministic form is an error, and cuDNN chooses kernels by rule; else it tries which
    are fastest, and bytes may differ from run to run. Raises EqcollapseError for `cuda` where there is none.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise EqcollapseError("device: cuda is asked for, but torch sees no GPU: set device to auto or cpu")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what deterministic cuBLAS asks for
    # As use_deterministic_algorithms(True), which imports the compiler besides: two seconds a cell.
    torch.set_deterministic_debug_mode("error" if deterministic else "default")
    # Else every torch.empty is filled with NaN: a kernel more each, to find reads of what was never written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined] # torch makes it late
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    torch.set_num_threads(threads)
    return torch.device(device)


def settings(device: torch.device) -> dict[str, Any]:
    """Return how torch is set up now, for the record of a job on `device`."""
    stated = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }
    if device.type == "cuda":
        stated |= {"tf32": torch.backends.cudnn.allow_tf32, "cudnn_benchmark": torch.backends.cudnn.benchmark}
    return stated
