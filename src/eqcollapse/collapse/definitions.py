"""Every metric, defined once: what it is, where it comes from, and what it cannot do without.

K classes with samples, n_k samples of class k, N in all; class means m_k, their unweighted mean mu (or
the weighted one, if the options say so); M = [m_k - mu]; S_W = (1/N) sum_i (h_i - m_y)(h_i - m_y)^T; S_B
= (1/K) sum_k (m_k - mu)(m_k - mu)^T; W the classifier, less the mean of its rows (unless the options say
otherwise) where a name does not end in _of or _uncentred. Down means more collapsed, but for nc4, the
accuracies and the cosines within the minority.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from eqcollapse.collapse import frames, geometry
from eqcollapse.collapse.arrays import present
from eqcollapse.collapse.requirements import (
    BETWEEN,
    DECISIONS,
    DUAL,
    MEANS,
    SCATTER,
    WEIGHT,
    ZERO_MEAN,
    ZERO_ROW,
    Metric,
)
from eqcollapse.collapse.view import View

# ---------------------------------------- NC1: the variability within classes vanishes


def nc1(view: View) -> float:
    """Tr(S_W S_B^+)/K. Zhu et al. 2021; Tirer & Bruna 2022, section 5; Sun & Shi 2024. Papyan et al. 2020
    without the 1/K.

    The rank of S_B is that of K means in general position, K - 1, less what is rounding error (nc1_rank).
    It says little without nc1_eigenvalue_ratio beside it: when minority means fall together it is set by
    the noise of those means.
    """
    return view.within_ratio(view.between) / len(view.classes)


def nc1_rank(view: View) -> float:
    """The number of eigenvalues of S_B that nc1 divides by."""
    return view.between.rank


def nc1_eigenvalue_ratio(view: View) -> float:
    """Smallest to largest of those eigenvalues: 1 for a simplex ETF, towards 0 as the minority collapses."""
    return view.between.eigenvalue_ratio


def nc1_pooled(view: View) -> float:
    """Tr(S_W S_B^+)/K of a group's samples against the S_B of all classes: finite while the group's own
    means collapse.
    """
    whole = view.whole
    return view.within_ratio(whole.between) / len(whole.classes) if whole.between.rank else math.nan


def trace_ratio(view: View) -> float:
    """Tr S_W / Tr S_B. Tirer et al. 2023; blind to collapse in a few directions, and steady where
    nc1 is not.
    """
    return _divided(view.within_trace, view.between_trace)


def cdnv(view: View) -> float:
    """Mean over pairs of classes of (v_i + v_j)/(2 ||m_i - m_j||^2), v_k = (1/n_k) sum ||h - m_k||^2.

    Class-distance normalised variance, Galanti et al. 2022. Classes of one sample have no v and are left out; two
    means that coincide leave it undefined, whatever the v.
    """
    inside = view.cdnv[view.several][:, view.several]
    return float(geometry.off_diagonal(inside).mean())


# ---------------------------------------------------------------- NC2: means and classifier form a frame


def nc2_means_etf(view: View) -> float:
    """||M^T M/||M^T M||_F - E||_F with E = (I - 11^T/K)/sqrt(K-1): distance of the means to a simplex ETF."""
    return frames.structure_error(geometry.gram(view.means), frames.simplex_etf(len(view.classes)))


def nc2_means_of(view: View) -> float:
    """The same of the uncentred means against I/sqrt(K): distance to an orthogonal frame. Tirer & Bruna
    2022, no bias.
    """
    return frames.structure_error(geometry.gram(view.raw_means), frames.orthogonal_frame(len(view.classes)))


def nc2_means_seli(view: View) -> float:
    """The same of the centred means against the SELI geometry of the class counts. Thrampoulidis et
    al. 2022.
    """
    return frames.structure_error(geometry.gram(view.means), frames.seli(view.counts)[1])


def nc2_weight_etf(view: View) -> float:
    """||W W^T/||W W^T||_F - E||_F: distance of the classifier to a simplex ETF, all K rows. Zhou et al.
    2022 (centred).
    """
    return frames.structure_error(geometry.gram(view.every_weight), frames.simplex_etf(len(view.every_weight)))


def nc2_weight_etf_uncentred(view: View) -> float:
    """The same of W as it is. Zhu et al. 2021, Sun & Shi 2024."""
    return frames.structure_error(geometry.gram(view.all_weight), frames.simplex_etf(len(view.all_weight)))


def nc2_weight_of(view: View) -> float:
    """||W W^T/||W W^T||_F - I/sqrt(K)||_F of W as it is: distance of the classifier to an
    orthogonal frame.
    """
    return frames.structure_error(geometry.gram(view.all_weight), frames.orthogonal_frame(len(view.all_weight)))


def nc2_weight_seli(view: View) -> float:
    """Distance of the classifier (rows of classes with samples) to the SELI geometry of the class counts."""
    return frames.structure_error(geometry.gram(view.weight), frames.seli(view.counts)[0])


# ---------------------------------------- NC3: classifier and means are each other's dual


def nc3_etf(view: View) -> float:
    """||W M/||W M||_F - E||_F. Zhu et al. 2021; centred W: Zhou et al. 2022."""
    return geometry.product_error(view.weight, view.means, frames.simplex_etf(len(view.classes)))


def nc3_etf_uncentred(view: View) -> float:
    """The same with W as it is: the NC3 of Zhu et al. 2021 and of Sun & Shi 2024."""
    return geometry.product_error(view.raw_weight, view.means, frames.simplex_etf(len(view.classes)))


def nc3_of(view: View) -> float:
    """The same with uncentred means and W as it is, against I/sqrt(K). Dang et al. 2023."""
    return geometry.product_error(view.raw_weight, view.raw_means, frames.orthogonal_frame(len(view.classes)))


def nc3_duality(view: View) -> float:
    """||W/||W||_F - M^T/||M||_F||_F. Papyan et al. 2020 (who square it), Tirer & Bruna 2022 with a bias."""
    return geometry.duality_error(view.weight, view.means)


def nc3_duality_of(view: View) -> float:
    """The same with uncentred means and W as it is: the NC3 of Tirer & Bruna 2022 without bias."""
    return geometry.duality_error(view.raw_weight, view.raw_means)


def nc3_cosine(view: View) -> float:
    """Mean over classes of 1 - cos(w_k, m_k - mu). Jiang et al. 2024. Blind to lengths, which imbalance
    makes differ.
    """
    return float(geometry.misalignment(view.weight, view.means).mean())


# ---------------------------------------- NC4: the classifier decides for the nearest mean


def nc4(view: View) -> float:
    """Share of samples that argmax W h + b assigns to the class of the nearest mean: 1 at collapse."""
    return _share(present("classifier", view.second.agreeing), view)


def accuracy(view: View) -> float:
    """Share of samples that argmax W h + b assigns to their own class."""
    return _share(present("classifier", view.second.correct), view)


def centre_accuracy(view: View) -> float:
    """Share of samples whose nearest class mean is their own class's: accuracy of the nearest class
    centre.
    """
    return _share(view.second.centre_correct, view)


# ---------------------------------------------------------------- norms and angles


def _equinorm(rows: Callable[[View], Tensor]) -> Callable[[View], float]:
    return lambda view: geometry.equinorm(rows(view))


def _equiangle(rows: Callable[[View], Tensor]) -> Callable[[View], float]:
    return lambda view: geometry.equiangle(rows(view))


def _norm(rows: Callable[[View], Tensor]) -> Callable[[View], float]:
    return lambda view: float(torch.linalg.norm(rows(view), dim=1).mean())


def _cosine(rows: Callable[[View], Tensor]) -> Callable[[View], float]:
    return lambda view: float(geometry.off_diagonal(geometry.cosines(rows(view))).mean())


def _angle(rows: Callable[[View], Tensor]) -> Callable[[View], float]:
    return lambda view: float(geometry.off_diagonal(geometry.cosines(rows(view))).arccos().rad2deg().mean())


def _means_of(view: View) -> Tensor:
    return view.means


def _weight_of(view: View) -> Tensor:
    return view.weight


def _every_weight_of(view: View) -> Tensor:
    return view.every_weight


SEPARATE = "class means or rows of the classifier coincide, or the classifier does not see the means"

WHOLE: dict[str, Metric] = {
    "nc1": Metric(nc1, SCATTER),
    "nc1_rank": Metric(nc1_rank, (*MEANS, "second")),
    "nc1_eigenvalue_ratio": Metric(nc1_eigenvalue_ratio, BETWEEN),
    "trace_ratio": Metric(trace_ratio, (*MEANS, "variance")),
    "cdnv": Metric(cdnv, (*MEANS, "variance"), "two class means coincide, or fewer than two classes have two samples"),
    "nc2_means_etf": Metric(nc2_means_etf, MEANS),
    "nc2_means_of": Metric(nc2_means_of, MEANS, "all class means are zero"),
    "nc2_means_seli": Metric(nc2_means_seli, MEANS),
    "nc2_weight_etf": Metric(nc2_weight_etf, WEIGHT, "the rows of the classifier coincide"),
    "nc2_weight_etf_uncentred": Metric(nc2_weight_etf_uncentred, WEIGHT, "the classifier is zero"),
    "nc2_weight_of": Metric(nc2_weight_of, WEIGHT, "the classifier is zero"),
    "nc2_weight_seli": Metric(nc2_weight_seli, DUAL, "the rows of the classifier coincide"),
    "equinorm_means": Metric(_equinorm(_means_of), MEANS),
    "equinorm_weight": Metric(_equinorm(_every_weight_of), WEIGHT, "the rows of the classifier coincide"),
    "equiangle_means": Metric(_equiangle(_means_of), MEANS, ZERO_MEAN),
    "equiangle_weight": Metric(_equiangle(_every_weight_of), WEIGHT, ZERO_ROW),
    "nc3_etf": Metric(nc3_etf, DUAL, SEPARATE),
    "nc3_etf_uncentred": Metric(nc3_etf_uncentred, DUAL, SEPARATE),
    "nc3_of": Metric(nc3_of, DUAL, SEPARATE),
    "nc3_duality": Metric(nc3_duality, DUAL, "class means or rows of the classifier coincide"),
    "nc3_duality_of": Metric(nc3_duality_of, DUAL, "class means or the classifier are zero"),
    "nc3_cosine": Metric(nc3_cosine, DUAL, f"{ZERO_MEAN}, or {ZERO_ROW}"),
    "nc4": Metric(nc4, DECISIONS),
    "accuracy": Metric(accuracy, DECISIONS),
    "centre_accuracy": Metric(centre_accuracy, ("samples", "second")),
}
"""Metrics of all classes together."""

GROUP: dict[str, Metric] = {
    "nc1": Metric(nc1, SCATTER),
    "nc1_rank": Metric(nc1_rank, (*MEANS, "second")),
    "nc1_eigenvalue_ratio": Metric(nc1_eigenvalue_ratio, BETWEEN),
    "nc1_pooled": Metric(nc1_pooled, ("samples", "variance", "second", "spread")),
    "trace_ratio": Metric(trace_ratio, (*MEANS, "variance")),
    "cdnv": WHOLE["cdnv"],
    "norm_means": Metric(_norm(_means_of), ("samples",)),
    "cos_means": Metric(_cosine(_means_of), MEANS, ZERO_MEAN),
    "angle_means": Metric(_angle(_means_of), MEANS, ZERO_MEAN),
    "norm_weight": Metric(_norm(_weight_of), ("samples", "weight")),
    "cos_weight": Metric(_cosine(_weight_of), DUAL, ZERO_ROW),
    "angle_weight": Metric(_angle(_weight_of), DUAL, ZERO_ROW),
    "nc3_cosine": Metric(nc3_cosine, ("samples", "weight"), f"{ZERO_MEAN}, or {ZERO_ROW}"),
    "nc4": WHOLE["nc4"],
    "accuracy": WHOLE["accuracy"],
    "centre_accuracy": WHOLE["centre_accuracy"],
}
"""Metrics of one group of classes; nc1 and trace_ratio as if there were no others, all else about the
global mean.

cos_weight of the minority is 1, and angle_weight (degrees, mean over pairs) 0, at minority collapse: Fang
et al. 2021.
"""


def norm_ratio(rows: Callable[[View], Tensor]) -> Callable[[View, View], float]:
    """Return the metric mean ||x_k|| over the majority / the same over the minority."""
    return lambda major, minor: _divided(_norm(rows)(major), _norm(rows)(minor))


def _cosine_across(rows: Callable[[View], Tensor]) -> Callable[[View, View], float]:
    def mean_cosine(major: View, minor: View) -> float:
        both = geometry.cosines(torch.cat([rows(major), rows(minor)]))
        return float(both[: len(major.classes), len(major.classes) :].mean())

    return mean_cosine


def _cdnv_across(major: View, minor: View) -> float:
    first, second = (torch.isin(major.whole.classes, view.classes) for view in (major, minor))
    return float(major.whole.cdnv[first & major.whole.several][:, second & major.whole.several].mean())


@dataclass(frozen=True)
class Across:
    """A metric of the majority and the minority; `needs` and `unless` as in Metric, for both."""

    measure: Callable[[View, View], float]
    needs: tuple[str, ...]
    unless: str


ACROSS: dict[str, Across] = {
    "cdnv_across": Across(_cdnv_across, ("samples", "variance"), "two class means coincide"),
    "norm_ratio_means": Across(norm_ratio(_means_of), ("samples",), "the minority's means are the global mean"),
    "norm_ratio_weight": Across(norm_ratio(_weight_of), ("samples", "weight"), ZERO_ROW),
    "cos_means_across": Across(_cosine_across(_means_of), ("samples",), ZERO_MEAN),
    "cos_weight_across": Across(_cosine_across(_weight_of), ("samples", "weight"), ZERO_ROW),
}
"""Metrics between majority and minority."""


def _share(hits: Tensor, view: View) -> float:
    return float(hits[view.classes].sum() / view.counts.sum())


def _divided(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else math.nan
