"""A GPU for every job on a machine with several: the one that the fewest others have."""

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

    A claim is a lock of the kernel's on a place at a GPU, held until the process ends, however that happens. The first
    places of all GPUs are taken before the second ones: while there are no more jobs than GPUs each has its own,
    and more jobs share them evenly. Returns what holds the claim; None where there was nothing to choose, or
    nothing can be locked.
    """
    devices = _visible()
    if len(devices) < 2:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    place = 0
    while True:
        for device in devices:
            name = f"{socket.gethostname()}-{re.sub(r'[^A-Za-z0-9-]', '_', device)}-{place}"
            stream = open(folder / name, "a")  # noqa: SIM115 (held by the caller)
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                stream.close()
                continue
            except OSError:  # a file system without locks: then by chance
                stream.close()
                os.environ[VISIBLE] = devices[os.getpid() % len(devices)]
                return None
            os.environ[VISIBLE] = device
            return stream
        place += 1


def _visible() -> list[str]:
    """Return the GPUs that this process may use: what its environment names, or all of the machine's."""
    named = os.environ.get(VISIBLE)
    if named is not None:
        return [device for device in named.split(",") if device]
    found = [path for path in Path("/dev").glob("nvidia*") if re.fullmatch(r"nvidia\d+", path.name)]
    return [str(number) for number in range(len(found))]  # as CUDA counts those that a container was given
