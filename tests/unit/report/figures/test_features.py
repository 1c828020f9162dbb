"""Figure A-2: Gram matrices known in closed form, and an embedding that repeats."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from eqcollapse.report.config import FeaturesFigure, Figures
from eqcollapse.report.figures.features import (
    Features,
    apart,
    class_name,
    cosine_matrix,
    embedding,
    features_figure,
    read,
)

SPEC = FeaturesFigure(kind="features", split="ka1-r10", models=["explicit", "deq"], style=Figures(dpi=50, width=7.0))

NAMES = ("ant", "$b_1$", "a class with a very long name")


@pytest.fixture
def etf() -> Features:
    """Twelve samples of three classes, collapsed to a simplex ETF about a global mean that is not zero."""
    labels = np.repeat([0, 1, 2], [6, 3, 3])
    return Features(5 + (np.eye(3) - 1 / 3)[labels], labels, (0,), NAMES)


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
    save_file(tensors, path, {"eqcollapse.run": json.dumps({"majority": [0], "classes": NAMES})})
    features = read(str(path), most=6)
    assert features.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert features.values[:, 0].tolist() == [2, 6, 4, 10, 0, 8]
    assert features.values.dtype == np.float64
    assert features.majority == (0,)


def test_both_models_stand_side_by_side(etf):
    noise = np.random.RandomState(1).randn(*etf.values.shape)
    figure = features_figure({"explicit": etf, "deq": Features(etf.values + noise, etf.labels, (0,), NAMES)}, SPEC)
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


def test_classes_are_named_and_not_numbered(etf):
    figure = features_figure({"explicit": etf}, SPEC)
    scatter, matrix = figure.axes[:2]
    names = ["ant", "$b_1$", "a class with …"]
    assert [text.get_text() for text in scatter.texts] == names
    for ticks in (matrix.get_xticklabels(), matrix.get_yticklabels()):
        assert [text.get_text() for text in ticks] == names
    figure.canvas.draw()  # "$" begins no formula


def test_a_name_that_the_font_cannot_write_is_its_label():
    assert class_name(("ant", "蟻", "ameise"), 1) == "1"
    assert class_name(("ant", "蟻", "Käfer"), 2) == "Käfer"


def test_the_names_are_read_from_the_run(tmp_path):
    tensors = {"test/features": np.zeros((2, 2), dtype=np.float32), "test/labels": np.array([0, 1])}
    about = {"majority": [], "classes": ["zwei", "eins"]}
    save_file(tensors, tmp_path / "features.safetensors", {"eqcollapse.run": json.dumps(about)})
    assert read(str(tmp_path / "features.safetensors")).names == ("zwei", "eins")
