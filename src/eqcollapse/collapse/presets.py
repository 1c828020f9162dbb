"""Four papers' own metrics, by their own definitions, under the names nc1 to nc4."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from eqcollapse.collapse import definitions, geometry
from eqcollapse.collapse.requirements import DECISIONS, DUAL, MEANS, SCATTER, WEIGHT, Metric
from eqcollapse.collapse.view import Options, View

COINCIDE = "class means or rows of the classifier coincide or are zero, or do not see each other"


@dataclass(frozen=True)
class Preset:
    """The `options` that a paper's definitions amount to, and its metrics by name, all of W as it is."""

    options: Options
    metrics: dict[str, Metric]


def bias_collapse(view: View) -> float:
    """||W mu + b||_2 with the global mean mu: 0 at collapse. Zhu et al. 2021 (NC4 of their code)."""
    logits = view.all_weight @ view.mean
    return float(torch.linalg.norm(logits if view.bias is None else logits + view.bias))


def trace_not_divided(view: View) -> float:
    """Tr(S_W S_B^+), without the 1/K: Papyan et al. 2020, as the notebook they published computes it."""
    return definitions.nc1(view) * len(view.classes)


def raw_duality(view: View) -> float:
    """||W/||W||_F - M^T/||M||_F||_F with W as it is and the means centred. Tirer & Bruna 2022, with
    a bias.
    """
    return geometry.duality_error(view.raw_weight, view.means)


def squared_duality(view: View) -> float:
    """||W/||W||_F - M^T/||M||_F||_F^2. Papyan et al. 2020, figure 5."""
    return raw_duality(view) ** 2


def disagreement(view: View) -> float:
    """Share of samples that the classifier does not assign to the class of the nearest mean. Papyan et
    al. 2020, figure 7.
    """
    return 1 - definitions.nc4(view)


def sample_equinorm(rows: Tensor) -> float:
    """std/mean of the norms of `rows` (K×d) with the standard deviation of K - 1, as in the notebook of
    Papyan et al.
    """
    norms = torch.linalg.norm(rows, dim=1)
    return float(norms.std() / norms.mean())


PRESETS: dict[str, Preset] = {
    # Papyan, Han & Donoho 2020 (PNAS), by the notebook published with it; nc1_over_k is the paper's figure 6.
    "papyan2020": Preset(
        Options(),
        {
            "nc1": Metric(trace_not_divided, SCATTER),
            "nc1_over_k": Metric(definitions.nc1, SCATTER),
            "nc2_equinorm_means": Metric(lambda view: sample_equinorm(view.means), MEANS),
            "nc2_equinorm_weight": Metric(lambda view: sample_equinorm(view.all_weight), WEIGHT, COINCIDE),
            "nc2_equiangle_means": Metric(lambda view: geometry.equiangle(view.means), MEANS, COINCIDE),
            "nc2_equiangle_weight": Metric(lambda view: geometry.equiangle(view.all_weight), WEIGHT, COINCIDE),
            "nc3": Metric(squared_duality, DUAL, COINCIDE),
            "nc4": Metric(disagreement, DECISIONS),
        },
    ),
    # Zhu et al. 2021 (NeurIPS): the global mean is that of the samples; W as it is.
    "zhu2021": Preset(
        Options(mean="weighted"),
        {
            "nc1": Metric(definitions.nc1, SCATTER),
            "nc2": Metric(definitions.nc2_weight_etf_uncentred, WEIGHT, COINCIDE),
            "nc3": Metric(definitions.nc3_etf_uncentred, DUAL, COINCIDE),
            "nc4": Metric(bias_collapse, ("samples", "weight")),
        },
    ),
    # Tirer & Bruna 2022 (ICML), section 5: _of without bias, uncentred; _etf with bias, global mean removed.
    "tirer2022": Preset(
        Options(),
        {
            "nc1": Metric(definitions.nc1, SCATTER),
            "nc2_of": Metric(definitions.nc2_means_of, MEANS, COINCIDE),
            "nc2_etf": Metric(definitions.nc2_means_etf, MEANS, COINCIDE),
            "nc3_of": Metric(definitions.nc3_duality_of, DUAL, COINCIDE),
            "nc3_etf": Metric(raw_duality, DUAL, COINCIDE),
        },
    ),
    # Sun & Shi 2024 (NeurIPS): W as it is; "global mean" is read as the mean of the class means.
    "sun2024": Preset(
        Options(),
        {
            "nc1": Metric(definitions.nc1, SCATTER),
            "nc2": Metric(definitions.nc2_weight_etf_uncentred, WEIGHT, COINCIDE),
            "nc3": Metric(definitions.nc3_etf_uncentred, DUAL, COINCIDE),
        },
    ),
}
