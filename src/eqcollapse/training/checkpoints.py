"""A checkpoint an epoch, from which a killed run goes on to the bytes of an undisturbed one.

The file is a sha256, and what it is of, as torch writes it: a bit that a disk turned would give other results.
"""

import hashlib
import io
import pickle
import sys
from pathlib import Path
from typing import Any

import torch

from eqcollapse.runtime.files import write_bytes

_SIZE = hashlib.sha256().digest_size


def save(path: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, strings and lists and mappings of them) in place of an earlier one."""
    stream = io.BytesIO()
    torch.save(state, stream)
    content = stream.getvalue()
    write_bytes(path, hashlib.sha256(content).digest() + content)


def load(path: Path, device: torch.device) -> dict[str, Any] | None:
    """Return what `save` wrote to `path`, None if there is nothing that can be used. Never runs code of the file."""
    try:
        held = path.read_bytes()
    except OSError:
        return None
    if hashlib.sha256(held[_SIZE:]).digest() == held[:_SIZE]:
        try:
            return torch.load(io.BytesIO(held[_SIZE:]), map_location=device, weights_only=True)
        except pickle.UnpicklingError:  # somebody else's, with code in it
            pass
    print(f"{path}: is not a whole checkpoint; training starts anew", file=sys.stderr)
    return None
