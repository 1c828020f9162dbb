"""The sections `ufm`, `layer_peeled` and `theory` of params.yaml, and the specs of theory jobs."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from eqcollapse.runtime.section import Count, Integer, Name, Natural, NonNegative, Positive, Ratio, Section

Seeds = Annotated[list[Natural], Field(min_length=1)]
Classes = Annotated[Integer, Field(ge=2, le=1000)]
Dim = Annotated[Integer, Field(ge=1, le=10**4)]


class UnconstrainedFeatures(Section):
    """An (extended) unconstrained features model, minimised by gradient descent from many seeds."""

    num_classes: Classes
    dim: Dim
    per_class: Annotated[Integer, Field(ge=1, le=10**5)]
    layers: Annotated[Integer, Field(ge=1, le=20)]
    activation: Literal["identity", "relu"]
    bias: Literal["none", "free", "regularised"]
    loss: Literal["mse", "ce"]
    lambda_weights: Positive | list[Positive]
    lambda_features: Positive
    lambda_bias: NonNegative
    lambda_scales: Annotated[list[Positive], Field(min_length=1)]
    seeds: Seeds
    iterations: Count
    step: Positive
    start: Positive
    logged: Annotated[Integer, Field(ge=2, le=10**6)]

    @model_validator(mode="after")
    def _lambdas_fit(self) -> "UnconstrainedFeatures":
        if isinstance(self.lambda_weights, list) and len(self.lambda_weights) != self.layers:
            raise ValueError(f"lambda_weights: must be one number, or one for each of the {self.layers} layers")
        if (self.lambda_bias > 0) != (self.bias == "regularised"):
            raise ValueError("lambda_bias: must be above 0 where bias is regularised, and 0 elsewhere")
        return self


class LayerPeeled(Section):
    """The layer-peeled models of paper A over a sweep of KA and R."""

    models: Annotated[list[Literal["explicit", "deq"]], Field(min_length=1)]
    num_classes: Classes
    dim: Dim
    majority: Annotated[list[Count], Field(min_length=1)]
    ratios: Annotated[list[Ratio], Field(min_length=1)]
    seeds: Seeds
    bound_weight: Positive
    bound_features: Positive
    iterations: Count
    step: Positive
    start: Positive

    @model_validator(mode="after")
    def _majority_fits(self) -> "LayerPeeled":
        for majority in self.majority:
            if not 2 <= majority <= self.num_classes - 2:  # a group of one has no angle within
                raise ValueError(f"majority: {majority} is not from 2 to num_classes - 2 = {self.num_classes - 2}")
        return self


class UfmSpec(UnconstrainedFeatures):
    """The spec of a job of kind `ufm`."""

    kind: Literal["ufm"]


class LayerPeeledSpec(LayerPeeled):
    """The spec of a job of kind `layer_peeled`."""

    kind: Literal["layer_peeled"]


class UfmExperiment(UfmSpec):
    """An experiment of kind `ufm`; how it is drawn changes no result."""

    figure: Name
    drawn: Literal["descent", "low-rank"] = "descent"


class LayerPeeledExperiment(LayerPeeledSpec):
    """An experiment of kind `layer_peeled`."""

    figure: Name


TheorySpec = Annotated[UfmSpec | LayerPeeledSpec, Field(discriminator="kind")]
TheoryExperiment = Annotated[UfmExperiment | LayerPeeledExperiment, Field(discriminator="kind")]
