"""Large buffers kept from solve to solve."""

from torch import Tensor


class Workspace:
    """Lends uninitialised buffers, and keeps those given back for the next solve of the same shape.

    On a CPU every fresh page is a fault, and a window of states is thousands of them: touching them anew costs a
    solve several per cent. Device allocators keep their memory anyway, so only CPU buffers are kept. A buffer
    is out of the workspace while it is lent, so two solves never share one.
    """

    def __init__(self) -> None:
        self._kept: list[Tensor] = []

    def take(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """A buffer of `shape`, of the precision and on the device of `like`."""
        while self._kept:
            buffer = self._kept.pop()
            if buffer.shape == shape and buffer.dtype == like.dtype and buffer.device == like.device:
                return buffer
        return like.new_empty(shape)

    def give(self, buffer: Tensor) -> None:
        """Take a buffer back that nobody uses any more."""
        if buffer.device.type == "cpu" and not buffer.is_inference():
            self._kept.append(buffer)

    def __deepcopy__(self, memo: dict) -> "Workspace":
        return Workspace()
