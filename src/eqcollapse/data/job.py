"""The stage `data`: one spec to `train.safetensors` and `test.safetensors`."""

from functools import partial
from pathlib import Path

from eqcollapse.runtime.errors import EqcollapseError
from eqcollapse.runtime.files import replacing

from .archives import FORMATS, hashed_members, members
from .canonical import READERS, ArraysBySplit, Fetch
from .checksums import content_sha256
from .config import DatasetSpec
from .download import PATIENCE, Patience, fetch, file_name, is_url, without_password
from .extent import extent
from .imagefolder import read_imagefolder
from .images import resize_all
from .registry import CANONICAL, RemoteFile
from .store import Dataset, save_dataset

_MAX_ARCHIVE_BYTES = 1 << 38

# Images and labels by split, class names, the SHA-256 of what was read by its name, and what its files store by split.
Source = tuple[ArraysBySplit, tuple[str, ...], dict[str, str], dict[str, dict]]


def run(
    spec: DatasetSpec, inputs: list[str], outputs: list[str], *, path: str | None, mirror: str | None, cache: Path
) -> None:
    """Write the data set of `spec` to `outputs` (train, test); see `prepare_dataset`."""
    train, test = outputs
    prepare_dataset(spec, train, test, path=path, mirror=mirror, cache=cache)


def prepare_dataset(
    spec: DatasetSpec,
    train: str | Path,
    test: str | Path,
    *,
    path: str | None = None,
    mirror: str | None,
    cache: str | Path,
    patience: Patience = PATIENCE,
) -> None:
    """Write the data set of `spec` to `train` and `test` (see `store.write_dataset`), both or neither.

    `path` is where the bytes of an image folder lie: a folder or an archive, whose sha256 `spec` has. `mirror` (a
    folder, an address or None) is looked at before the canonical addresses; downloads are kept in `cache`. Neither
    changes what is written. Raises EqcollapseError, one line, for anything that is missing, altered or hostile.
    """
    fetch_file = partial(fetch, dataset=spec.name, mirror=mirror, cache=Path(cache), patience=patience)
    if spec.source == "imagefolder":
        splits, classes, sources, stored = _imagefolder(spec, path, fetch_file)
    else:
        splits, classes, sources, stored = _canonical(spec, fetch_file)
    written = {
        split: Dataset(images, labels, classes, spec.name, sources, stored.get(split, {}))
        for split, (images, labels) in splits.items()
    }
    needed = sum(dataset.images.nbytes for dataset in written.values())
    with replacing(test, needed) as test_file, replacing(train, needed) as train_file:
        save_dataset(train_file, written["train"])
        save_dataset(test_file, written["test"])


def _canonical(spec: DatasetSpec, fetch_file: Fetch) -> Source:
    known = CANONICAL[spec.source]
    splits, sources = READERS[spec.source](known, fetch_file)
    resized = {split: (resize_all(images, spec.size), labels) for split, (images, labels) in splits.items()}
    return resized, known.classes, sources, {}


def _imagefolder(spec: DatasetSpec, place: str | None, fetch_file: Fetch) -> Source:
    if not place:
        raise EqcollapseError(f"datasets.{spec.name}.path is not set: imagefolder needs a folder or an archive")
    path = Path(place)
    if path.is_dir():
        found, files = hashed_members(path)
    else:
        path, found = _archive(spec, place, fetch_file)
        files = members(path)
    _compare(spec, place, found)
    size = extent(path)
    splits, classes, stored = read_imagefolder(files, path.name, spec.size)
    if len(classes) != spec.classes:
        raise EqcollapseError(
            f"datasets.{spec.name}.classes = {spec.classes}, but {path.name} has {len(classes)} classes"
        )
    # Not under the file's own name: where the bytes lie and what that place is called does not change them.
    facts = {split: {**stored[split].facts(), "extent": size} for split in stored}
    return splits, classes, {spec.name: found}, facts


def _archive(spec: DatasetSpec, place: str, fetch_file: Fetch) -> tuple[Path, str]:
    """The archive at `place`, where it lies or fetched, and its SHA-256."""
    name = file_name(place) if is_url(place) else Path(place).name
    if not name.lower().endswith(tuple(FORMATS)):
        raise EqcollapseError(
            f"datasets.{spec.name}.path = {without_password(place)}: must be a folder or one of {', '.join(FORMATS)}"
        )
    if not is_url(place) and Path(place).is_file():
        return Path(place), content_sha256(place)
    remote = RemoteFile(
        name=name,
        urls=(place,) if is_url(place) else (),
        max_bytes=_MAX_ARCHIVE_BYTES,
        sha256=spec.sha256,
    )
    try:
        return fetch_file(remote), spec.sha256 or ""  # config.py asks for it
    except EqcollapseError as error:
        if is_url(place):
            raise
        raise EqcollapseError(f"datasets.{spec.name}.path: there is no {place}; {error}") from error


def _compare(spec: DatasetSpec, place: str, found: str) -> None:
    if spec.sha256 != found:
        raise EqcollapseError(
            f"{place} has the sha256 {found}, not {spec.sha256}: it was altered, or datasets.{spec.name}.sha256 is "
            "that of something else; if it is what you mean, set that key to the sha256 it has"
        )
