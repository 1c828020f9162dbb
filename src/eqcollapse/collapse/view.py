"""Moments and classifier made ready for measuring: the classes that have samples, centred as the
options say.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from eqcollapse.collapse.arrays import present
from eqcollapse.collapse.moments import Moments, check_classifier
from eqcollapse.collapse.streaming import SecondPass, fingerprint
from eqcollapse.collapse.variability import (
    ROUNDING,
    Between,
    between_classes,
    pairwise_cdnv,
    rounding_of,
    whitened_trace,
)

CHOICES = {
    "mean": ("unweighted", "weighted"),
    "between": ("uniform", "weighted"),
    "within": ("samples", "classes"),
    "center_weight": (True, False),
}

LARGEST, SMALLEST = 1e145, 1e-140
"""Above and below these, squares of features and their ratios leave float64."""


@dataclass(frozen=True)
class Options:
    """Where the field disagrees. The defaults are what is right for imbalanced classes.

    `mean`: the global mean, "unweighted" over classes, or "weighted" by their samples, which makes a
    perfect simplex ETF look collapsed when classes differ in size. `between`: the weights of S_B,
    "uniform" 1/K, or "weighted" n_k/N. `within`: the weights of S_W, 1/N a sample ("samples"), or 1/(K
    n_k), so that all "classes" count alike. `center_weight`: whether to take the mean of W's rows off
    first, which no softmax can see; orthogonal frames are always compared with W as it is.
    """

    mean: str = "unweighted"
    between: str = "uniform"
    within: str = "samples"
    center_weight: bool = True

    def __post_init__(self) -> None:
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, not {getattr(self, name)!r}")


@dataclass(frozen=True)
class View:
    """The k classes that are looked at and have samples: all of them, or a group. All tensors are float64
    on the CPU.

    `classes` (k), their indices; `counts` (k); `raw_means` (k×d); `traces` (k), sums of ||h - m_y||^2;
    `classifier`, its weight (K×d), and `bias` (K) or None; `whole`, the view of all classes that a group is part of.
    """

    options: Options
    moments: Moments
    classes: Tensor
    counts: Tensor
    raw_means: Tensor
    traces: Tensor
    classifier: Tensor | None
    bias: Tensor | None
    parent: View | None = None

    @classmethod
    def of(cls, moments: Moments, weight: Tensor | None, bias: Tensor | None, options: Options) -> View:
        """Return the view of all classes that have samples."""
        check_classifier(weight, bias, moments.num_classes, moments.dim)
        counts = moments.counts.cpu()
        classes = counts.nonzero()[:, 0]
        return cls(
            options=options,
            moments=moments,
            classes=classes,
            counts=counts[classes].double(),
            raw_means=moments.means.cpu()[classes],
            traces=moments.traces.cpu()[classes],
            classifier=None if weight is None else weight.detach().to("cpu", torch.float64),
            bias=None if bias is None else bias.detach().to("cpu", torch.float64),
        )

    def group(self, members: Sequence[int]) -> View:
        """Return the view of `members` alone."""
        chosen = torch.isin(self.classes, torch.tensor(list(members), dtype=torch.int64))
        return replace(
            self,
            classes=self.classes[chosen],
            counts=self.counts[chosen],
            raw_means=self.raw_means[chosen],
            traces=self.traces[chosen],
            parent=self,
        )

    @property
    def whole(self) -> View:
        """The view of all classes."""
        return self.parent or self

    @cached_property
    def second(self) -> SecondPass:
        """The second pass, on the CPU."""
        return self.parent.second if self.parent is not None else present("second pass", self.moments.second)

    @cached_property
    def excess(self) -> Tensor:
        """What the second pass's scatter has too much (K×r)."""
        return self.second.excess

    @cached_property
    def incomplete(self) -> str | None:
        """Why the scatter and the decisions are not there, or None."""
        return self.parent.incomplete if self.parent is not None else self.moments.incomplete

    @property
    def grouped(self) -> bool:
        """Whether this is a view of some of the classes only."""
        return self.parent is not None

    @cached_property
    def unfit(self) -> str | None:
        """Why nothing can be said about the features, or None: some are not finite, or squares leave float64."""
        infinite = ~self.raw_means.isfinite().all(1)
        if bool(infinite.any()):
            return f"features of class {self._listed(infinite)} are not finite"
        large = ~self.traces.isfinite() | (self.raw_means.abs().amax(1) > LARGEST)
        if bool(large.any()):
            return f"features of class {self._listed(large)} are so large that squares overflow: scale all features"
        scale = max(float(self.raw_means.abs().max()), float(self.traces.max()) ** 0.5)
        return "features are so small that squares underflow: scale them" if 0 < scale < SMALLEST else None

    def _listed(self, chosen: Tensor) -> str:
        return ", ".join(map(str, self.classes[chosen].tolist()))

    @cached_property
    def fingerprint(self) -> Tensor:
        """What tells the classifier from another, K×3."""
        return fingerprint(self.all_weight, self.bias)

    @cached_property
    def rounding(self) -> float:
        """Frobenius norm of the rounding errors of all class means."""
        return rounding_of(self.whole.raw_means)

    @cached_property
    def means(self) -> Tensor:
        """Class means about the global mean of all classes, k×d; a row that is only rounding error
        is zero.
        """
        if self.parent is not None:
            return self.parent.means[torch.isin(self.parent.classes, self.classes)]
        # About the plain mean first: a common offset of all features then costs no digits.
        shifted = self.raw_means - self.raw_means.mean(0)
        return without_rounding(shifted - self._centre(shifted), self.rounding)

    @cached_property
    def alone(self) -> Tensor:
        """Class means about the mean of the classes in view, k×d, as if there were no others."""
        if self.parent is None:
            return self.means
        shifted = self.raw_means - self.raw_means.mean(0)
        return without_rounding(shifted - self._centre(shifted), self.rounding)

    def _centre(self, means: Tensor) -> Tensor:
        return means.mean(0) if self.options.mean == "unweighted" else (self.counts / self.counts.sum()) @ means

    @property
    def mean(self) -> Tensor:
        """The global mean of the classes in view (d)."""
        return self._centre(self.raw_means)

    @property
    def all_weight(self) -> Tensor:
        """The classifier's rows of all K classes, as they are."""
        return present("classifier", self.classifier)

    @property
    def raw_weight(self) -> Tensor:
        """The classifier's rows of the classes in view, k×d, as they are."""
        return self.all_weight[self.classes]

    @cached_property
    def weight(self) -> Tensor:
        """The classifier's rows of the classes in view, k×d, centred over all classes with samples if the
        options say so.
        """
        if self.parent is not None:
            return self.parent.weight[torch.isin(self.parent.classes, self.classes)]
        return self._centred(self.raw_weight)

    @cached_property
    def every_weight(self) -> Tensor:
        """The classifier's rows of all K classes, with samples or without, centred if the options say so."""
        return self._centred(self.all_weight)

    def _centred(self, weight: Tensor) -> Tensor:
        if not self.options.center_weight:
            return weight
        return without_rounding(weight - weight.mean(0), rounding_of(weight))

    # Variability. S_B is that of the classes in view about their own mean.

    @cached_property
    def between(self) -> Between:
        """S_B in the coordinates of the second pass's basis."""
        return between_classes(self.alone @ self.second.basis, self._between_weights, self.rounding)

    @property
    def between_trace(self) -> float:
        """Tr S_B, which needs no second pass."""
        return float((self._between_weights * self.alone.square().sum(1)).sum())

    @property
    def _between_weights(self) -> Tensor:
        if self.options.between == "weighted":
            return self.counts / self.counts.sum()
        return torch.full_like(self.counts, 1 / len(self.counts))

    @cached_property
    def several(self) -> Tensor:
        """Whether a class has more than one sample (k, bool): of one sample, no variability can be told."""
        return self.counts > 1

    @property
    def _within_weights(self) -> Tensor:
        if self.options.within == "samples":
            return torch.full_like(self.counts, 1 / float(self.counts.sum()))
        return torch.where(self.several, 1 / (self.counts * self.several.sum()), 0.0)

    @property
    def within_trace(self) -> float:
        """Tr S_W."""
        return float((self._within_weights * self.traces).sum())

    @property
    def variances(self) -> Tensor:
        """Mean ||h - m_y||^2 of each class (k); nan for a class of one sample."""
        return torch.where(self.several, self.traces / self.counts, math.nan)

    def within_ratio(self, between: Between) -> float:
        """Return Tr(S_W S_B^+) for the classes in view against the S_B of `between`."""
        if self._only_pooled:
            within = self.second.scatter[0] - self.excess.T @ self.excess
            return float(whitened_trace(within, between) / self.counts.sum())
        if self.second.pooled:
            return float((self._within_weights * self._whitened_parts(between)).sum())
        weights, excess = self._within_weights, self.excess[self.classes]
        within = torch.tensordot(weights, self.second.scatter[self.classes], dims=1)
        within -= (weights[:, None] * excess).T @ excess
        return float(whitened_trace(within, between))

    def class_ratios(self, between: Between) -> Tensor:
        """Return Tr(S_k S_B^+) of each class in view (k), S_k its covariance; nan for a class of
        one sample.
        """
        return torch.where(self.several, self._whitened_parts(between) / self.counts, math.nan)

    @property
    def _only_pooled(self) -> bool:
        return self.second.pooled and not self.grouped and self.options.within == "samples"

    def _whitened_parts(self, between: Between) -> Tensor:
        if self.second.pooled:
            spread = self.second.class_spread - self.excess.square()
            return (spread @ between.whitening.square().sum(1))[self.classes].clamp(min=0.0)
        excess = (self.excess[self.classes] @ between.whitening).square().sum(1)
        return (whitened_trace(self.second.scatter[self.classes], between) - excess).clamp(min=0.0)

    @property
    def diagonal(self) -> bool:
        """Whether S_B of all classes is diagonal in the second pass's basis, as a pooled scatter needs
        for single classes.
        """
        return not self.grouped and (self.options.mean, self.options.between) == ("unweighted", "uniform")

    @cached_property
    def cdnv(self) -> Tensor:
        """Class-distance normalised variances of the pairs of classes in view, k×k; nan where a class has
        one sample.
        """
        if self.parent is not None:
            inside = torch.isin(self.parent.classes, self.classes)
            return self.parent.cdnv[inside][:, inside]
        return pairwise_cdnv(self.raw_means, self.variances)


def without_rounding(rows: Tensor, rounding: float) -> Tensor:
    """Return `rows` with those zeroed whose norm is no more than rounding error: no direction is to be
    made of noise.
    """
    return rows.masked_fill((torch.linalg.norm(rows, dim=1) <= ROUNDING * rounding)[:, None], 0.0)
