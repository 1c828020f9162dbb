"""Target frames against their definitions."""

import math

import numpy as np
import pytest
import torch

from eqcollapse.collapse import orthogonal_frame, seli, simplex_etf, structure_error


@pytest.mark.parametrize("K", [2, 3, 10])
def test_the_simplex_etf_has_equal_norms_and_cosines(K):
    gram = simplex_etf(K)
    norms = gram.diagonal().sqrt()
    cosines = gram / torch.outer(norms, norms)
    assert torch.allclose(cosines[~torch.eye(K, dtype=torch.bool)], torch.tensor(-1 / (K - 1), dtype=torch.float64))
    assert float(torch.linalg.norm(gram)) == pytest.approx(1)
    assert float(torch.linalg.norm(orthogonal_frame(K))) == pytest.approx(1)


@pytest.mark.parametrize("counts", [[5, 3, 2], [20, 20, 2, 2], [7, 1]])
def test_seli_is_the_svd_of_the_simplex_encoded_labels(counts):
    K, y = len(counts), np.repeat(np.arange(len(counts)), counts)
    Z = np.eye(K)[:, y] - 1 / K
    V, values, Ut = np.linalg.svd(Z, full_matrices=False)
    of_weight = V * values @ V.T
    of_samples = Ut.T * values @ Ut
    first = np.cumsum([0, *counts[:-1]])
    of_means = of_samples[np.ix_(first, first)]
    for found, expected in zip(seli(counts), (of_weight, of_means), strict=True):
        assert np.allclose(found.numpy(), expected / np.linalg.norm(expected), rtol=0, atol=1e-14)


def test_seli_of_equal_counts_is_the_simplex_etf():
    for gram in seli(torch.full((6,), 40)):
        assert torch.allclose(gram, simplex_etf(6), rtol=0, atol=1e-14)


def test_structure_error_knows_neither_scale_nor_the_size_of_numbers():
    generator = torch.Generator().manual_seed(0)
    gram = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    expected = float(torch.linalg.norm(gram / torch.linalg.norm(gram) - orthogonal_frame(4)))
    for scale in (1, 1e-200, 1e200):
        assert structure_error(scale * gram, orthogonal_frame(4)) == pytest.approx(expected, rel=1e-12)
    assert structure_error(-simplex_etf(4), simplex_etf(4)) == pytest.approx(2)
    assert math.isnan(structure_error(torch.zeros(4, 4), simplex_etf(4)))


def test_frames_of_nothing_are_refused():
    for make in (
        lambda: simplex_etf(1),
        lambda: orthogonal_frame(0),
        lambda: seli([3, 0]),
        lambda: seli([3]),
    ):
        with pytest.raises(ValueError, match="needs"):
            make()
    with pytest.raises(ValueError, match="no target"):
        structure_error(torch.eye(3), simplex_etf(4))
