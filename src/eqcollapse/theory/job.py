"""The theory stage: one experiment's spec to one CSV file."""

import csv
import io
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from eqcollapse.runtime.files import write_text
from eqcollapse.theory.config import LayerPeeledSpec, UfmSpec
from eqcollapse.theory.layer_peeled.descent import Cell, geometry, minimise_peeled
from eqcollapse.theory.layer_peeled.optimum import collapse_threshold, lower_bound, peeled_optimum
from eqcollapse.theory.ufm.descent import minimise
from eqcollapse.theory.ufm.optimum import optimum
from eqcollapse.theory.ufm.problem import Problem, from_spec

Progress = Callable[[str], None]
Row = dict[str, Any]


def run(spec: UfmSpec | LayerPeeledSpec, inputs: list[str], outputs: list[str]) -> dict[str, Any]:
    """Run the experiment of `spec`, which reads nothing, to `outputs` (one file), and tell of its progress."""
    (output,) = outputs
    experiment(spec, Path(output), progress=lambda line: print(line, file=sys.stderr, flush=True))
    return {"threads": 1}  # which it keeps to, and then gives back what this process had


def experiment(spec: UfmSpec | LayerPeeledSpec, output: Path, progress: Progress | None = None) -> None:
    """Run the experiment of `spec`; write its CSV to `output`.

    kind `ufm`: a row a (lambda_scale, seed, logged iteration) with the loss, the closed form `optimum` with
    its `status` and `lower`, the `gap` to it (empty where it is `beaten`), and nc1_l, nc2_l, nc3_l, rank_l of the
    features that W_l reads.
    kind `layer-peeled`: a row a (model, majority, ratio, seed) with the loss, its exact minimum, the balanced lower
