"""The stage `data`: one spec to `train.safetensors` and `test.safetensors`."""

from functools import partial
from pathlib import Path

from eqcollapse.runtime.errors import EqcollapseError
from eqcollapse.runtime.files import replacing

from .archives import FORMATS, folder_members, members
from .canonical import READERS, Fetch, Splits
from .checksums import content_sha256, digest_of_tree, file_digests
from .download import PATIENCE, Patience, fetch, file_name, is_url, shown
from .imagefolder import read_imagefolder
from .images import resize_all
from .registry import CANONICAL, RemoteFile
from .store import Dataset, save_dataset

_KEYS = {"name", "source", "path", "sha256", "size", "classes"}
_MAX_ARCHIVE_BYTES = 1 << 38

# Images and labels by split, class names, and the SHA-256 of what was read by its name.
Source = tuple[Splits, tuple[str, ...], dict[str, str]]


def run(
    spec: dict, inputs: list[str], outputs: list[str], *, path: str | None, mirror: str | None, cache: Path
) -> None:
    """Write the data set of `spec` to `outputs` (train, test); `path` is where the bytes of an image folder lie."""
    train, test = outputs
    prepare({**spec, "path": path}, train, test, mirror=mirror, cache=cache)


def prepare(
    spec: dict,
    train: str | Path,
    test: str | Path,
    *,
    mirror: str | None,
    cache: str | Path,
    patience: Patience = PATIENCE,
) -> None:
    """Write the data set of `spec` to `train` and `test` (see `store.write_dataset`), both or neither.

    `spec`: name; source, a key of SOURCES; size, to which images are resized, or None; and for `imagefolder`,
    None elsewhere, path, sha256 (of the archive's bytes or a folder's `tree_sha256`) and classes, their
    number. `mirror` (a folder, an address or None) is looked at before the canonical addresses; downloads are
    kept in `cache`. Neither changes what is written. Raises EqcollapseError, one line, for anything that is
    missing, altered or hostile.
    """
    _check_spec(spec)
    fetch_file = partial(fetch, dataset=spec["name"], mirror=mirror, cache=Path(cache), patience=patience)
    splits, classes, sources = SOURCES[spec["source"]](spec, fetch_file)
    written = {
        split: Dataset(images, labels, classes, spec["name"], sources) for split, (images, labels) in splits.items()
    }
    needed = sum(dataset.images.nbytes for dataset in written.values())
    with replacing(test, needed) as test_file, replacing(train, needed) as train_file:
        save_dataset(train_file, written["train"])
        save_dataset(test_file, written["test"])


def _canonical(spec: dict, fetch_file: Fetch) -> Source:
    known = CANONICAL[spec["source"]]
    splits, sources = READERS[spec["source"]](known, fetch_file)
    resized = {split: (resize_all(images, spec["size"]), labels) for split, (images, labels) in splits.items()}
    return resized, known.classes, sources


def _imagefolder(spec: dict, fetch_file: Fetch) -> Source:
    path = Path(spec["path"])
    if path.is_dir():
        digests = file_digests(path)
        found, files = digest_of_tree(digests), folder_members(path, digests)
    else:
        path, found = _archive(spec, fetch_file)
        files = members(path)
    _compare(spec, found)
    splits, classes = read_imagefolder(files, path.name, spec["size"])
    if len(classes) != spec["classes"]:
        raise EqcollapseError(
            f"datasets.{spec['name']}.classes = {spec['classes']}, but {path.name} has {len(classes)} classes"
        )
    # Not under the file's own name: where the bytes lie and what that place is called does not change them.
    return splits, classes, {spec["name"]: found}


def _archive(spec: dict, fetch_file: Fetch) -> tuple[Path, str]:
    """The archive that `path` names, where it lies or fetched, and its SHA-256."""
    place = spec["path"]
    name = file_name(place) if is_url(place) else Path(place).name
    if not name.lower().endswith(tuple(FORMATS)):
        raise EqcollapseError(
            f"datasets.{spec['name']}.path = {shown(place)}: must be a folder or one of {', '.join(FORMATS)}"
        )
    if not is_url(place) and Path(place).is_file():
        return Path(place), content_sha256(place)
    if spec["sha256"] is None:
        raise EqcollapseError(
            f"datasets.{spec['name']}.sha256 is not set: it is needed before {name} is fetched "
            "(`python -m eqcollapse hash FILE` prints it)"
        )
    remote = RemoteFile(
        name=name,
        urls=(place,) if is_url(place) else (),
        max_bytes=_MAX_ARCHIVE_BYTES,
        sha256=spec["sha256"],
    )
    try:
        return fetch_file(remote), spec["sha256"]
    except EqcollapseError as error:
        if is_url(place):
            raise
        raise EqcollapseError(f"datasets.{spec['name']}.path: there is no {place}; {error}") from error


def _compare(spec: dict, found: str) -> None:
    if spec["sha256"] is None:
        raise EqcollapseError(f"datasets.{spec['name']}.sha256 is not set: {spec['path']} has {found}")
    if spec["sha256"] != found:
        raise EqcollapseError(
            f"{spec['path']} has the sha256 {found}, not {spec['sha256']}: it was altered, or "
            f"datasets.{spec['name']}.sha256 is that of something else"
        )


def _check_spec(spec: dict) -> None:
    if set(spec) != _KEYS:
        raise EqcollapseError(f"data set: keys {sorted(spec)} given, {sorted(_KEYS)} expected")
    if spec["source"] not in SOURCES:
        raise EqcollapseError(f"source = {spec['source']}: one of {', '.join(SOURCES)}")
    if spec["name"] in ("", ".", "..") or "/" in spec["name"] or not spec["name"].isprintable():
        raise EqcollapseError(f"name = {spec['name']!r}: a plain file name is needed")
    if spec["size"] is not None and not 1 <= spec["size"] <= 4096:
        raise EqcollapseError(f"datasets.{spec['name']}.size = {spec['size']}: 1 to 4096 pixels, or null")
    if spec["source"] == "imagefolder":
        if not spec["path"]:
            raise EqcollapseError(f"datasets.{spec['name']}.path is not set: imagefolder needs a folder or an archive")
    elif any(spec[key] is not None for key in ("path", "sha256", "classes")):
        raise EqcollapseError(
            f"datasets.{spec['name']}: path, sha256 and classes are for imagefolder, not {spec['source']}"
        )


SOURCES = {**dict.fromkeys(CANONICAL, _canonical), "imagefolder": _imagefolder}
