"""Distances of class means and classifiers from their frames, and from each other, batched over the leading dimension.

They are those of eqcollapse.collapse, nan where a matrix has vanished. The ufm and the layer_peeled models share them.
"""

import torch
from torch import Tensor

from eqcollapse.collapse.frames import orthogonal_frame, simplex_etf, unit_distance

FRAMES = {"simplex": simplex_etf, "orthogonal": orthogonal_frame}
VANISHED = 1e-100
"""A matrix of a norm below this is zero but for rounding: its rank is 0 and its other metrics are nan."""


def centred(means: Tensor) -> Tensor:
    """Return class means (B x d x K) less their unweighted mean."""
    return means - means.mean(2, keepdim=True)


def frame_error(gram: Tensor, frame: str) -> Tensor:
    """Return the distance (B) of Gram matrices B x K x K from the frame `simplex` or `orthogonal`."""
    return distance(gram, FRAMES[frame](gram.shape[-1]))


def distance(gram: Tensor, target: Tensor) -> Tensor:
    """||G / ||G||_F - E||_F (B) for Gram matrices B x K x K and a target E of unit norm."""
    return unit_distance(_unless_vanished(gram), target)


def duality_error(reader: Tensor, means: Tensor) -> Tensor:
    """||W / ||W||_F - M^T / ||M||_F||_F (B): Tirer & Bruna's NC3, 0 where the classifier is the class means."""
    return unit_distance(_unless_vanished(reader), _unless_vanished(means.mT))


def _unless_vanished(matrix: Tensor) -> Tensor:
    norm = torch.linalg.matrix_norm(matrix)[:, None, None]
    return torch.where(norm > VANISHED, matrix, torch.nan)
