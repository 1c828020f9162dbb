"""The ResNet in two halves: an encoder and an explicit head.

He et al. 2016, section 4.2, with the channels of the ImageNet ResNet-18: at width 64 with four stages of two blocks,
encoder, explicit head and classifier are torchvision's ResNet-18; its stem is either CIFAR's, one 3x3 convolution of
stride 1, or ImageNet's, 7x7 of stride 2 and max-pooling.
"""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn.functional import relu

STEMS = {"cifar": (3, 1), "imagenet": (7, 2)}
"""Kernel and stride of the first convolution; `imagenet` has max-pooling (3x3, stride 2) after it."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch normalisation and a shortcut: N×C_in×H×W -> N×C_out×H/s×W/s."""

    def __init__(self, channels_in: int, channels_out: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.downsample = None
        if stride != 1 or channels_in != channels_out:
            self.downsample = Shortcut(channels_in, channels_out, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return relu(F(x) + shortcut(x))."""
        shortcut = x if self.downsample is None else self.downsample(x)
        hidden = relu(self.bn1(self.conv1(x)), inplace=True)
        return relu(self.bn2(self.conv2(hidden)).add_(shortcut), inplace=True)


class Shortcut(nn.Sequential):
    """A 1x1 convolution and batch normalisation, where a block changes channels or the image's size."""

    def __init__(self, channels_in: int, channels_out: int, stride: int):
        super().__init__(
            nn.Conv2d(channels_in, channels_out, 1, stride, bias=False),
            nn.BatchNorm2d(channels_out),
        )


def residual_stage(channels_in: int, channels_out: int, blocks: int, stride: int) -> nn.Sequential:
    """Return `blocks` residual blocks, the first of which changes channels and halves the image."""
    first = BasicBlock(channels_in, channels_out, stride)
    return nn.Sequential(first, *(BasicBlock(channels_out, channels_out, 1) for _ in range(blocks - 1)))


class Encoder(nn.Module):
    """Stem and all stages but the last: images N×C×H×W -> H0, N×`channels_out`×H/s×W/s.

    s is 2^(stages-2), and four times that with the stem `imagenet`. C is `channels`, or 1: one is then repeated.
    """

    def __init__(self, channels: int, width: int, stages: int, blocks: int, stem: str = "cifar"):
        super().__init__()
        self.channels = channels
        kernel, stride = STEMS[stem]
        self.conv1 = nn.Conv2d(channels, width, kernel, stride, padding=kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1) if stem == "imagenet" else nn.Identity()
        widths = [width, *(width << stage for stage in range(stages - 1))]
        self.stages = nn.Sequential(
            *(residual_stage(before, after, blocks, 1 if before == after else 2) for before, after in pairwise(widths))
        )
        self.channels_out = widths[-1]

    def forward(self, x: Tensor) -> Tensor:
        """Return H0."""
        x = x.expand(-1, self.channels, -1, -1)
        return self.stages(self.maxpool(relu(self.bn1(self.conv1(x)), inplace=True)))


class ExplicitHead(nn.Module):
    """The last stage of the ResNet as it is, averaged over the image: H0 -> H, N×`dim`."""

    def __init__(self, channels_in: int, blocks: int):
        super().__init__()
        self.dim = 2 * channels_in
        self.stage = residual_stage(channels_in, self.dim, blocks, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features H."""
        return self.stage(x).mean(dim=(2, 3))


def initialise(module: nn.Module) -> None:
    """Draw the weights of a ResNet's convolutions as torchvision does (He et al. 2015, by fan-out)."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
