"""Whether images of one's own are still those that their sha256 was taken of: looked at before each run."""

from collections.abc import Iterator
from pathlib import Path

from eqcollapse.data.extent import change
from eqcollapse.study.grid import Study


def changes(study: Study) -> Iterator[str]:
    """Yield a warning for each data set that is made already, and whose folder or archive is another one by now.

    It stays what it was made from: its path carries the sha256. A download is not looked at.
    """
    for job in study.jobs["data"].values():
        name = job.settings["name"]
        place = study.params.datasets[name].path
        if place and Path(job.outputs[0]).exists() and (differs := change(place, job.outputs[0])):
            yield (
                f"datasets.{name}: {place} has changed: {differs}. Results are of what it was; for what it is, set "
                f"datasets.{name}.sha256 to what `python -m eqcollapse hash {place}` prints"
            )
