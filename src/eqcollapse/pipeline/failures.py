"""What a run says when it has failed: the cause first, then how to go on."""

import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

SCARCE = 10_000_000
"""Bytes; with less, a disk is as good as full."""
MOST = 5
"""Causes that are written out."""
TAIL = 1 << 16
"""Bytes at the end of a job's log that are looked at."""
_FAILED = re.compile(r"^\s+log: (.+) \(check log file\(s\) for error details\)$", re.MULTILINE)
"""How Snakemake's own log names the logs of a job that failed; of one that runs, nothing follows the names."""
_TOLD = re.compile(r"^eqcollapse \S+: .+")
_ERROR = re.compile(r"^[A-Za-z_][\w.]*(Error|Exception|Interrupt|Exit)\b.*")


def words_of_failure(logs: Iterable[str | Path]) -> str:
    """Return why the run whose Snakemake logs are `logs` failed, and how to go on."""
    lines = []
    failed = list(_failed(logs))
    causes = [(log, cause) for log in failed if (cause := cause_in(log))]
    for log, cause in causes[:MOST]:
        lines.append(f"Cause: {cause} ({log})")
    if len(causes) > MOST:
        lines.append(f"And {len(causes) - MOST} more jobs failed; their logs are named above.")
    lines.append("What is finished is kept: the same command goes on from here, a cell from its last epoch.")
    free = shutil.disk_usage(".").free
    if free < SCARCE:
        lines.append(f"This disk is full: {free} bytes are free. Make room first.")
    silent = [log for log in failed if log not in dict(causes)]
    if silent:
        lines.append(
            f"A job whose log names no cause ({', '.join(silent[:MOST])}) was killed from outside, most often for "
            "memory: `dmesg` or the cluster says so. docs/reference/sizes.md has what a cell needs. Fewer --cores run "
            "fewer jobs at a time."
        )
    return "\n".join(lines)


def _failed(logs: Iterable[str | Path]) -> Iterator[str]:
    """Yield the first log of each job that failed, once, in order; a job on a cluster has others beside its own."""
    found = [match[1].split(", ")[0] for log in logs for match in _FAILED.finditer(_end(log, None))]
    yield from dict.fromkeys(found)


def cause_in(log: str | Path) -> str | None:
    """Return the line of a job's log that says why it failed: eqcollapse's own, or the last line of a traceback."""
    lines = [line.strip() for line in re.split(r"[\r\n]+", _end(log, TAIL))]
    for pattern in (_TOLD, _ERROR):
        if found := [line for line in lines if pattern.match(line)]:
            return found[-1]
    return None


def _end(path: str | Path, most: int | None) -> str:
    """Return the last `most` bytes of a file as text; "" if it cannot be read."""
    try:
        content = Path(path).read_bytes()
    except OSError:
        return ""
    return content[-(most or len(content)) :].decode(errors="replace")
