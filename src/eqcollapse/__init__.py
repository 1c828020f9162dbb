"""Neural collapse in deep equilibrium models, from params.yaml to every figure."""

__version__ = "0.1.0"
