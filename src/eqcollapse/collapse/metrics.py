"""The table of neural-collapse metrics: one flat dictionary of numbers from moments and a classifier."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Sequence
from operator import index

import torch
from torch import Tensor

from eqcollapse.collapse import geometry
from eqcollapse.collapse.arrays import as_tensor
from eqcollapse.collapse.definitions import ACROSS, GROUP, WHOLE, Across
from eqcollapse.collapse.moments import Moments
from eqcollapse.collapse.presets import PRESETS, Preset
from eqcollapse.collapse.requirements import NEEDS, Metric, missing
from eqcollapse.collapse.view import Options, View

GROUPS = ("majority", "minority")
PAPERS = ("sun2024", "tirer2022")
"""Presets that stand in the table too, under their own names and whatever the options."""

COLUMNS: tuple[str, ...] = (
    "samples",
    "classes",
    *WHOLE,
    *(f"{name}_{group}" for group in GROUPS for name in GROUP),
    *ACROSS,
    *(f"{paper}_{name}" for paper in PAPERS for name in PRESETS[paper].metrics),
)
"""The names that `collapse_metrics` returns, in their order."""

NO_MAJORITY = "no majority classes were given"
"""Why what is told of groups is nan."""


class Metrics(dict[str, float]):
    """Numbers by name. `reasons` says by name why a number is nan, and what there is to know of some that
    are not.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reasons: dict[str, str] = {}

    def put(self, name: str, value: float, unless: str) -> None:
        """Set `name`; a `value` that is not finite is undefined, because of `unless`."""
        self[name] = float(value) if math.isfinite(value) else math.nan
        if math.isnan(self[name]):
            self.reasons[name] = unless


def collapse_metrics(
    moments: Moments,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    majority: Sequence[int] | None = None,
    *,
    preset: str | None = None,
    mean: str = Options.mean,
    between: str = Options.between,
    within: str = Options.within,
    center_weight: bool = Options.center_weight,
) -> Metrics:
    """Return the metrics of docs/reference/metrics.md by name: always `COLUMNS`, in that order.

    `weight` W (K×d) and `bias` (K) are the classifier, the same that the second pass was given.
    `majority` lists the classes of the majority group; all others are the minority. `mean`, `between`,
    `within` and `center_weight` are those of `Options`. Classes without samples are left out (`classes`
    counts the rest). What is undefined is nan, for the reason in `.reasons`: degenerate features raise
    nothing. ValueError on unknown options, classes, or wrong shapes.

    With `preset` ("papyan2020", "zhu2021", "tirer2022" or "sun2024") return that paper's metrics instead,
    by its own definitions and under the names in `PRESETS[preset].metrics`; it fixes all options, and
    knows no groups.
    """
    weight, bias = as_tensor("weight", weight), as_tensor("bias", bias)
    options = Options(mean, between, within, center_weight)
    if preset is not None:
        if options != Options() or majority is not None:
            raise ValueError("a preset fixes all options: give a preset, or options and groups")
        known = _preset(preset)
        return _measured(known.metrics, View.of(moments, weight, bias, known.options))
    view = View.of(moments, weight, bias, options)
    groups = None if majority is None else _split(view, majority)
    metrics = Metrics()
    metrics.put("samples", float(view.counts.sum()), "")
    metrics.put("classes", float(len(view.classes)), "")
    for name, metric in WHOLE.items():
        _measure(metrics, name, metric, view)
    for group in GROUPS:
        for name, metric in GROUP.items():
            _measure(metrics, f"{name}_{group}", metric, groups[group] if groups else None)
    for name, across in ACROSS.items():
        _measure(metrics, name, across, *(groups.values() if groups else (None,)))
    for paper in PAPERS:
        own = PRESETS[paper].options
        seen = view if options == own else View.of(moments, weight, bias, own)
        for name, metric in PRESETS[paper].metrics.items():
            _measure(metrics, f"{paper}_{name}", metric, seen)
    _remark_on_rank(metrics, "", view)
    for group, members in groups.items() if groups else ():
        _remark_on_rank(metrics, f"_{group}", members)
    return metrics


def class_metrics(
    moments: Moments,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    mean: str = Options.mean,
    between: str = Options.between,
    center_weight: bool = Options.center_weight,
) -> dict[str, Tensor]:
    """Return what there is to say of each class: float64 tensors of shape K, nan where undefined (no or
    one sample, ...).

    samples; variance, (1/n_k) sum ||h - m_k||^2; nc1, Tr(S_k S_B^+)/K with the class's own covariance
    S_k, whose mean weighted by n_k/N is the pooled nc1; norm_means and norm_weight; nc3_cosine, 1 -
    cos(w_k, m_k - mu); nc4, accuracy and centre_accuracy. Arguments as for `collapse_metrics`.
    """
    weight, bias = as_tensor("weight", weight), as_tensor("bias", bias)
    view = View.of(moments, weight, bias, Options(mean, between, center_weight=center_weight))
    table = {name: torch.full((moments.num_classes,), torch.nan, dtype=torch.float64) for name in CLASS}
    for name, (measure, needs) in CLASS.items():
        if not any(NEEDS[need](view) for need in needs):
            table[name][view.classes] = measure(view)
    table["samples"] = moments.counts.cpu().double()
    return table


def _class_shares(hits: str) -> Callable[[View], Tensor]:
    return lambda view: getattr(view.second, hits)[view.classes] / view.counts


def _class_nc1(view: View) -> Tensor:
    return view.class_ratios(view.between) / len(view.classes)


CLASS: dict[str, tuple[Callable[[View], Tensor], tuple[str, ...]]] = {
    "samples": (lambda view: view.counts, ()),
    "variance": (lambda view: view.variances, ("samples",)),
    "nc1": (_class_nc1, ("samples", "classes", "second", "spread", "between")),
    "norm_means": (lambda view: torch.linalg.norm(view.means, dim=1), ("samples",)),
    "norm_weight": (lambda view: torch.linalg.norm(view.weight, dim=1), ("samples", "weight")),
    "nc3_cosine": (lambda view: geometry.misalignment(view.weight, view.means), ("samples", "weight")),
    "nc4": (_class_shares("agreeing"), ("samples", "second", "decisions")),
    "accuracy": (_class_shares("correct"), ("samples", "second", "decisions")),
    "centre_accuracy": (_class_shares("centre_correct"), ("samples", "second")),
}


def _measure(metrics: Metrics, name: str, metric: Metric | Across, *views: View | None) -> None:
    seen = [view for view in views if view is not None]
    if len(seen) < len(views):
        metrics.put(name, math.nan, NO_MAJORITY)
        return
    reasons = [reason for view in seen if (reason := missing(metric.needs, view))]
    measure: Callable[..., float] = metric.measure
    if reasons:
        metrics.put(name, math.nan, reasons[0])
    else:
        metrics.put(name, measure(*seen), metric.unless)


def _preset(name: str) -> Preset:
    if name not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(map(repr, PRESETS))}, not {name!r}")
    return PRESETS[name]


def _measured(definitions: dict[str, Metric], view: View) -> Metrics:
    metrics = Metrics()
    for name, metric in definitions.items():
        _measure(metrics, name, metric, view)
    return metrics


def _split(view: View, majority: Sequence[int]) -> dict[str, View]:
    num_classes, major = view.moments.num_classes, _whole_numbers(majority)
    chosen = set(major)
    if len(chosen) < len(major) or min(chosen, default=0) < 0 or max(chosen, default=0) >= num_classes:
        raise ValueError(f"majority must be different classes in 0..{num_classes - 1}, not {reprlib.repr(major)}")
    if not 0 < len(major) < num_classes:
        raise ValueError(f"majority must be some of the {num_classes} classes, not {len(major)} of them")
    minor = [k for k in range(num_classes) if k not in chosen]
    return {"majority": view.group(major), "minority": view.group(minor)}


def _whole_numbers(majority: Sequence[int]) -> list[int]:
    try:
        if any(isinstance(k, bool) for k in majority):
            raise TypeError
        return [index(k) for k in majority]
    except TypeError:
        raise ValueError(f"majority must list classes by their numbers, not {majority!r}") from None


def _remark_on_rank(metrics: Metrics, suffix: str, view: View) -> None:
    name = f"nc1_rank{suffix}"
    if math.isnan(metrics[name]) or metrics[name] == view.between.expected:
        return
    spanned = f"{view.between.rank} of {view.between.expected} dimensions"
    metrics.reasons[name] = f"the class means span {spanned}: nc1 covers those alone"
