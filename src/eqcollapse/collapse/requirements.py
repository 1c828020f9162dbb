"""What a metric cannot do without, and why it may not be there."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from eqcollapse.collapse.streaming import same_classifier
from eqcollapse.collapse.view import LARGEST, SMALLEST, View

FEW_CLASSES = "fewer than two of the classes have samples"


@dataclass(frozen=True)
class Metric:
    """A metric of a view: `measure` it if there is nothing that it `needs`; `unless` says why the result
    may be nan.
    """

    measure: Callable[[View], float]
    needs: tuple[str, ...]
    unless: str = "class means coincide"


def missing(needs: tuple[str, ...], view: View) -> str | None:
    """Return why what has these `needs` cannot be measured in `view`, or None if it can."""
    return next((reason for reason in (NEEDS[need](view) for need in needs) if reason), None)


def _samples(view: View) -> str | None:
    if len(view.classes) == 0:
        return "there are no samples"
    return view.whole.unfit


def _classes(view: View) -> str | None:
    return FEW_CLASSES if len(view.classes) < 2 else None


def _variance(view: View) -> str | None:
    return None if bool(view.several.any()) else "no class has two samples"


def _second(view: View) -> str | None:
    return view.incomplete


def _between(view: View) -> str | None:
    return None if view.between.rank else "class means coincide"


def _class_scatter(view: View) -> str | None:
    pooled = view.second.pooled and (view.grouped or (view.options.within == "classes" and not view.diagonal))
    return 'needs the scatter of each class: Moments(..., scatter="class")' if pooled else None


def _spread(view: View) -> str | None:
    pooled = view.second.pooled and not view.whole.diagonal
    return 'needs the scatter of each class: Moments(..., scatter="class")' if pooled else None


def _weight(view: View) -> str | None:
    if view.classifier is None:
        return "no classifier was given"
    scale = float(view.all_weight.abs().max())
    if not math.isfinite(scale):
        return "the classifier is not finite"
    if scale > LARGEST:
        return "the classifier is so large that squares overflow: scale it"
    return "the classifier is so small that squares underflow: scale it" if 0 < scale < SMALLEST else None


def _rows(view: View) -> str | None:
    return "there is only one class" if view.moments.num_classes < 2 else None


def _decisions(view: View) -> str | None:
    counted = view.second.fingerprint
    if counted is None:
        return "no classifier was given to the second pass"
    asked = counted if view.classifier is None else view.whole.fingerprint
    if not bool(asked[:, :2].isfinite().all()):
        return "the classifier is not finite"
    if not bool(asked.isfinite().all()):
        return "the classifier's bias is not finite"
    same = same_classifier(counted, asked)
    return None if same else "the second pass counted the decisions of another classifier"


NEEDS: dict[str, Callable[[View], str | None]] = {
    "samples": _samples,
    "classes": _classes,
    "variance": _variance,
    "second": _second,
    "class scatter": _class_scatter,
    "spread": _spread,
    "between": _between,
    "weight": _weight,
    "rows": _rows,
    "decisions": _decisions,
}
MEANS = ("samples", "classes")
BETWEEN = (*MEANS, "second", "between")
SCATTER = (*MEANS, "variance", "second", "between", "class scatter")
WEIGHT = ("weight", "rows")
DUAL = (*MEANS, "weight")
DECISIONS = ("samples", "second", "decisions")
ZERO_MEAN = "a class mean is the global mean"
ZERO_ROW = "a row of the classifier is zero"
