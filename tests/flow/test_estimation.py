"""flow.estimate: every method by name, as an object and as any callable; what it refuses."""

import pickle
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyaction import flow, ops


def moving_clip(frames: int = 4, height: int = 60, width: int = 76, motion: tuple[int, int] = (3, -2)) -> Tensor:
    """(1, T, 3, H, W) uint8: a smooth texture that moves by (x, y) pixels per frame."""
    x, y = motion
    noise = torch.rand(1, 3, height // 4 + 20, width // 4 + 20)
    texture = F.interpolate(noise, scale_factor=4, mode="bicubic").clamp(0, 1).mul(255).byte()[0]
    views = [texture[:, 40 - t * y : 40 - t * y + height, 40 - t * x : 40 - t * x + width] for t in range(frames)]
    return torch.stack(views)[None]


@pytest.mark.parametrize("method", ["tvl1", flow.TVL1("accurate"), flow.TVL1(ops.TVL1Params(scales=3))])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64, torch.float16])
def test_known_value(method: object, dtype: torch.dtype) -> None:
    clip = moving_clip()
    if dtype != torch.uint8:
        clip = clip.double().div(255).to(dtype)
    motion = flow.estimate(clip, method)
    assert motion.shape == (1, 3, 2, 60, 76) and motion.dtype == torch.float32
    inside = motion[..., 12:-12, 12:-12]
    assert (inside - torch.tensor([3.0, -2.0])[:, None, None]).abs().mean() < 0.1


def test_tvl1_is_the_op_with_its_preset() -> None:
    clip = moving_clip()
    assert torch.equal(flow.estimate(clip), ops.tvl1_flow_clip(clip, params="video"))
    assert torch.equal(flow.estimate(clip, flow.TVL1("fast")), ops.tvl1_flow_clip(clip, params="fast"))


@pytest.mark.gpu
def test_cpu_matches_cuda() -> None:
    clip = moving_clip()
    motion = flow.estimate(clip.cuda())
    assert motion.is_cuda
    assert flow.endpoint_error(motion.cpu(), flow.estimate(clip)) < 0.02


@pytest.mark.parametrize("method", ["tvl1", "raft", "hardware", nn.Identity()])
@pytest.mark.parametrize(("n", "t"), [(0, 5), (3, 1), (0, 1)])
def test_empty(method: object, n: int, t: int) -> None:
    """Also by methods that could not run here."""
    motion = flow.estimate(torch.rand(n, t, 3, 9, 11), method)
    assert motion.shape == (n, t - 1, 2, 9, 11) and motion.dtype == torch.float32


def test_gradient_of_another_method() -> None:
    network = nn.Conv3d(3, 2, (2, 1, 1)).double()
    clip = torch.rand(2, 4, 3, 5, 6, dtype=torch.float64)
    motion = flow.estimate(clip, lambda clip: network(clip.movedim(1, 2)).movedim(1, 2))
    assert motion.dtype == torch.float64
    motion.sum().backward()
    assert network.weight.grad is not None and network.weight.grad.abs().sum() > 0


REJECTS = {
    "no tensor": ([1, 2], TypeError, r"clip must be a torch.Tensor \[N, T, C, H, W\]; got list"),
    "integers": (torch.zeros(1, 2, 3, 8, 8, dtype=torch.int32), ValueError, "must be uint8, or floating.*int32"),
    "frames": (torch.zeros(2, 3, 8, 8), ValueError, r"must be \[N, T, C, H, W\].*got \[2, 3, 8, 8\]"),
    "channels last": (torch.zeros(1, 2, 8, 8, 3), ValueError, r"C = 1 or 3; got \[1, 2, 8, 8, 3\]"),
    "no frame": (torch.zeros(1, 0, 3, 8, 8), ValueError, "T, H, W >= 1"),
    "no pixel": (torch.zeros(1, 2, 3, 8, 0), ValueError, "T, H, W >= 1"),
    "grey levels": (torch.full((1, 2, 3, 8, 8), 200.0), ValueError, "from 200 to 200.*divide by 255"),
    "NaN": (torch.full((1, 2, 3, 8, 8), torch.nan), ValueError, r"must be in \[0, 1\]"),
}


@pytest.mark.parametrize("method", ["tvl1", flow.RAFT("small", weights=None), "hardware", nn.Identity()], ids=str)
@pytest.mark.parametrize("case", REJECTS)
def test_rejects(case: str, method: object) -> None:
    clip, error, message = REJECTS[case]
    with pytest.raises(error, match=message):
        flow.estimate(clip, method)


@pytest.mark.parametrize(
    ("result", "error", "message"),
    [
        (None, TypeError, "method must return a torch.Tensor; got NoneType"),
        (torch.zeros(2, 2, 2, 8, 9), ValueError, r"= \[2, 3, 2, 8, 9\], in pixels; got \[2, 2, 2, 8, 9\]"),
        (torch.zeros(2, 3, 2, 8, 9, dtype=torch.uint8), ValueError, "floating point on cpu; got torch.uint8 on cpu"),
        (torch.zeros(2, 3, 2, 8, 9, device="meta"), ValueError, "floating point on cpu; got torch.float32 on meta"),
    ],
)
def test_rejects_result(result: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        flow.estimate(torch.rand(2, 4, 3, 8, 9), lambda clip: result)


def test_rejects_method() -> None:
    clip = torch.rand(1, 2, 3, 8, 8)
    with pytest.raises(ValueError, match="one of 'tvl1', 'raft', 'hardware', or callable; got 'farneback'"):
        flow.estimate(clip, "farneback")
    with pytest.raises(TypeError, match="a name or callable; got int"):
        flow.estimate(clip, 7)
    for params in ("slow", None):
        with pytest.raises(ValueError, match=f"params must be a TVL1Params or one of 'opencv'.*got {params!r}"):
            flow.TVL1(params)


@pytest.mark.parametrize("method", ["tvl1", "raft", "hardware"])
def test_refuses_a_gradient(method: str) -> None:
    clip = torch.rand(1, 2, 3, 8, 8, requires_grad=True)
    with pytest.raises(RuntimeError, match="not differentiable: detach the clip"):
        flow.estimate(clip, method)


@pytest.mark.parametrize(
    "estimator", [flow.TVL1("fast"), flow.RAFT("small", weights=None, updates=3), flow.Hardware(grid=2)]
)
def test_pickle_and_repr(estimator: flow.Estimator) -> None:
    assert pickle.loads(pickle.dumps(estimator)) == estimator
    names = {"ops": ops, "TVL1Params": ops.TVL1Params, **{name: getattr(flow, name) for name in flow.__all__}}
    assert eval(repr(estimator), names) == estimator


def test_names_are_defaults() -> None:
    assert flow.estimator("tvl1") is flow.estimator("tvl1")
    assert flow.estimator("tvl1") == flow.TVL1("video") == flow.TVL1(ops.TVL1_PRESETS["video"]) != flow.TVL1("fast")
    assert [flow.estimator(name) for name in ("raft", "hardware")] == [flow.RAFT(), flow.Hardware()]


def test_import_is_light() -> None:
    """Neither the import nor TV-L1 brings in torchvision or DALI."""
    code = (
        "import sys, torch; before = set(sys.modules); from pyaction import flow; flow.RAFT(); flow.Hardware(); "
        "flow.estimate(torch.rand(1, 2, 3, 20, 20)); new = set(sys.modules) - before; "
        "print([name for name in new if name.split('.')[0] in ('torchvision', 'nvidia')])"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "[]"
