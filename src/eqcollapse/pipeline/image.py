"""The image that jobs run in: is it there, and which one is it."""

import os
import re
from pathlib import Path

from eqcollapse.runtime.errors import EqcollapseError

IMAGE = Path("containers/eqcollapse.sif")
STATED = Path("containers/eqcollapse.sif.sha256")
VARIABLE = "EQCOLLAPSE_IMAGE"
"""The environment variable that tells a job in the container the sha256 of its image, for its record."""


def announce() -> None:
    """Let jobs in the container know their image's sha256, as stated beside it by `make image`.

    Raises `EqcollapseError` where there is no image, or where what is stated cannot be of it.
    """
    if not IMAGE.exists():
        raise EqcollapseError(f"{IMAGE}: there is no such image: build it with `make image`")
    try:
        stated = (STATED.read_text().split() or [""])[0]
        older = STATED.stat().st_mtime < IMAGE.stat().st_mtime
    except OSError:
        raise EqcollapseError(f"{STATED}: cannot be read, so which image it is, is unknown: run `make image`") from None
    if older or not re.fullmatch(r"[0-9a-f]{64}", stated):
        raise EqcollapseError(f"{STATED}: is not of the image that is there now: run `make image`")
    for runtime in ("APPTAINERENV", "SINGULARITYENV"):
        os.environ[f"{runtime}_{VARIABLE}"] = stated
