"""Checkpoints, from which a killed run goes on to the bytes of an undisturbed one.

A killed run loses at most a minute or an epoch, whichever is longer; one that is told to end, the epoch under way. The
file is a sha256, and what it is of, as torch writes it: a bit that a disk turned would give other results.
"""

import copy
import hashlib
import io
import pickle
import sys
import time
from pathlib import Path
from typing import Any

import torch

from eqcollapse.runtime.files import write_bytes

EVERY = 60.0
"""Seconds between checkpoints of epochs that take less."""
_SIZE = hashlib.sha256().digest_size


class Checkpointing:
    """Holds the state of the last whole epoch, and writes it when the next would end more than EVERY seconds after
    what is written. The first is written at once: whether that can be done, it is well to know soon.

    As a context it writes what it holds where the run is interrupted.
    """

    def __init__(self, path: Path):
        self._path = path
        self._began = self._written = time.monotonic()
        self._epochs = 0
        self._held: dict[str, Any] | None = None

    def epoch(self, state: dict[str, Any]) -> None:
        """Take the `state` after an epoch; it may change afterwards."""
        now = time.monotonic()
        self._epochs += 1
        duration = (now - self._began) / self._epochs
        if self._epochs == 1 or now + duration - self._written > EVERY:
            save(self._path, state)
            self._held, self._written = None, now
        else:
            self._held = copy.deepcopy(state)

    def __enter__(self) -> "Checkpointing":
        return self

    def __exit__(self, kind: type[BaseException] | None, *about: object) -> None:
        if kind is KeyboardInterrupt and self._held is not None:
            save(self._path, self._held)


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
