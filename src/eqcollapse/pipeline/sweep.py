"""Keep results/ exactly what params.yaml asks for: put the rest in an attic, and bring back what is wanted again.

Nothing is deleted, so going back to an earlier setting costs nothing. A run does this before its first job. Who parses
the Snakefile only looks at what there is to move.
"""

import errno
import json
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from eqcollapse.provenance.records import sha256, stated
from eqcollapse.runtime import locks
from eqcollapse.runtime.errors import EqcollapseError
from eqcollapse.study.grid import Study
from eqcollapse.study.jobs import Job

__all__ = ["ATTIC", "Sweep", "forget", "is_complete", "is_in_use", "keep", "pending", "put_in_order"]

ROOTS = ("resources/datasets", "results")
ATTIC = Path(".attic")
RECORD = "provenance.json"
_PINNED = re.compile(r"^(.*@[0-9a-f]{10})(?:$|[./])")


@dataclass(frozen=True)
class Sweep:
    """What there is to move so that results/ is what a study asks for: `away` to the attic, `back` from it.

    A move is a pair of paths, and a list of moves is one thing: a run's folder, a split and its record, a figure in
    its formats. A sweep that is killed is taken up again, in either direction: under a fixed name, a record goes last
    and comes first, so that it is here as long as any file that it speaks of is.
    """

    away: list[list[tuple[Path, Path]]]
    back: list[list[tuple[Path, Path]]]

    @property
    def going(self) -> set[str]:
        """What is put aside: files with fixed names, folders, and files that carry a digest."""
        return {str(source) for moves in self.away for source, _ in moves}

    @property
    def coming(self) -> list[str]:
        """The files that come back."""
        pairs = [pair for moves in self.back for pair in moves]
        folders = [(source, target) for source, target in pairs if source.is_dir()]
        inside = [target / file.relative_to(source) for source, target in folders for file in source.rglob("[!.]*")]
        return [str(file) for file in (*inside, *(target for source, target in pairs if not source.is_dir()))]

    def __bool__(self) -> bool:
        return bool(self.away or self.back)

    def run(self) -> None:
        """Move everything, out first: what comes back may have the same name."""
        for moves in self.away:
            for source, target in moves:
                _move(source, target)
        for moves in self.back:
            for _, target in moves:
                _make_way(target)
            for source, target in moves:
                _move(source, target)


def pending(study: Study) -> Sweep:
    """Return what there is to move for `study`; looks, and moves nothing."""
    pinned = {job.path: job for job in study if job.pinned}
    away = [[(path, ATTIC / path)] for path in _pinned_paths() if _unit(path) not in pinned]
    back = [moves for job in pinned.values() if (moves := _returning(job, ATTIC, [job.path, f"{job.path}.{RECORD}"]))]
    gone, came = _pending_fixed([job for job in study if not job.pinned])
    return Sweep(away + gone, back + came)


def put_in_order(study: Study) -> bool:
    """Move what there is to move for `study`, and say so; return whether that was anything.

    The caller holds the folder's lock. Raises `EqcollapseError` while a job that outlived its run works here.
    """
    moves = pending(study)
    if not moves:
        return False
    if makers := locks.under_way():
        raise EqcollapseError(
            f"params.yaml: {len(moves.away)} results are of other settings, and cannot be put aside while {makers[0]}, "
            "for a run that was killed: wait for its end, or end it (or, if all that work here are dead, remove "
            f"{locks.JOB_LOCKS})"
        )
    moves.run()
    if pending(study):
        raise EqcollapseError("params.yaml: something writes results of other settings here: wait for its end")
    words = f"{len(moves.away)} results put aside in {ATTIC}, {len(moves.back)} brought back"
    print(f"params.yaml: {words}", file=sys.stderr, flush=True)
    return True


def is_complete(job: Job, folder: Path = Path()) -> bool:
    """Return whether all files of `job` lie under `folder`."""
    return all((folder / file).exists() for file in job.files)


def keep(jobs: Iterable[Job]) -> None:
    """Link what is costly of `jobs` into the attic: `dvc checkout` of another commit deletes what that does not list.

    A link takes no room, and stands for no result that lies aside as long as the same file lies in results/. Where a
    disk has no links, nothing is kept: what DVC has in its cache then comes back by `dvc checkout` alone.
    """
    for job in jobs:
        for file in job.files if job.pinned else ():  # the record comes last
            kept = ATTIC / file
            try:
                kept.parent.mkdir(parents=True, exist_ok=True)
                if not is_in_use(kept):
                    temporary = kept.with_name(f".{kept.name}.partial")
                    temporary.unlink(missing_ok=True)
                    os.link(file, temporary)
                    os.replace(temporary, kept)  # an older copy of the same promise, that may have been changed
            except OSError:
                return


def forget(job: Job) -> None:
    """Remove what is kept of `job`."""
    for file in job.files:
        (ATTIC / file).unlink(missing_ok=True)


def is_in_use(kept: Path) -> bool:
    """Return whether the file at `kept` in the attic is the very one that lies in results/."""
    here = kept.relative_to(ATTIC)
    return here.exists() and kept.exists() and here.samefile(kept)


def _pinned_paths() -> list[Path]:
    """Return the files and folders under the roots whose own name carries a digest."""
    found = []
    for root in ROOTS:
        for folder, folders, files in os.walk(root):
            found += [Path(folder, name) for name in (*folders, *files) if _PINNED.match(name)]
            folders[:] = [name for name in folders if not _PINNED.match(name)]
    return sorted(found)


def _unit(path: Path) -> str:
    """Return the job path that `path` belongs to: itself, or the file that its record stands beside."""
    return str(path).removesuffix(f".{RECORD}")


def _returning(job: Job, attic: Path, parts: Iterable[str]) -> list[tuple[Path, Path]]:
    """Return the moves that bring `job` back: none if it is all here, or not all to be found.

    `parts` are what is moved at once: a folder, or each file. Of files, some may be here already: a sweep was killed.
    """
    if is_complete(job):
        return []
    if any(is_in_use(ATTIC / file) for file in job.files):
        return []  # what was kept is what somebody has removed a part of here, so that it is made anew
    if is_complete(job, attic):
        return [(attic / part, Path(part)) for part in parts if (attic / part).exists()]
    missing = [part for part in parts if not Path(part).exists()]
    return [(attic / part, Path(part)) for part in missing] if _is_halfway(job, attic, missing) else []


def _is_halfway(job: Job, attic: Path, missing: list[str]) -> bool:
    """Return whether the files of `job` that are `missing` are in the attic, and the rest is what its record tells of.

    Under a fixed name another job may have left the rest, that was killed before it wrote its record.
    """
    if not all(file in job.files and (attic / file).exists() for file in missing):
        return False
    try:
        told = stated(attic / job.record if job.record in missing else job.record)
        here = [file for file in job.outputs if file not in missing]
        return told.digest == job.digest and all(sha256(file) == told.outputs.get(file) for file in here)
    except (OSError, ValueError):
        return False


def _pending_fixed(jobs: list[Job]) -> tuple[list, list]:
    """Files with fixed names: what they are is the digest in their record, that of the settings which they show."""
    wanted = {job.record: job for job in jobs}
    away, stale = [], set()
    for record, digest, files in _records():
        job = wanted.get(str(record))
        if job is None or job.digest != digest:
            stale.add(str(record))
            away.append([(Path(file), ATTIC / f"@{digest}" / file) for file in (*files, str(record))])
    back = []
    for job in jobs:
        attic = ATTIC / f"@{job.digest}"
        parts = (job.record, *job.outputs)
        if job.record not in stale:
            moves = _returning(job, attic, parts)
        else:  # what is here now goes before
            moves = [(attic / part, Path(part)) for part in parts] if is_complete(job, attic) else []
        back += [moves] if moves else []
    return away, back


def _records() -> Iterator[tuple[Path, str, list[str]]]:
    """Yield the records of fixed-name files under results/: their path, digest and the files that they speak of."""
    for folder, folders, files in os.walk("results"):
        folders[:] = [name for name in folders if not _PINNED.match(name)]
        for name in files:
            if name.endswith(f".{RECORD}") and not _PINNED.match(name):
                yield Path(folder, name), *_read(Path(folder, name))


def _read(record: Path) -> tuple[str, list[str]]:
    try:
        content = json.loads(record.read_text())
        digest = content["digest"]
        if not re.fullmatch(r"[0-9a-f]{10}", digest):
            return "unreadable", []
        return digest, _beside(record, [output["path"] for output in content["outputs"]])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "unreadable", []


def _beside(record: Path, files: list[str]) -> list[str]:
    """Return those of `files` that a record with a fixed name can speak of: in its folder, under fixed names."""
    return [file for file in files if Path(file).parent == record.parent and not _PINNED.match(file)]


def _move(source: Path, target: Path) -> None:
    if not os.path.lexists(source):  # links are moved as they are, also those that lead nowhere
        return
    if _is_folder_with_record(target) and not _is_folder_with_record(source):
        _remove(source)  # what a killed job left, where the whole of the same promise is there already
        return
    if target.is_file() and source.is_file() and source.samefile(target):
        source.unlink()  # a file kept already: a rename of one link to the other would do nothing
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir():  # an older copy of the same promise: the newer one takes its place
        _remove(target)
    try:
        os.replace(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        raise EqcollapseError(
            f"{source}: cannot be moved to {target}, which is on another disk: make {ATTIC} a link to a folder on the "
            f"disk of {source.parts[0]}/"
        ) from None
    _remove_empty(source.parent)


def _make_way(target: Path) -> None:
    """Remove a file that a killed job left: beside a record that comes, it would be taken for what that speaks of."""
    if os.path.lexists(target) and not target.is_dir():
        target.unlink()


def _remove(path: Path) -> None:
    """Remove a folder, or a link alone."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _remove_empty(folder: Path) -> None:
    """Remove `folder` and those above it that hold nothing, but for the first two levels, which stages own."""
    while len(folder.parts) > 2 and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def _is_folder_with_record(path: Path) -> bool:
    return (path / RECORD).exists()
