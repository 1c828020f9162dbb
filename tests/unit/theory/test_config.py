"""What the settings of the theory may be."""

import pytest
from pydantic import ValidationError

from eqcollapse.theory.config import LayerPeeled, UnconstrainedFeatures

UFM = {
    "num_classes": 4,
    "dim": 5,
    "per_class": 3,
    "layers": 1,
    "activation": "identity",
    "bias": "none",
    "loss": "mse",
    "lambda_weights": 0.01,
    "lambda_features": 0.01,
    "lambda_bias": 0.0,
    "lambda_scales": [1.0],
    "seeds": [0],
    "iterations": 10,
    "step": 0.1,
    "start": 0.3,
    "logged": 5,
}
PEELED = {
    "models": ["explicit", "deq"],
    "num_classes": 5,
    "dim": 6,
    "majority": [2, 3],
    "ratios": [1, 10],
    "seeds": [0],
    "bound_weight": 1.0,
    "bound_features": 1.0,
    "iterations": 10,
    "step": 0.3,
    "start": 0.3,
}


def test_what_is_right_is_taken():
    assert UnconstrainedFeatures.model_validate(UFM | {"layers": 2, "lambda_weights": [0.1, 0.2]}).layers == 2
    assert UnconstrainedFeatures.model_validate(UFM | {"bias": "regularised", "lambda_bias": 0.1}).lambda_bias == 0.1
    assert LayerPeeled.model_validate(PEELED).ratios == [1.0, 10.0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_classes": 1}, "num_classes"),
        ({"dim": 0}, "dim"),
        ({"activation": "tanh"}, "activation"),
        ({"bias": "yes"}, "bias"),
        ({"loss": "hinge"}, "loss"),
        ({"lambda_weights": [0.1, 0.1]}, "lambda_weights: must be one number, or one for each of the 1 layers"),
        ({"lambda_weights": [0.0]}, "lambda_weights"),
        ({"lambda_features": 0.0}, "lambda_features"),
        ({"lambda_features": float("inf")}, "lambda_features"),
        ({"lambda_bias": 0.1}, "lambda_bias"),
        ({"bias": "regularised"}, "lambda_bias"),
        ({"seeds": []}, "seeds"),
        ({"iterations": 0}, "iterations"),
        ({"step": 0}, "step"),
        ({"momentum": 0.9}, "is not a key"),
    ],
)
def test_a_wrong_setting_of_an_unconstrained_features_model_is_named(changes, words):
    with pytest.raises(ValidationError, match=words):
        UnconstrainedFeatures.model_validate(UFM | changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"models": ["deep"]}, "models"),
        ({"models": []}, "models"),
        ({"majority": [4]}, "majority: 4 is not from 2 to num_classes - 2 = 3"),
        ({"ratios": [0.5]}, "ratios"),
        ({"bound_weight": 0}, "bound_weight"),
        ({"step": -1}, "step"),
    ],
)
def test_a_wrong_setting_of_a_layer_peeled_model_is_named(changes, words):
    with pytest.raises(ValidationError, match=words):
        LayerPeeled.model_validate(PEELED | changes)
