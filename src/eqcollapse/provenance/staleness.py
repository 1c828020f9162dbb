"""Why a job is to be done: never made, or made from other settings, inputs or code."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from eqcollapse.provenance.reading import Record, undigested
from eqcollapse.study.jobs import Job


@dataclass(frozen=True)
class Cause:
    """`kind` is parameter, code, input or missing; `detail` says which; `old` is the record of the earlier result."""

    kind: str
    detail: str
    old: Record | None = None


class Relatives:
    """Earlier results of the same cells, found by name whatever their digest."""

    def __init__(self, records: Iterable[Record]):
        self._by_name: dict[str, list[Record]] = {}
        for record in records:
            self._by_name.setdefault(record.name, []).append(record)

    def cause(self, job: Job, code: str) -> Cause:
        """Return why `job`, whose stage's code has the digest `code`, has no result of today's."""
        candidates = self._by_name.get(f"{job.stage} {undigested(job.outputs[0])}", [])
        # One of the very digest is no earlier result, but what is kept in the attic of one that was removed.
        causes = [_cause(job, code, record) for record in candidates if record.content["digest"] != job.digest]
        if not causes:
            return Cause("missing", "never made, or removed")
        return min(causes, key=lambda cause: (cause.detail.count(";"), cause.old.path if cause.old else ""))


def _cause(job: Job, code: str, old: Record) -> Cause:
    changes = list(differences(old.content["spec"], job.settings))
    if changes:
        return Cause("parameter", "; ".join(changes), old)
    if old.content["code"]["digest"] != code:
        return Cause("code", f"the source of stage {job.stage} changed", old)
    return Cause("input", "what it reads changed", old)


def differences(old: Any, new: Any, key: str = "") -> Iterator[str]:
    """Yield `key: old -> new` for each leaf in which two settings differ."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in dict.fromkeys([*old, *new]):
            inner = f"{key}.{name}" if key else str(name)
            yield from differences(old.get(name, _ABSENT), new.get(name, _ABSENT), inner)
    elif old != new or isinstance(old, bool) != isinstance(new, bool):
        yield f"{key}: {_shown(old)} -> {_shown(new)}"


class _Absent:
    def __repr__(self) -> str:
        return "(none)"


_ABSENT = _Absent()


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
