"""Figure A-2: Gram matrices known in closed form, and an embedding that repeats."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from eqcollapse.report.config import FeaturesFigure, Figures
from eqcollapse.report.figures.features import Features, apart, cosine_matrix, embedding, features_figure, read

SPEC = FeaturesFigure(kind="features", split="ka1-r10", models=["explicit", "deq"], style=Figures(dpi=50, width=7.0))


@pytest.fixture
def etf() -> Features:
    """Twelve samples of three classes, collapsed to a simplex ETF about a global mean that is not zero."""
    labels = np.repeat([0, 1, 2], [6, 3, 3])
    return Features(5 + (np.eye(3) - 1 / 3)[labels], labels, (0,))


def test_a_simplex_etf_has_cosines_one_and_minus_half(etf):
    same = etf.labels[:, None] == etf.labels[None, :]
    np.testing.assert_allclose(cosine_matrix(etf), np.where(same, 1.0, -0.5), atol=1e-12)


def test_the_embedding_repeats_to_the_bit():
    values = np.random.RandomState(0).randn(40, 5)
    first = embedding(values)
    assert first.shape == (40, 2)
    assert np.array_equal(first, embedding(values))


def test_features_are_read_in_the_order_of_classes_and_cut(tmp_path):
    labels = np.array([2, 0, 1, 0, 2, 1, 0, 2, 1])
    tensors = {"test/features": np.arange(18, dtype=np.float32).reshape(9, 2), "test/labels": labels}
    path = tmp_path / "features.safetensors"
    save_file(tensors, path, {"eqcollapse.run": json.dumps({"majority": [0]})})
    features = read(str(path), most=6)
    assert features.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert features.values[:, 0].tolist() == [2, 6, 4, 10, 0, 8]
    assert features.values.dtype == np.float64
    assert features.majority == (0,)


def test_both_models_stand_side_by_side(etf):
    noise = np.random.RandomState(1).randn(*etf.values.shape)
    figure = features_figure({"explicit": etf, "deq": Features(etf.values + noise, etf.labels, (0,))}, SPEC)
    titles = [axis.get_title() for axis in figure.axes[:4]]
    assert [title.split(":")[0] for title in titles] == ["Explicit", "DEQ", "Explicit", "DEQ"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["majority class", "minority class"]


def test_features_that_are_all_the_same_are_one_point():
    assert (embedding(np.ones((30, 4))) == 0).all()


def test_numbers_of_classes_do_not_lie_on_each_other():
    points = np.array([[0.0, 0.0], [0.0, 0.0], [0.01, 0.0], [5.0, 5.0]])
    moved = apart(points, 1.0)
    distances = np.linalg.norm(moved[:, None] - moved[None], axis=2)[np.triu_indices(4, 1)]
    assert distances.min() > 0.99
    assert np.array_equal(moved[3], points[3])
    assert np.array_equal(points[0], [0, 0])
