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
from eqcollapse.theory.layer_peeled.descent import Imbalance, geometry, minimise_peeled
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
    kind `layer_peeled`: a row a (model, majority, ratio, seed) with the loss, its exact minimum, the balanced lower
    bound, the loss_at_zero log K of logits that say nothing, and the geometry. Floats are written to their last bit;
    an empty cell is a value that does not exist. Raises EqcollapseError for a descent that diverges; no file is
    written then.
    """
    name = "theory experiment " + output.name.removesuffix(".csv").split("@")[0]
    with _one_thread():
        rows = _ufm(spec, name, progress) if spec.kind == "ufm" else _layer_peeled(spec, name, progress)
        write_text(output, _as_csv(rows))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep to one thread: such matrices only lose by more, and bytes must not depend on how many there are."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(threads)


def _ufm(spec: UfmSpec, name: str, progress: Progress | None) -> Iterator[Row]:
    base = from_spec(spec)
    problems = [_scaled(base, scale) for scale in spec.lambda_scales]
    trajectory = minimise(
        problems,
        spec.seeds,
        iterations=spec.iterations,
        step=spec.step,
        start=spec.start,
        logged=spec.logged,
        name=name,
        progress=_told(progress, spec.iterations),
    )
    runs = [(s, problem, seed) for s, problem in zip(spec.lambda_scales, problems, strict=True) for seed in spec.seeds]
    for run, (scale, problem, seed) in enumerate(runs):
        best = optimum(problem)
        for t, iteration in enumerate(trajectory.iterations):
            row: Row = {"lambda_scale": float(scale), "seed": seed, "iteration": iteration}
            row |= {"loss": float(trajectory.loss[t, run]), "optimum": best.loss, "status": best.status}
            gap = math.nan if best.status == "beaten" else float(trajectory.gap[t, run])
            row |= {"lower": best.lower, "gap": gap}
            for layer in range(problem.layers):
                for metric in ("nc1", "nc2", "nc3", "rank"):
                    row[f"{metric}_{layer + 1}"] = getattr(trajectory, metric)[t, run, layer].item()
            yield row


def _layer_peeled(spec: LayerPeeledSpec, name: str, progress: Progress | None) -> Iterator[Row]:
    K, bound = spec.num_classes, math.sqrt(spec.bound_weight * spec.bound_features)
    cells = [Imbalance(k, float(r), s) for k in spec.majority for r in spec.ratios for s in spec.seeds]
    thresholds = {k: collapse_threshold(K, k, bound) for k in spec.majority}
    options = ("num_classes", "dim", "bound_weight", "bound_features", "iterations", "step", "start")
    for model in spec.models:
        told = _told(progress, spec.iterations, f"{model}: ")
        result = minimise_peeled(model, cells, name=name, progress=told, **{key: getattr(spec, key) for key in options})
        measured = geometry(result, cells)
        for run, cell in enumerate(cells):
            exact = peeled_optimum(K, cell.majority, cell.ratio, bound)
            row = {"model": model, "majority": cell.majority, "ratio": cell.ratio, "seed": cell.seed}
            row |= {
                "bound_weight": float(spec.bound_weight),
                "bound_features": float(spec.bound_features),
            }
            row |= {
                "loss": float(result.loss[run]),
                "optimum": exact.loss,
                "lower_bound": lower_bound(K, bound),
                "loss_at_zero": math.log(K),
            }
            row |= {
                "gap": float(result.loss[run] - result.optimum[run]),
                "threshold": thresholds[cell.majority],
            }
            row |= {"exact_minority_cosine": exact.minority_cosine, "exact_norm_ratio": exact.norm_ratio}
            yield row | {metric: float(values[run]) for metric, values in measured.items()}


def _scaled(problem: Problem, scale: float) -> Problem:
    """Return the problem with every lambda times `scale`."""
    return replace(
        problem,
        lambda_weights=tuple(scale * value for value in problem.lambda_weights),
        lambda_features=scale * problem.lambda_features,
        lambda_bias=scale * problem.lambda_bias,
    )


def _told(progress: Progress | None, iterations: int, who: str = "") -> Callable[[int], None] | None:
    return progress and (lambda iteration: progress(f"{who}iteration {iteration} of {iterations}"))


def _as_csv(rows: Iterable[Row]) -> str:
    text = io.StringIO()
    writer = None
    for row in rows:
        if writer is None:
            writer = csv.DictWriter(text, list(row), lineterminator="\n")
            writer.writeheader()
        writer.writerow({key: _cell(value) for key, value in row.items()})
    return text.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(float(value))
    return value
