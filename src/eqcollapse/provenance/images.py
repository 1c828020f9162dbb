"""The container image that records name, against the image and definition that are here."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from eqcollapse.provenance.findings import Finding
from eqcollapse.provenance.hashing import content
from eqcollapse.provenance.reading import Record

IMAGE = Path("containers/eqcollapse.sif")
STATED = Path("containers/eqcollapse.sif.sha256")
DEFINITION = Path("containers/eqcollapse.def")


def check_image(records: Iterable[Record]) -> tuple[list[tuple[Finding, list[str]]], list[str]]:
    """Return what is wrong, each with the records that it concerns, and what could not be checked."""
    named: dict[tuple[str, str | None], list[str]] = {}
    for record in records:
        image = record.content["environment"]["image"]
        if image:
            named.setdefault((image["sha256"], image["definition"]), []).append(record.path)
    if not named:
        return [], []
    here, notes = _here()
    return list(_compare(named, here)), notes


def _here() -> tuple[list[tuple[Path, str]], list[str]]:
    """Return the sha256 that the image has, and the one stated beside it."""
    here = []
    if IMAGE.is_file():
        here.append((IMAGE, content(IMAGE).sha256))
    if STATED.is_file():
        here.append((STATED, (STATED.read_text(errors="replace").split() or ["nothing"])[0]))
    if IMAGE.is_dir():
        return here, [
            f"{IMAGE} is a folder: its stated hash was compared, its files were not (make image CHECK=1 does)"
        ]
    return here, [] if here else [f"records name a container image, but there is no {IMAGE} here to compare"]


def _compare(named: dict, here: list[tuple[Path, str]]) -> Iterator[tuple[Finding, list[str]]]:
    for (image, definition), records in sorted(named.items(), key=str):
        for path, held in here:
            if held != image:
                expected = f"the image of {len(records)} records: sha256 {image}"
                remedy = "build the image of that commit, or remove the results"
                yield Finding("image", str(path), expected, f"sha256 {held}", remedy), records
        if definition and DEFINITION.is_file() and (now := content(DEFINITION).sha256) != definition:
            expected = f"the definition of {len(records)} records: sha256 {definition}"
            yield (
                Finding("image", str(DEFINITION), expected, f"sha256 {now}", "rebuild the image and the results"),
                records,
            )
