"""Data sets as two safetensors files, their splits as CSV, and batches on the device.

`data.batches` (Batches, channel_statistics) is imported by its own name: it alone needs torch, and the stages
`data` and `splits` start without it.
"""

from .checksums import content_sha256, tree_sha256
from .job import SOURCES, prepare
from .registry import CANONICAL
from .splits import Split, read_split, write_split
from .store import Dataset, read_dataset, read_labels, write_dataset

__all__ = [
    "CANONICAL",
    "SOURCES",
    "Dataset",
    "Split",
    "content_sha256",
    "prepare",
    "read_dataset",
    "read_labels",
    "read_split",
    "tree_sha256",
    "write_dataset",
    "write_split",
]
