"""Whether this machine can do what params.yaml asks for: looked at before any job."""

import importlib.util
import os
from pathlib import Path

from eqcollapse.runtime.errors import EqcollapseError
from eqcollapse.runtime.gpus import VISIBLE

DEVICES = ("nvidia[0-9]*", "dxg")
"""What a GPU is under /dev: on Linux, and in WSL."""


def check_gpu(*, contained: bool, devices: Path = Path("/dev")) -> None:
    """Raise EqcollapseError if jobs on this machine, which params.yaml sends to a GPU, will find none.

    In a container (`contained`) torch is the image's own, and not this process'.
    """
    remedy = "set it to auto, which takes a GPU where there is one, or to cpu (`python -m eqcollapse doctor` has more)"
    if os.environ.get(VISIBLE) in ("", "-1"):
        raise EqcollapseError(f"params.yaml: device: cuda needs a GPU, and {VISIBLE} hides all: unset it, or {remedy}")
    if not any(path for pattern in DEVICES for path in devices.glob(pattern)):
        raise EqcollapseError(f"params.yaml: device: cuda needs a GPU, and this machine has none: {remedy}")
    if not contained and not _torch_has_cuda():
        raise EqcollapseError(
            f"params.yaml: device: cuda needs a GPU, and this torch cannot use the one here: {remedy}"
        )


def check_tensorboard(*, contained: bool) -> None:
    """Raise EqcollapseError if jobs are to write event files, and the package for that is missing here or in the image
    (`contained`), which is built from requirements.lock.
    """
    if contained:
        raise EqcollapseError(
            "params.yaml: log.tensorboard: true needs the package tensorboard, which the image does not have: "
            "set it to false, or run without the image"
        )
    if importlib.util.find_spec("tensorboard") is None:
        raise EqcollapseError(
            "params.yaml: log.tensorboard: true needs the package tensorboard, which is not installed: "
            "pip install 'tensorboard>=2.18', or set it to false"
        )


def _torch_has_cuda() -> bool:
    import torch  # two seconds, which only who asks for cuda waits for

    return torch.cuda.is_available()
