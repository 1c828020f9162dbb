"""The multilayer perceptron."""

from torch import Tensor, nn


class MLP(nn.Module):
    """`depth` hidden layers of `width` units with ReLU on the pixels, then a linear classifier: N×C×H×W -> N×K.

    Its stages are the hidden layers. `channels` is as every architecture takes it; the first layer takes all pixels.
    """

    def __init__(self, channels: int, num_classes: int, *, width: int, depth: int):
        super().__init__()
        inputs = [nn.LazyLinear(width), *(nn.Linear(width, width) for _ in range(depth - 1))]
        self.layers = nn.Sequential(*(nn.Sequential(linear, nn.ReLU()) for linear in inputs))
        self.linear = nn.Linear(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        return self.linear(self.layers(images.flatten(1)))
