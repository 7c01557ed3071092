"""Networks as one writes them from the papers' tables: plain modules, with the weights of pyaction's."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Of each block: 1x1 | 1x1 -> 3x3 | 1x1 -> 3x3 -> 3x3 | pooling -> 1x1. Zero: no such layer.
BN_INCEPTION = (
    (64, 64, 64, 64, 96, 32, "average"),
    (64, 64, 96, 64, 96, 64, "average"),
    (0, 128, 160, 64, 96, 0, "halving"),
    (224, 64, 96, 96, 128, 128, "average"),
    (192, 96, 128, 96, 128, 128, "average"),
    (160, 128, 160, 128, 160, 128, "average"),
    (96, 128, 192, 160, 192, 128, "average"),
    (0, 128, 192, 192, 256, 0, "halving"),
    (352, 192, 320, 160, 224, 128, "average"),
    (352, 192, 320, 192, 224, 128, "max"),
)
# Of each block: 1x1x1 | 1x1x1 -> 3x3x3 | 1x1x1 -> 3x3x3 | pooling -> 1x1x1. A number: pooling with such a stride.
I3D = (
    (64, 96, 128, 16, 32, 32),
    (128, 128, 192, 32, 96, 64),
    ((3, 3, 3), (2, 2, 2)),
    (192, 96, 208, 16, 48, 64),
    (160, 112, 224, 24, 64, 64),
    (128, 128, 256, 24, 64, 64),
    (112, 144, 288, 32, 64, 64),
    (256, 160, 320, 32, 128, 128),
    ((2, 2, 2), (2, 2, 2)),
    (256, 160, 320, 32, 128, 128),
    (384, 192, 384, 48, 128, 128),
)


def with_weights_of(network: nn.Module, plain: nn.Module) -> nn.Module:
    """Both define their layers in one order."""
    values = list(network.state_dict().values())
    plain.load_state_dict(dict(zip(plain.state_dict(), values, strict=True)))
    return plain.eval()


class PlainTSN(nn.Module):
    """BN-Inception over segments, whose scores are averaged."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            unit(3, 64, 7, 2),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            unit(64, 64, 1),
            unit(64, 192, 3),
            nn.MaxPool2d(3, 2, ceil_mode=True),
        )
        self.blocks = nn.Sequential()
        channels = 192
        for block in BN_INCEPTION:
            self.blocks.append(InceptionBlock(channels, *block))
            channels = block[0] + block[2] + block[4] + (block[5] or channels)
        self.fc = nn.Linear(channels, classes)

    def forward(self, clips: Tensor) -> Tensor:
        vectors = self.blocks(self.stem(clips.flatten(0, 1))).mean((2, 3))
        return self.fc(vectors).unflatten(0, clips.shape[:2]).mean(1)


class InceptionBlock(nn.Module):
    def __init__(
        self, source: int, single: int, reduce: int, triple: int, reduce_double: int, double: int, last: int, pool: str
    ) -> None:
        super().__init__()
        stride = 2 if pool == "halving" else 1
        self.branches = nn.ModuleList([unit(source, single, 1)] if single else [])
        self.branches.append(nn.Sequential(unit(source, reduce, 1), unit(reduce, triple, 3, stride)))
        self.branches.append(
            nn.Sequential(
                unit(source, reduce_double, 1), unit(reduce_double, double, 3), unit(double, double, 3, stride)
            )
        )
        pooling = {
            "average": nn.AvgPool2d(3, 1, 1),
            "max": nn.MaxPool2d(3, 1, 1),
            "halving": nn.MaxPool2d(3, 2, ceil_mode=True),
        }[pool]
        self.branches.append(nn.Sequential(pooling, unit(source, last, 1)) if last else pooling)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


def unit(source: int, out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(source, out, kernel, stride, kernel // 2)
    return nn.Sequential(convolution, nn.BatchNorm2d(out), nn.ReLU(inplace=True))


class PlainI3D(nn.Module):
    """Padded as TensorFlow does it, before each convolution and pooling."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            Unit3D(3, 64, (7, 7, 7), (2, 2, 2)),
            MaxPool3D((1, 3, 3), (1, 2, 2)),
            Unit3D(64, 64),
            Unit3D(64, 192, (3, 3, 3)),
            MaxPool3D((1, 3, 3), (1, 2, 2)),
        ]
        channels = 192
        for row in I3D:
            if len(row) == 2:
                layers.append(MaxPool3D(*row))
            else:
                layers.append(InceptionBlock3D(channels, row))
                channels = row[0] + row[2] + row[4] + row[5]
        self.layers = nn.Sequential(*layers)
        self.logits = nn.Conv3d(channels, classes, 1)

    def forward(self, clip: Tensor) -> Tensor:
        x = self.layers(clip.transpose(1, 2))
        return self.logits(F.avg_pool3d(x, (2, *x.shape[3:]), 1)).mean((2, 3, 4))


class InceptionBlock3D(nn.Module):
    def __init__(self, source: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.single = Unit3D(source, widths[0])
        self.triple = nn.Sequential(Unit3D(source, widths[1]), Unit3D(widths[1], widths[2], (3, 3, 3)))
        self.other = nn.Sequential(Unit3D(source, widths[3]), Unit3D(widths[3], widths[4], (3, 3, 3)))
        self.pooled = nn.Sequential(MaxPool3D((3, 3, 3), (1, 1, 1)), Unit3D(source, widths[5]))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.single(x), self.triple(x), self.other(x), self.pooled(x)], 1)


class Unit3D(nn.Module):
    def __init__(self, source: int, out: int, kernel: tuple[int, ...] = (1, 1, 1), stride: tuple[int, ...] = (1, 1, 1)):
        super().__init__()
        self.convolution = nn.Conv3d(source, out, kernel, stride, bias=False)
        self.norm = nn.BatchNorm3d(out, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        convolution = self.convolution
        return F.relu(self.norm(convolution(padded(x, convolution.kernel_size, convolution.stride))), inplace=True)


class MaxPool3D(nn.Module):
    def __init__(self, kernel: tuple[int, ...], stride: tuple[int, ...]) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool3d(padded(x, self.kernel, self.stride), self.kernel, self.stride)


def padded(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    sides: list[int] = []
    for size, k, s in zip(x.shape[2:], kernel, stride, strict=True):
        total = max(k - (size % s or s), 0)
        sides = [total // 2, total - total // 2, *sides]
    return F.pad(x, sides)


class PlainMotionNet(nn.Module):
    """From 11 frames in [0, 1] to ten fields of flow, in pixels of each level."""

    def __init__(self) -> None:
        super().__init__()
        widths = (64, 128, 256, 512, 512, 1024)
        self.first = nn.Sequential(leaky(33, 64), leaky(64, 64))
        self.contracting = nn.ModuleList(
            nn.Sequential(leaky(source, out, 2), leaky(out, out)) for source, out in pairwise(widths)
        )
        self.flow = nn.Conv2d(1024, 20, 3, padding=1)
        self.expanding = nn.ModuleList()
        for source, skip, out in ((1024, 512, 512), (512, 512, 256), (256, 256, 128), (128, 128, 64)):
            deconvolution = nn.ConvTranspose2d(source, out, 4, 2, 1, bias=False)
            enlarging = nn.ConvTranspose2d(20, 20, 4, 2, 1, bias=False)
            smoothing = nn.Conv2d(skip + out + 20, out, 3, padding=1)
            self.expanding.append(
                nn.ModuleList([deconvolution, enlarging, smoothing, nn.Conv2d(out, 20, 3, padding=1)])
            )

    def forward(self, clip: Tensor) -> list[Tensor]:
        mean = torch.tensor([123, 117, 104], device=clip.device).view(3, 1, 1) / 255
        x = self.first((clip - mean).flip(2).flatten(1, 2))
        skips = []
        for layer in self.contracting:
            x = layer(x)
            skips.append(x)
        flows = [self.flow(skips.pop())]
        for deconvolution, enlarging, smoothing, flow in self.expanding:
            x = F.leaky_relu(deconvolution(x), 0.1, inplace=True)
            x = smoothing(torch.cat([skips.pop(), x, enlarging(flows[0])], 1))
            flows.insert(0, flow(x))
        return [flow.unflatten(1, (10, 2)) * (20 / 2**level) for level, flow in enumerate(flows, 1)]


def leaky(source: int, out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(source, out, 3, stride, 1), nn.LeakyReLU(0.1, inplace=True))
