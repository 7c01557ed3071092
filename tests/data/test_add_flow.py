"""AddFlow: the flow of an item is that of its frames, wherever it is computed."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from pyaction import data, flow
from pyaction.data import sampling
from pyaction.data import transforms as tr
from pyaction.data.flow_cache import FlowCache

ANY = torch.Generator()


def moving(samples: int = 2, length: int = 5, seed: int = 1) -> dict[str, Any]:
    """A texture that moves 2 pixels to the right and 1 down in each frame."""
    noise = torch.rand(samples, 3, 12, 16, generator=torch.Generator().manual_seed(seed))
    texture = torch.nn.functional.interpolate(noise, (48, 64), mode="bicubic").clamp(0, 1).mul(255).byte()
    frames = torch.stack([texture.roll((t, 2 * t), dims=(2, 3)) for t in range(length)], dim=1)
    return {"frames": frames, "frame_indices": torch.arange(samples * length).view(samples, length), "path": "a.mp4"}


def inside(fields: Tensor) -> list[float]:
    return [round(float(value), 1) for value in fields[..., 8:-8, 8:-8].mean((-2, -1)).flatten()]


def test_flow_of_items_and_batches() -> None:
    item, other = moving(), moving(seed=2)
    fields = tr.AddFlow()(item, ANY)["flow"]
    assert fields.shape == (2, 4, 2, 48, 64) and fields.dtype == torch.float32
    assert torch.equal(fields, flow.estimate(item["frames"]))
    assert inside(fields[0, 0]) == pytest.approx([2, 1], abs=0.2)
    batch = tr.AddFlow()(default_collate([item, other]), ANY)["flow"]
    assert torch.equal(batch[0], fields) and torch.equal(batch[1], flow.estimate(other["frames"]))


def test_own_method() -> None:
    fields = tr.AddFlow(lambda clip: clip[:, :-1, :2].float())(moving(), ANY)["flow"]
    assert torch.equal(fields, moving()["frames"][:, :-1, :2].float())


@pytest.mark.parametrize("batched", [False, True])
def test_bidirectional(batched: bool) -> None:
    """Away from the middle frame: forwards is right, backwards in time is left."""
    item = default_collate([moving(), moving(seed=2)]) if batched else moving()
    fields = tr.AddFlow(bidirectional=True)(item, ANY)["flow"]
    own, frames = (fields[1], item["frames"][1]) if batched else (fields, item["frames"])
    assert torch.equal(own[:, :2], flow.estimate(frames[:, 2:]))
    assert torch.equal(own[:, 2:], flow.estimate(frames[:, :3].flip(1)))
    assert inside(own[0, :, 0]) == pytest.approx([2, 2, -2, -2], abs=0.2)
    stacked = tr.StackFlow()({"flow": own}, ANY)["flow"]
    assert torch.equal(stacked, tr.stack_bidirectional(own[:, :2], own[:, 2:]))


@pytest.mark.parametrize(("bidirectional", "first"), [(False, 0), (True, 2)])
def test_keep_frames(bidirectional: bool, first: int) -> None:
    item = moving()
    kept = tr.AddFlow(bidirectional=bidirectional, keep_frames=2)(item, ANY)
    assert torch.equal(kept["frames"], item["frames"][:, first : first + 2])
    assert kept["frame_indices"].tolist() == [[first, first + 1], [5 + first, 6 + first]]
    assert "frames" not in tr.AddFlow(bidirectional=bidirectional, keep_frames=0)(item, ANY)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_cache(tmp_path: Path, bidirectional: bool) -> None:
    item = moving()
    transform = tr.AddFlow(bidirectional=bidirectional, cache=FlowCache(tmp_path))
    first, second = transform(item, ANY)["flow"], transform(item, ANY)["flow"]
    assert torch.equal(first, second) and any(path.stat().st_size > 1000 for path in tmp_path.rglob("*.flow"))
    exact = tr.AddFlow(bidirectional=bidirectional)(item, ANY)["flow"]
    assert torch.equal(first, flow.decode(flow.encode(exact)))


def test_workers_compute_it(actions_root: Path) -> None:
    five = partial(sampling.segment_indices, segments=2, length=5)
    annotations = data.read_ucf101(actions_root / "annotations", 1, "test")
    spec = data.ClipSpec(five, [tr.AddFlow(keep_frames=1), tr.TrainingCrop(32), tr.RandomFlip(), tr.StackFlow()])
    data_set = data.VideoDataSet(annotations, actions_root / "videos", spec)
    batches = [list(DataLoader(data_set, 4, num_workers=workers)) for workers in (0, 2)]
    assert batches[0][0]["flow"].shape == (4, 2, 8, 32, 32) and batches[0][0]["frames"].shape == (4, 2, 1, 3, 32, 32)
    for one, other in zip(*batches, strict=True):
        assert torch.allclose(one["flow"], other["flow"], atol=1e-5)


def test_rejects() -> None:
    with pytest.raises(ValueError, match="two frames or more in each sample; got 1"):
        tr.AddFlow()(moving(length=1), ANY)
    for length in (1, 4):
        with pytest.raises(ValueError, match=rf"bidirectional needs L \+ 1 frames, L even; got {length}"):
            tr.AddFlow(bidirectional=True)(moving(length=length), ANY)
    with pytest.raises(ValueError, match="keep_frames must be None or at least 0; got -1"):
        tr.AddFlow(keep_frames=-1)
    with pytest.raises(ValueError, match="a cache is for items, in ClipSpec.transforms; got a batch"):
        tr.AddFlow(cache=FlowCache("nowhere"))(default_collate([moving()]), ANY)
