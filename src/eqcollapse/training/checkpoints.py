"""A checkpoint an epoch, from which a killed run goes on to the bytes of an undisturbed one."""

import pickle
import sys
from pathlib import Path
from typing import Any

import torch

from eqcollapse.atomic import replacing


def save(path: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, strings and lists and mappings of them) in place of an earlier one."""
    # By a stream, so that a full disk is an OSError; torch's own writer forgets why it failed.
    with replacing(path) as temporary, open(temporary, "wb") as stream:
        torch.save(state, stream)


def load(path: Path, device: torch.device) -> dict[str, Any] | None:
    """Return what `save` wrote to `path`, None if there is nothing that can be used. Never runs code of the file."""
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        return None
    except (RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError):
        print(f"{path}: is not a whole checkpoint; training starts anew", file=sys.stderr)
        return None
