"""pyaction.models.I3D, against its table in plain functions."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyaction.models import I3D, inflate

# Name, kernel (time, height, width), stride, channels: of one convolution, of a block's six, or as before.
Row = tuple[str, tuple[int, int, int], tuple[int, int, int], Any]
TABLE: list[Row] = [
    ("Conv3d_1a_7x7", (7, 7, 7), (2, 2, 2), 64),
    ("MaxPool3d_2a_3x3", (1, 3, 3), (1, 2, 2), None),
    ("Conv3d_2b_1x1", (1, 1, 1), (1, 1, 1), 64),
    ("Conv3d_2c_3x3", (3, 3, 3), (1, 1, 1), 192),
    ("MaxPool3d_3a_3x3", (1, 3, 3), (1, 2, 2), None),
    ("Mixed_3b", (3, 3, 3), (1, 1, 1), (64, 96, 128, 16, 32, 32)),
    ("Mixed_3c", (3, 3, 3), (1, 1, 1), (128, 128, 192, 32, 96, 64)),
    ("MaxPool3d_4a_3x3", (3, 3, 3), (2, 2, 2), None),
    ("Mixed_4b", (3, 3, 3), (1, 1, 1), (192, 96, 208, 16, 48, 64)),
    ("Mixed_4c", (3, 3, 3), (1, 1, 1), (160, 112, 224, 24, 64, 64)),
    ("Mixed_4d", (3, 3, 3), (1, 1, 1), (128, 128, 256, 24, 64, 64)),
    ("Mixed_4e", (3, 3, 3), (1, 1, 1), (112, 144, 288, 32, 64, 64)),
    ("Mixed_4f", (3, 3, 3), (1, 1, 1), (256, 160, 320, 32, 128, 128)),
    ("MaxPool3d_5a_2x2", (2, 2, 2), (2, 2, 2), None),
    ("Mixed_5b", (3, 3, 3), (1, 1, 1), (256, 160, 320, 32, 128, 128)),
    ("Mixed_5c", (3, 3, 3), (1, 1, 1), (384, 192, 384, 48, 128, 128)),
]
# For 64 frames of 224 x 224.
SHAPES = {
    "Conv3d_1a_7x7": (64, 32, 112, 112),
    "MaxPool3d_2a_3x3": (64, 32, 56, 56),
    "Conv3d_2b_1x1": (64, 32, 56, 56),
    "Conv3d_2c_3x3": (192, 32, 56, 56),
    "MaxPool3d_3a_3x3": (192, 32, 28, 28),
    "Mixed_3b": (256, 32, 28, 28),
    "Mixed_3c": (480, 32, 28, 28),
    "MaxPool3d_4a_3x3": (480, 16, 14, 14),
    "Mixed_4b": (512, 16, 14, 14),
    "Mixed_4c": (512, 16, 14, 14),
    "Mixed_4d": (512, 16, 14, 14),
    "Mixed_4e": (528, 16, 14, 14),
    "Mixed_4f": (832, 16, 14, 14),
    "MaxPool3d_5a_2x2": (832, 8, 7, 7),
    "Mixed_5b": (832, 8, 7, 7),
    "Mixed_5c": (1024, 8, 7, 7),
    "AvgPool3d": (1024, 7, 1, 1),
    "Logits": (400,),
}


class Plain:
    """Inception-v1 from the table in two dimensions, or in three: by the weights in `state`."""

    def __init__(self, state: dict[str, Tensor], dims: int) -> None:
        self.state, self.dims = state, dims

    def padded(self, x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
        sides: list[int] = []
        for size, k, s in zip(x.shape[2:], kernel, stride, strict=True):
            outputs = (size + s - 1) // s
            total = max((outputs - 1) * s + k - size, 0)
            sides = [total // 2, total - total // 2, *sides]  # F.pad begins with the last dimension
        return F.pad(x, sides)

    def unit(self, name: str, x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
        conv = F.conv2d if self.dims == 2 else F.conv3d
        x = conv(self.padded(x, kernel, stride), self.state[f"{name}.conv3d.weight"], stride=stride)
        mean, variance, gamma, beta = (
            self.state[f"{name}.bn.{of}"].view(-1, *[1] * self.dims)
            for of in ("running_mean", "running_var", "weight", "bias")
        )
        return ((x - mean) / (variance + 1e-3).sqrt() * gamma + beta).clamp(min=0)

    def pool(self, x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
        pool = F.max_pool2d if self.dims == 2 else F.max_pool3d
        return pool(self.padded(x, kernel, stride), kernel, stride)

    def endpoints(self, x: Tensor) -> dict[str, Tensor]:
        one = (1,) * self.dims
        found = {}
        for name, kernel, stride, channels in TABLE:
            k, s = kernel[-self.dims :], stride[-self.dims :]
            if channels is None:
                x = self.pool(x, k, s)
            elif isinstance(channels, int):
                x = self.unit(name, x, k, s)
            else:
                branches = [
                    self.unit(f"{name}.b0", x, one, one),
                    self.unit(f"{name}.b1b", self.unit(f"{name}.b1a", x, one, one), k, one),
                    self.unit(f"{name}.b2b", self.unit(f"{name}.b2a", x, one, one), k, one),
                    self.unit(f"{name}.b3b", self.pool(x, k, one), one, one),
                ]
                x = torch.cat(branches, dim=1)
            found[name] = x
        return found

    def logits(self, last: Tensor) -> Tensor:
        over_frame = last.mean(dim=(3, 4))  # [N, 1024, T]
        neighbours = (over_frame[:, :, 1:] + over_frame[:, :, :-1]) / 2
        weight, bias = self.state["logits.conv3d.weight"], self.state["logits.conv3d.bias"]
        scores = torch.einsum("nct,kc->nkt", neighbours, weight[:, :, 0, 0, 0]) + bias[:, None]
        return scores.mean(dim=2)


def randomized(network: nn.Module) -> nn.Module:
    """Nothing at zero or one: batch normalisation has seen data, and scales."""
    generator = torch.Generator().manual_seed(5)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.weight.data.uniform_(0.7, 1.4, generator=generator)
            module.bias.data.uniform_(-0.1, 0.3, generator=generator)
            module.running_mean.uniform_(-0.1, 0.1, generator=generator)
            module.running_var.uniform_(0.05, 0.2, generator=generator)
    return network


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(20)
    return randomized(I3D(classes=7, in_channels=2, fixed_gamma=False)).eval()


@pytest.fixture
def clip() -> Tensor:
    return torch.empty(2, 9, 2, 33, 40).uniform_(-1, 1)


def counted(classes: int, channels: int) -> tuple[int, int]:
    """Parameters by the table, and those that scale in batch normalisation among them."""
    total = scales = 0
    source = channels
    for _, kernel, _, out in TABLE:
        volume = kernel[0] * kernel[1] * kernel[2]
        if isinstance(out, int):
            convolutions = [(source, out, volume)]
            source = out
        elif out is not None:
            b0, b1a, b1b, b2a, b2b, b3b = out
            convolutions = [(source, b0, 1), (source, b1a, 1), (b1a, b1b, 27), (source, b2a, 1), (b2a, b2b, 27)]
            convolutions.append((source, b3b, 1))
            source = b0 + b1b + b2b + b3b
        else:
            convolutions = []
        total += sum(i * o * k + 2 * o for i, o, k in convolutions)
        scales += sum(o for _, o, _ in convolutions)
    return total + source * classes + classes, scales


@pytest.mark.parametrize(("classes", "channels"), [(400, 3), (51, 2)])
def test_parameter_count(classes: int, channels: int) -> None:
    with torch.device("meta"):
        fixed, scaled = (I3D(classes=classes, in_channels=channels, fixed_gamma=gamma) for gamma in (True, False))
    total, scales = counted(classes, channels)
    assert sum(parameter.numel() for parameter in scaled.parameters() if parameter.requires_grad) == total
    assert sum(parameter.numel() for parameter in fixed.parameters() if parameter.requires_grad) == total - scales
    assert fixed.state_dict().keys() == scaled.state_dict().keys()


def test_shapes_at_64_frames_of_224() -> None:
    with torch.device("meta"):
        features = I3D().features(torch.empty(2, 64, 3, 224, 224), I3D.ENDPOINTS)
    assert {name: tuple(value.shape) for name, value in features.items()} == {n: (2, *s) for n, s in SHAPES.items()}
    assert tuple(features) == I3D.ENDPOINTS


def test_matches_table(network: nn.Module) -> None:
    """17 frames are three time steps at the end: not all weigh the same."""
    clip = torch.empty(2, 17, 2, 33, 40).uniform_(-1, 1)
    plain = Plain(network.state_dict(), dims=3)
    with torch.no_grad():
        features = network.features(clip, I3D.ENDPOINTS)
        expected = plain.endpoints(clip.transpose(1, 2))
        expected["Logits"] = plain.logits(expected["Mixed_5c"])
        torch.testing.assert_close(network(clip), features["Logits"])
    for name, theirs in expected.items():
        torch.testing.assert_close(features[name], theirs, rtol=0, atol=1e-4 * theirs.abs().max().item())


def test_features_stop_at_the_last_wanted(network: nn.Module, clip: Tensor) -> None:
    later: list[nn.Module] = []
    hooks = [network.get_submodule(name).register_forward_hook(lambda module, *_: later.append(module))
             for name in ("Mixed_3b", "Mixed_3c", "MaxPool3d_4a_3x3")]  # fmt: skip
    with torch.no_grad():
        features = network.features(clip, ["Mixed_3b", "Conv3d_2b_1x1"])
    for hook in hooks:
        hook.remove()
    assert list(features) == ["Conv3d_2b_1x1", "Mixed_3b"]
    assert later == [network.Mixed_3b]
    assert network.features(clip, []) == {}


def test_inflated_answers_as_the_flat_network() -> None:
    """On a video of one frame, where the ends, beyond which there are zeros, are out of sight (99 frames)."""
    torch.manual_seed(21)
    network = randomized(I3D(classes=7)).eval()
    flat = {
        name: torch.randn(value.shape[:2] + value.shape[3:]) * (2 / value[0, :, 0].numel()) ** 0.5
        if value.dim() == 5
        else value
        for name, value in network.state_dict().items()
    }
    network.load_state_dict(inflate(flat, network))
    frame = torch.empty(1, 3, 32, 32).uniform_(-1, 1)
    with torch.no_grad():
        inflated = network.features(frame[:, None].expand(-1, 112, -1, -1, -1), I3D.ENDPOINTS[:-2])
        expected = Plain(flat, dims=2).endpoints(frame)
    for name, theirs in expected.items():
        middle = inflated[name][:, :, inflated[name].shape[2] // 2]
        torch.testing.assert_close(middle, theirs, rtol=0, atol=1e-4 * theirs.abs().max().item())


def test_fixed_gamma_stays_one() -> None:
    network = I3D(classes=3, in_channels=1).train()
    network(torch.rand(2, 8, 1, 32, 32)).sum().backward()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            assert module.weight.grad is None
            assert (module.weight == 1).all()
            assert module.bias.grad is not None


def test_batch(network: nn.Module, clip: Tensor) -> None:
    """A clip's scores do not depend on the others; twice the same is bit for bit the same; none give none."""
    with torch.no_grad():
        logits = network(clip)
        assert torch.equal(network(clip), logits)
        torch.testing.assert_close(network(clip[1:]), logits[1:], rtol=1e-4, atol=1e-4)
        assert network(clip[:0]).shape == (0, 7)


def test_one_frame(network: nn.Module) -> None:
    with torch.no_grad():
        assert network(torch.rand(1, 1, 2, 20, 20)).isfinite().all()


def test_state_dict(network: nn.Module, clip: Tensor) -> None:
    other = I3D(classes=7, in_channels=2).eval()
    other.load_state_dict(network.state_dict())
    names = {
        "Conv3d_1a_7x7.conv3d.weight",
        "Mixed_3b.b1a.bn.running_var",
        "Mixed_5c.b3b.bn.weight",
        "logits.conv3d.bias",
    }
    assert names <= network.state_dict().keys()
    with torch.no_grad():
        assert torch.equal(other(clip), network(clip))


def test_autocast(network: nn.Module, clip: Tensor) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(clip)
    assert logits.dtype == torch.bfloat16
    first, *_ = torch.autograd.grad(logits.float().sum(), [network.Conv3d_1a_7x7.conv3d.weight])
    assert first.isfinite().all()
    assert first.any()
    with torch.no_grad():
        exact = network(clip)
    torch.testing.assert_close(logits.float(), exact, rtol=0, atol=0.05 * exact.abs().max().item())


def test_compile(network: nn.Module, clip: Tensor) -> None:
    """With backend eager: one graph, without the minutes that code generation takes."""
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(clip), network(clip), rtol=1e-4, atol=1e-4)


def test_export(network: nn.Module, clip: Tensor) -> None:
    exported = torch.export.export(network, (clip,), dynamic_shapes={"clip": {0: torch.export.Dim("batch")}}).module()
    three = torch.empty(3, *clip.shape[1:]).uniform_(-1, 1)
    with torch.no_grad():
        torch.testing.assert_close(exported(three), network(three), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("clip", "error", "message"),
    [
        ("clip", TypeError, "models.I3D: clip must be a torch.Tensor [N, T, C, H, W]; got str"),
        (torch.rand(1, 2, 8, 32, 32), ValueError,
         "models.I3D: clip must be [N, T, 2, H, W] with T, H, W >= 1; got [1, 2, 8, 32, 32]"),
        (torch.zeros(1, 8, 2, 32, 32, dtype=torch.uint8), ValueError,
         "models.I3D: clip must be floating point in [-1, 1]; got torch.uint8"),
    ],
)  # fmt: skip
def test_rejects_clip(network: nn.Module, clip: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        network(clip)
    assert str(caught.value) == message


def test_rejects_endpoint(network: nn.Module, clip: Tensor) -> None:
    with pytest.raises(ValueError, match=r"^models.I3D: endpoints must be among Conv3d_1a.*, Logits; got Mixed_6a$"):
        network.features(clip, ["Mixed_6a", "Mixed_3b"])
    with pytest.raises(TypeError, match="^models.I3D: endpoints must be a list or tuple .*; got .* 'Mixed_3b'$"):
        network.features(clip, "Mixed_3b")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": 0}, "models.I3D: classes must be an integer >= 1; got 0"),
        ({"in_channels": 2.5}, "models.I3D: in_channels must be an integer >= 1; got 2.5"),
        ({"dropout": 1.0}, "models.I3D: dropout must be in [0, 1); got 1.0"),
        ({"weights": "best"}, "models.I3D: weights must be None or one of 'IMAGENET1K_V1', 'DEFAULT'; got 'best'"),
    ],
)
def test_rejects_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        I3D(**arguments)
    assert str(caught.value) == message
