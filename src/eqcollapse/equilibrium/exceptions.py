"""What can go wrong here, by name; each message says what to do about it."""


class EquilibriumError(Exception):
    """The base of this package's errors."""


class ConfigError(EquilibriumError, ValueError):
    """An option that does not exist, or a value that it cannot take."""


class LayerError(EquilibriumError, TypeError):
    """A layer that is not one function during a solve, or does not keep the shape of its state."""


class NotConverged(EquilibriumError, RuntimeError):  # noqa: N818
    """Too few samples reached their equilibrium, and the policy says to stop."""


class DoubleBackwardError(EquilibriumError, RuntimeError):
    """A second derivative was asked of an implicit gradient, which has none to give."""
