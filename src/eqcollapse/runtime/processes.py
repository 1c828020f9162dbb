"""Who a process is, so that another one can tell later, maybe on another host, whether it is gone."""

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_KEYS = {"host", "machine", "boot", "processes", "pid", "started"}


def note() -> dict[str, Any]:
    """Return what tells this process from all others: its machine, boot, set of process numbers, number and start."""
    return {**here(), "pid": os.getpid(), "started": started(os.getpid()), "written": time.time()}


def checked(content: Any) -> dict[str, Any] | None:
    """Return `content`, what a file holds, as a note; None if it is none."""
    try:
        return {**content, "written": float(content.get("written", "inf"))} if content.keys() >= _KEYS else None
    except (ValueError, TypeError, AttributeError):
        return None


def is_dead(noted: Mapping[str, Any] | None) -> bool:
    """Return whether the process of a note is gone for sure: of a process elsewhere, nothing is sure."""
    now = here()
    if noted is None or (noted["host"], noted["machine"]) != (now["host"], now["machine"]):
        return False
    if noted["boot"] != now["boot"]:
        known = bool(now["machine"] and now["boot"] and noted["boot"])
        # This machine was started anew since. A note from after that is another machine's, of the same names.
        return known and noted["written"] < _booted()
    return noted["processes"] == now["processes"] and started(noted["pid"]) != noted["started"]


def is_alive(noted: Mapping[str, Any] | None) -> bool:
    """Return whether the process of a note is there for sure: of a process elsewhere, nothing is sure."""
    now = here()
    if noted is None or any(noted[key] != now[key] for key in now) or not now["boot"]:
        return False
    return started(noted["pid"]) == noted["started"]


def here() -> dict[str, str]:
    """Return what tells this machine, this boot and this set of process numbers (of a container) from all others."""
    return {
        "host": socket.gethostname(),
        "machine": _said("/etc/machine-id"),
        "boot": _said("/proc/sys/kernel/random/boot_id"),
        "processes": _linked("/proc/self/ns/pid"),
    }


def started(pid: int) -> str | None:
    """Return when process `pid` started (clock ticks since boot), None if it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def _booted() -> float:
    """Return when this machine was started, in seconds since the epoch; 0, before every note, if it does not say."""
    for line in _said("/proc/stat").splitlines():
        if line.startswith("btime "):
            return float(line.split()[1])
    return 0.0


def _said(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _linked(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""
