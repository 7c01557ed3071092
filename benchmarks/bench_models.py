"""The networks, alone and beside plain code with the same weights: python benchmarks/bench_models.py --json

One video at a time, its frames decoded, resized and normalised before, in memory. Frames of video are counted as paper
002 counts them: an image is one frame, SG3I's three, a stack of ten fields of flow is ten, and so are the 11 frames of
which a network makes ten fields; a clip of I3D is as many as it has. What takes both streams counts the frames once.
"""

import sys
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from model_tables import BFLOAT16, FAST, OURS, PLAIN, PLAIN_COMPILED, model_table
from op_benchmark import Case, Method, main
from peers.networks import PlainI3D, PlainMotionNet, PlainTSN, with_weights_of
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from pyaction import models

CLASSES = 101
# As a share of the largest score or displacement. Networks that are not trained are hard on bfloat16, with 8 bits.
TOLERANCE, BFLOAT16_TOLERANCE = 1e-3, 0.1
# Frames per second of paper 002, table 1 and section 4, on a GPU of 2017 (Titan X).
PAPER = "paper 002, Titan X"


class Entry(NamedTuple):
    """A network, and one video for it."""

    make: Callable[[], nn.Module]
    shapes: tuple[tuple[int, ...], ...]
    frames: int
    plain: Callable[[], nn.Module] | None = None
    paper_fps: float = 0.0


def tsn(in_channels: int, segments: int = 3) -> models.TSN:
    backbone = models.BNInception(classes=None, in_channels=in_channels)
    return models.TSN(backbone, classes=CLASSES, segments=segments)


def trn() -> models.TRN:
    return models.TRN(models.BNInception(classes=None), classes=CLASSES, segments=8)


def stacked() -> models.StackedTemporalStream:
    vgg = models.VGG16(classes=CLASSES, in_channels=20)
    return models.StackedTemporalStream(motionnet=models.MotionNet(), temporal=vgg)


class HiddenTwoStream(nn.Module):
    """Paper 002's, with its weights for the two streams' scores."""

    def __init__(self) -> None:
        super().__init__()
        self.spatial = models.VGG16(classes=CLASSES)
        self.temporal = stacked()

    def forward(self, image: Tensor, clip: Tensor) -> Tensor:
        return self.spatial(image) + 1.5 * self.temporal(clip).logits


def cooperative() -> models.CooperativeCrossStream:
    return models.CooperativeCrossStream(spatial=tsn(3), temporal=tsn(10))


def cross_enhanced() -> models.CrossEnhancedTwoStream:
    spatial, temporal = (models.I3D(classes=CLASSES, in_channels=channels) for channels in (3, 2))
    return models.CrossEnhancedTwoStream(spatial=spatial, temporal=temporal)


ENTRIES: Mapping[str, Entry] = {
    "BN-Inception TSN, 3 segments": Entry(lambda: tsn(3), ((3, 3, 224, 224),), 3, lambda: PlainTSN(CLASSES)),
    "I3D": Entry(lambda: models.I3D(classes=CLASSES), ((64, 3, 224, 224),), 64, lambda: PlainI3D(CLASSES)),
    "MotionNet": Entry(models.MotionNet, ((11, 3, 224, 224),), 10, PlainMotionNet, 370),
    "Tiny-MotionNet": Entry(models.TinyMotionNet, ((11, 3, 224, 224),), 10),
    "CNN-M-2048, spatial": Entry(lambda: models.CNNM2048(classes=CLASSES), ((3, 224, 224),), 1),
    "CNN-M-2048, temporal": Entry(lambda: models.CNNM2048(classes=CLASSES, stream="temporal"), ((20, 224, 224),), 10),
    "VGG-16, spatial": Entry(lambda: models.VGG16(classes=CLASSES), ((3, 224, 224),), 1),
    "VGG-16, temporal": Entry(lambda: models.VGG16(classes=CLASSES, in_channels=20), ((20, 224, 224),), 10),
    "ResNet-50, SG3I": Entry(lambda: models.ResNet(classes=CLASSES), ((3, 224, 224),), 3),
    "BN-Inception TSN, flow, 3 segments": Entry(lambda: tsn(10), ((3, 10, 224, 224),), 15),
    "TRN, 8 segments": Entry(trn, ((8, 3, 224, 224),), 8),
    "stacked temporal stream (MotionNet, VGG-16)": Entry(stacked, ((11, 3, 224, 224),), 10, paper_fps=169.49),
    "hidden two-stream (and VGG-16)": Entry(HiddenTwoStream, ((3, 224, 224), (11, 3, 224, 224)), 10, paper_fps=120.48),
    "cooperative cross-stream, TSN": Entry(cooperative, ((3, 3, 224, 224), (3, 10, 224, 224)), 15),
    "cross-enhanced two-stream, I3D": Entry(cross_enhanced, ((64, 3, 224, 224), (64, 2, 224, 224)), 64),
}
QUICK = ("BN-Inception TSN, 3 segments", "MotionNet")


def cases(device: str, quick: bool) -> list[Case]:
    return [case_of(name, ENTRIES[name], device) for name in (QUICK if quick else ENTRIES)]


def case_of(name: str, entry: Entry, device: str) -> Case:
    network = entry.make().to(device).eval()
    inputs = [torch.rand(1, *shape, device=device) for shape in entry.shapes]
    fast = models.for_inference(network)
    methods = {OURS: method(network, inputs), FAST: method(fast, inputs), BFLOAT16: in_bfloat16(fast, inputs)}
    if entry.plain is not None:
        plain = with_weights_of(network, entry.plain().to(device))
        methods[PLAIN] = method(plain, inputs)
        methods[PLAIN_COMPILED] = method(torch.compile(plain), inputs)
    published = {PAPER: entry.frames / entry.paper_fps} if entry.paper_fps else {}
    rounded = {BFLOAT16: BFLOAT16_TOLERANCE}
    return Case(name, methods, TOLERANCE, published=published, rounded=rounded, frames=entry.frames)


def method(function: Callable[..., object], inputs: list[Tensor]) -> Method:
    @torch.no_grad()
    def run() -> list[Tensor]:
        return tree_leaves(function(*inputs))

    return run


def in_bfloat16(function: Callable[..., object], inputs: list[Tensor]) -> Method:
    exact = method(function, inputs)

    def run() -> list[Tensor]:
        with torch.autocast(inputs[0].device.type, torch.bfloat16):
            return list(exact())

    return run


if __name__ == "__main__":
    sys.exit(main("models", cases, table=model_table))
