"""The command `init`: a study of one's own images, as a preset."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eqcollapse.runtime.errors import EqcollapseError

if TYPE_CHECKING:
    from eqcollapse.data.survey import Survey
    from eqcollapse.pipeline.new_study import Choice


def add_arguments(commands: Any) -> None:
    """Add `init` to the command line's subparsers."""
    init = commands.add_parser(
        "init",
        help="write a study of your images",
        description="Read a folder or archive of images ({train,test}/<class>/<image>), and write a preset: its "
        "sha256, classes and sizes, and the numbers of majority classes, samples and epochs that fit. Run it in the "
        "folder of params.yaml. Training is timed for some seconds.",
    )
    init.add_argument("--images", type=Path, required=True, metavar="PATH", help="a folder or an archive")
    init.add_argument("--name", help="the data set's name in files and tables (that of the folder)")
    init.add_argument("--minutes", type=float, default=20.0, help="how long the study may take on this machine (20)")
    init.add_argument("--output", type=Path, help="the preset to write (NAME.yaml)")
    init.set_defaults(run=_init)


def _init(options: argparse.Namespace, _: list[str]) -> None:
    from eqcollapse.data.survey import survey
    from eqcollapse.pipeline import new_study
    from eqcollapse.runtime.files import replacing

    name = new_study.name_of(options.name or options.images.name.partition(".")[0])
    output = options.output or Path(f"{name}.yaml")
    if output.exists():
        raise EqcollapseError(f"{output} is there already: name another file with --output")
    found = survey(options.images)
    new_study.check(found)
    cores = len(os.sched_getaffinity(0))
    place = str(options.images)
    with replacing(output) as written:
        written.write_text(new_study.preset(name, place, found, new_study.choose(found, 0, [0])))
        chosen = new_study.choose(found, 60 * options.minutes * cores, _costs(written, found))
        written.write_text(new_study.preset(name, place, found, chosen))
        _loaded(written)
    print("\n".join(_said(output, found, chosen, cores)))


def _loaded(written: Path) -> Any:
    from eqcollapse.study.grid import Study
    from eqcollapse.study.params import load

    return Study(load("params.yaml", str(written)))


def _costs(written: Path, found: "Survey") -> list[float]:
    """Return the seconds a training image takes in each model of the study."""
    from eqcollapse.pipeline.new_study import side
    from eqcollapse.training.timing import seconds_an_image

    specs = {job.spec.model: job.spec for job in _loaded(written).jobs["train"].values()}
    pixels = side(found) or max(found.width[1], found.height[1])
    return [seconds_an_image(spec, found.channels, pixels, len(found.classes)) for spec in specs.values()]


def _said(output: Path, found: "Survey", chosen: "Choice", cores: int) -> list[str]:
    from eqcollapse.pipeline.new_study import ENOUGH, side

    size = side(found)
    pixels = f"{found.width[0]} to {found.width[1]} x {found.height[0]} to {found.height[1]} pixels"
    lines = [
        f"{len(found.classes)} classes, {sum(found.train)} images to train on, {sum(found.test)} to test; {pixels}.",
        f"Wrote {output}: KA = {chosen.majority}, R = {chosen.ratio}, {chosen.per_class} training images of a majority "
        f"class{f', resized to {size} x {size}' if size else ''}, {chosen.epochs} epochs.",
        f"It takes about {chosen.seconds / cores / 60:.0f} minutes on {cores} cores.",
    ]
    if chosen.epochs < ENOUGH:
        lines.append(f"Collapse needs {ENOUGH} epochs or more: give it more --minutes, or fewer images.")
    return [*lines, f"Next: snakemake --cores all --configfile {output}"]
