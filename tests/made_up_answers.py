"""Made-up answers on test images, for results that were made up as means."""

import numpy as np
import pandas as pd

from eqcollapse.report.answers import Answers


def all_right(accuracy: pd.DataFrame, images: int = 20_000) -> Answers:
    """Return answers that add next to nothing to the seeds' spread: so many images of two classes, all right."""
    labels = np.arange(images) % 2
    cells = list(accuracy[["dataset", "split", "model", "seed"]].drop_duplicates().itertuples(index=False, name=None))
    ways = ("test", "skipped", "solved")
    return Answers(
        labels={dataset: labels for dataset, *_ in cells},
        right={cell: {way: np.ones(images, dtype=np.uint8) for way in ways} for cell in cells},
        majority=dict.fromkeys(cells, (0,)),
    )
