"""RAFT against direct calls of torchvision's network, which has random weights: none can be downloaded here."""

import urllib.error
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torchvision.models.optical_flow as networks
from torch import Tensor, nn

from pyaction import flow
from pyaction.flow import raft


@pytest.fixture(scope="module")
def small() -> nn.Module:
    return networks.raft_small(weights=None).eval()


@pytest.fixture(scope="module")
def weights(small: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "small.pt"
    torch.save(small.state_dict(), path)
    return path


@torch.no_grad()
def direct(network: nn.Module, frame0: Tensor, frame1: Tensor, updates: int) -> Tensor:
    """As torchvision documents it: its own preset transform, then the last prediction."""
    frame0, frame1 = networks.Raft_Small_Weights.DEFAULT.transforms()(frame0, frame1)
    return network(frame0, frame1, num_flow_updates=updates)[-1]


def assert_close(actual: Tensor, expected: Tensor) -> None:
    assert actual.shape == expected.shape and actual.dtype == torch.float32
    assert expected.abs().max() > 0.1  # random weights see motion too
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_matches_torchvision(small: nn.Module, weights: Path, dtype: torch.dtype) -> None:
    clip = torch.randint(0, 256, (2, 3, 3, 128, 136), dtype=torch.uint8)
    clip = clip if dtype == torch.uint8 else clip / 255
    actual = flow.estimate(clip, flow.RAFT("small", weights=weights, updates=3))
    for t in range(2):
        assert_close(actual[:, t], direct(small, clip[:, t], clip[:, t + 1], 3))


@pytest.mark.parametrize(("height", "width"), [(131, 150), (1, 135), (37, 64)])
def test_pads_odd_and_small_frames(small: nn.Module, weights: Path, height: int, width: int) -> None:
    """Half of the padding on each side, border pixels repeated, and cropped back."""
    clip = torch.rand(1, 2, 3, height, width)
    full_height, full_width = max(128, (height + 7) // 8 * 8), max(128, (width + 7) // 8 * 8)
    top, left = (full_height - height) // 2, (full_width - width) // 2
    rows = (torch.arange(full_height) - top).clamp(0, height - 1)
    columns = (torch.arange(full_width) - left).clamp(0, width - 1)
    padded = clip[..., rows, :][..., columns]
    expected = direct(small, padded[:, 0], padded[:, 1], 2)[..., top : top + height, left : left + width]
    assert_close(flow.RAFT("small", weights=weights, updates=2)(clip)[:, 0], expected)


def test_grey_is_rgb_thrice(weights: Path) -> None:
    clip = torch.rand(1, 2, 1, 128, 128)
    estimator = flow.RAFT("small", weights=weights, updates=2)
    assert torch.equal(estimator(clip), estimator(clip.expand(-1, -1, 3, -1, -1)))


def test_chunks_make_no_difference(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = torch.rand(2, 4, 3, 128, 128)
    estimator = flow.RAFT("small", weights=weights, updates=2)
    expected = estimator(clip)
    seen = []
    estimator._networks[clip.device].register_forward_pre_hook(lambda network, frames: seen.append(len(frames[0])))
    monkeypatch.setattr(raft, "_CHUNK_BYTES", 5 * 18 * 2**20)  # of 17.3 MiB a pair
    assert_close(estimator(clip), expected)
    assert seen == [5, 1]


def test_memory_bound() -> None:
    assert raft._pairs_at_once(240, 320) == 12
    assert raft._pairs_at_once(1080, 1920) == 1


def test_large_without_weights_is_the_same_in_every_process() -> None:
    clip = torch.rand(1, 2, 3, 128, 128)
    state = torch.get_rng_state()
    first = flow.RAFT(weights=None, updates=1)(clip)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(21)
    assert torch.equal(flow.RAFT(weights=None, updates=1)(clip), first)
    torch.manual_seed(0)
    expected = networks.raft_large(weights=None).eval()
    assert_close(first[:, 0], direct(expected, clip[:, 0], clip[:, 1], 1))


def test_loads_once_and_needs_no_gradient(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    estimator = flow.RAFT("small", weights=weights, updates=1)
    clip = torch.rand(1, 2, 3, 128, 128)
    assert not estimator(clip).requires_grad
    monkeypatch.setattr(networks, "raft_small", None)
    estimator(clip)


def test_computes_in_float32_under_autocast(weights: Path) -> None:
    clip = torch.rand(1, 2, 3, 128, 128)
    estimator = flow.RAFT("small", weights=weights, updates=2)
    with torch.autocast("cpu", torch.bfloat16):
        actual = estimator(clip)
    assert torch.equal(actual, estimator(clip))


@pytest.mark.parametrize(("size", "file"), [("large", "raft_large_C_T_SKHT_V2"), ("small", "raft_small_C_T_V2")])
def test_default_weights_are_torchvisions(size: str, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(url: str, **_: object) -> None:
        raise urllib.error.URLError(f"no network for {Path(url).name}")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    with pytest.raises(OSError, match=rf"https://\S*{file}\S* could not be downloaded .*no network.*give weights="):
        flow.RAFT(size)(torch.rand(1, 2, 3, 8, 8))


def test_downloaded_weights_are_used(small: nn.Module, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def load(url: str, **options: object) -> dict[str, Tensor]:
        calls.append((url, options["check_hash"]))
        return small.state_dict()

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", load)
    clip = torch.rand(1, 2, 3, 128, 128)
    named = flow.RAFT("small", weights="C_T_V1", updates=2)
    assert torch.equal(named(clip), flow.RAFT("small", weights=weights, updates=2)(clip))
    assert calls == [(networks.Raft_Small_Weights.C_T_V1.url, True)]


def test_rejects(weights: Path, tmp_path: Path) -> None:
    clip = torch.rand(1, 2, 3, 8, 8)
    with pytest.raises(ValueError, match="size must be 'large' or 'small'; got 'tiny'"):
        flow.RAFT("tiny")
    for updates in (0, 2.5):
        with pytest.raises(ValueError, match=f"updates must be an integer >= 1; got {updates}"):
            flow.RAFT(updates=updates)
    with pytest.raises(ValueError, match="weights must be a name, a path or None; got Linear"):
        flow.RAFT(weights=nn.Linear(2, 2))
    with pytest.raises(FileNotFoundError, match="one of C_T_V1, .*DEFAULT; there is no file C_T_V3"):
        flow.RAFT(weights="C_T_V3")(clip)
    with pytest.raises(ValueError, match="must hold a state dict of torchvision's raft_large; Error"):
        flow.RAFT(weights=weights)(clip)
    for contents in (b"", b"no weights", weights.read_bytes()[:9999]):
        (tmp_path / "broken.pt").write_bytes(contents)
        with pytest.raises(ValueError, match="broken.pt must hold a state dict of torchvision's raft_small; ."):
            flow.RAFT("small", weights=tmp_path / "broken.pt")(clip)
    torch.save([torch.zeros(2)], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="must hold a state dict"):
        flow.RAFT("small", weights=tmp_path / "list.pt")(clip)


@pytest.mark.gpu
def test_cpu_matches_cuda(weights: Path) -> None:
    clip = F.interpolate(torch.rand(3, 3, 40, 40), size=(140, 150), mode="bilinear")[None]
    estimator = flow.RAFT("small", weights=weights, updates=3)
    motion = estimator(clip.cuda())
    assert motion.is_cuda
    torch.testing.assert_close(motion.cpu(), estimator(clip), rtol=1e-2, atol=0.05)  # TF32 in convolutions
