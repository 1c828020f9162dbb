"""The frames that class means and classifiers collapse to, as K×K Gram matrices of unit Frobenius norm."""

from collections.abc import Sequence

import torch
from torch import Tensor


def simplex_etf(num_classes: int) -> Tensor:
    """Return (I - 11^T/K)/sqrt(K-1), K×K float64: the Gram matrix of the simplex equiangular tight frame.

    Papyan, Han & Donoho 2020, definition 1, scaled to unit norm as in Zhu et al. 2021. K >= 2.
    """
    if num_classes < 2:
        raise ValueError(f"a simplex ETF needs at least 2 classes, not {num_classes}")
    return centring(num_classes) / (num_classes - 1) ** 0.5


def orthogonal_frame(num_classes: int) -> Tensor:
    """Return I/sqrt(K), K×K float64: the Gram matrix of the orthogonal frame (Tirer & Bruna 2022, theorem
    3.1).
    """
    if num_classes < 1:
        raise ValueError(f"an orthogonal frame needs at least 1 class, not {num_classes}")
    return torch.eye(num_classes, dtype=torch.float64) / num_classes**0.5


def seli(counts: Sequence[int] | Tensor) -> tuple[Tensor, Tensor]:
    """Return the Gram matrices (of the classifier, of the class means) of the SELI geometry, K×K float64,
    unit norm.

    Thrampoulidis et al. 2022: the simplex-encoded labels Z = [e_y - 1/K] (K×N) have the SVD
    V L U^T, and W W^T ~ V L V^T, H^T H ~ U L U^T, W H ~ Z. Collapsed to one column a class, with S = I -
    11^T/K and D = diag(n_k): W W^T ~ (S D S)^(1/2) and M^T M ~ ((S D S)^+)^(1/2). Equal counts give the
    simplex ETF. `counts`: K >= 2 positive numbers.
    """
    sizes = torch.as_tensor(counts, dtype=torch.float64)
    if sizes.ndim != 1 or len(sizes) < 2 or not bool((sizes > 0).all()):
        raise ValueError(f"SELI needs the positive sample counts of at least 2 classes, not {counts}")
    centre = centring(len(sizes))
    eigenvalues, vectors = torch.linalg.eigh(centre @ torch.diag(sizes) @ centre)
    # The vector of ones is the one null direction: eigh sorts it first.
    values, vectors = eigenvalues[1:].sqrt(), vectors[:, 1:]
    return _unit(vectors * values @ vectors.T), _unit(vectors / values @ vectors.T)


def centring(num_classes: int) -> Tensor:
    """Return I - 11^T/K, K×K float64."""
    return torch.eye(num_classes, dtype=torch.float64) - 1 / num_classes


def structure_error(gram: Tensor, target: Tensor) -> float:
    """Return ||G/||G||_F - T/||T||_F||_F of two K×K matrices: 0 for equal structure, at most 2; nan if G
    is zero or not finite.
    """
    if gram.shape != target.shape:
        raise ValueError(f"a Gram matrix of shape {tuple(gram.shape)} has no target of shape {tuple(target.shape)}")
    gram = gram.double()
    return float(unit_distance(gram, target.to(gram)))


def unit_distance(first: Tensor, second: Tensor) -> Tensor:
    """Return ||A/||A||_F - B/||B||_F||_F of matrices (...×m×n), shape ...; nan where one is zero."""
    return torch.linalg.matrix_norm(_unit(first) - _unit(second))


def _unit(matrix: Tensor) -> Tensor:
    # Dividing by the largest entry first keeps the squares of very small or large features inside float64.
    scaled = matrix / matrix.abs().amax((-2, -1), keepdim=True)
    return scaled / torch.linalg.matrix_norm(scaled, keepdim=True)
