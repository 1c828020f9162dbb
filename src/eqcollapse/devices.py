"""A GPU of its own for every job on a machine with several: no two take the same one while another is free."""

import fcntl
import os
import re
import socket
from pathlib import Path
from typing import IO

LOCKS = Path(".cache/gpus")
VISIBLE = "CUDA_VISIBLE_DEVICES"


def claim(folder: Path = LOCKS) -> IO[str] | None:
    """Let this process see one GPU of those that it may use; to be called before CUDA starts.

    The claim is a lock of the kernel's, held until the process ends, however that happens. Where every GPU is taken
    (more jobs than GPUs run at a time), they are shared evenly. Returns what holds the claim; None where there was
    nothing to choose, or every GPU was taken.
    """
    devices = _visible()
    if len(devices) < 2:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    for device in devices:
        stream = open(folder / f"{socket.gethostname()}-{re.sub(r'[^A-Za-z0-9-]', '_', device)}", "a")  # noqa: SIM115
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            stream.close()
            continue
        os.environ[VISIBLE] = device
        return stream
    os.environ[VISIBLE] = devices[os.getpid() % len(devices)]
    return None


def _visible() -> list[str]:
    """Return the GPUs that this process may use: what its environment names, or all of the machine's."""
    named = os.environ.get(VISIBLE)
    if named is not None:
        return [device for device in named.split(",") if device]
    found = [re.fullmatch(r"nvidia(\d+)", path.name) for path in Path("/dev").glob("nvidia*")]
    return sorted((match[1] for match in found if match), key=int)
