"""Transforms of items: frames and flow change together, one by one and in batches."""

from typing import Any

import pytest
import torch
from torch.utils.data import default_collate

from pyaction.data import transforms as tr

ANY = torch.Generator()


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def item_of(samples: int = 2, height: int = 40, width: int = 52, seed: int = 3) -> dict[str, Any]:
    """Frames, and as flow a copy of their first two channels: what happens to one must happen to the other."""
    frames = torch.rand(samples, 3, 3, height, width, generator=seeded(seed))
    indices = torch.arange(3 * samples).view(samples, 3)
    return {"frames": frames, "flow": frames[:, :2, :2] * 20, "frame_indices": indices, "label": 4, "path": "a/b"}


@pytest.mark.parametrize("crop", [tr.TrainingCrop(24), tr.TrainingCrop(24, scales=(0.9, 0.7), max_distort=0)])
def test_training_crop(crop: tr.TrainingCrop) -> None:
    item = item_of()
    cropped = crop(item, seeded(5))
    frames, flow = cropped["frames"], cropped["flow"]
    assert frames.shape == (2, 3, 3, 24, 24) and flow.shape == (2, 2, 2, 24, 24)
    scale = 1.0 if crop.scales is None else flow[0, 0, 0].mean() / (20 * frames[0, 0, 0].mean())
    assert torch.allclose(flow, frames[:, :2, :2] * 20 * scale, atol=1e-4)
    assert cropped["frame_indices"] is item["frame_indices"] and item["frames"].shape[-1] == 52
    assert torch.equal(crop(item, seeded(5))["frames"], frames)
    assert any(not torch.equal(crop(item, seeded(seed))["frames"], frames) for seed in range(9))


@pytest.mark.parametrize("crops", [1, 5, 10])
def test_test_crop(crops: int) -> None:
    """Crop c of sample s is sample c * S + s, in items and in batches."""
    several = {1: lambda clip, *rest: tr.center_crop(clip, *rest)[None], 5: tr.five_crop, 10: tr.ten_crop}[crops]
    item, other = item_of(), item_of(seed=4)
    transform = tr.TestCrop(32, crops=crops)  # type: ignore[arg-type]
    cropped = transform(item, ANY)
    for key in ("frames", "flow"):
        assert torch.equal(cropped[key], several(item[key], 32, key).flatten(0, 1))
    assert torch.equal(cropped["frame_indices"], item["frame_indices"].repeat(crops, 1))
    batch = transform(default_collate([item, other]), ANY)
    assert torch.equal(batch["frames"][0], cropped["frames"])
    assert torch.equal(batch["flow"][1], transform(other, ANY)["flow"])
    assert torch.equal(batch["frame_indices"][1], cropped["frame_indices"])
    with pytest.raises(ValueError, match="crops must be 1, 5 or 10; got 3"):
        tr.TestCrop(crops=3)  # type: ignore[arg-type]


def test_random_flip() -> None:
    item = item_of()
    flipped = tr.RandomFlip(1.0)(item, seeded(1))
    assert torch.equal(flipped["frames"], item["frames"].flip(-1))
    sign = torch.tensor([-1.0, 1.0]).view(2, 1, 1)
    assert torch.equal(flipped["flow"], item["flow"].flip(-1) * sign)
    draws = [torch.equal(tr.RandomFlip()(item, seeded(seed))["flow"], item["flow"]) for seed in range(20)]
    assert 3 < sum(draws) < 17


def test_random_color_jitter() -> None:
    item = item_of()
    jittered = tr.RandomColorJitter(brightness=0.5, hue=0.1)(item, seeded(2))
    wanted = tr.random_color_jitter(seeded(2), brightness=0.5, hue=0.1)(item["frames"])
    assert torch.equal(jittered["frames"], wanted) and jittered["flow"] is item["flow"]


def test_stack_flow() -> None:
    item = item_of()
    flow = item["flow"]
    assert torch.equal(tr.StackFlow()(item, ANY)["flow"], tr.stack_flow(flow))
    assert torch.equal(tr.StackFlow(trajectories=True)(item, ANY)["flow"], tr.stack_trajectories(flow))
    stacked = tr.StackFlow(trajectories=True, subtract_mean=True)(default_collate([item, item]), ANY)["flow"]
    assert torch.equal(stacked[1], tr.stack_trajectories(tr.subtract_mean_flow(flow)))
    encoded = {"encoded_flow": torch.zeros(2, 4, 2, 8, 8, dtype=torch.uint8)}
    assert tr.StackFlow()(encoded, ANY)["encoded_flow"].shape == (2, 8, 8, 8)
    with pytest.raises(ValueError, match="encoded flow has no trajectories"):
        tr.StackFlow(trajectories=True)(encoded, ANY)


def test_normalize() -> None:
    item = item_of()
    both = tr.Normalize(tr.TORCHVISION_RGB, tr.TORCHVISION_FLOW)(item, ANY)
    assert torch.equal(both["frames"], tr.TORCHVISION_RGB(item["frames"], "frames"))
    assert torch.equal(both["flow"], tr.TORCHVISION_FLOW(item["flow"], "flow"))
    assert tr.Normalize(flow=tr.I3D_FLOW)(item, ANY)["frames"] is item["frames"]
    encoded = torch.randint(256, (2, 20, 8, 8), dtype=torch.uint8)
    normalized = tr.Normalize(flow=tr.BN_INCEPTION_FLOW)({"encoded_flow": encoded}, ANY)
    assert set(normalized) == {"flow"}  # networks find it under one name
    assert torch.equal(normalized["flow"], tr.BN_INCEPTION_FLOW(encoded, "encoded_flow"))


@pytest.mark.parametrize(("transform", "message"), [
    (tr.TrainingCrop(8), "TrainingCrop: the item must hold frames or flow; got label"),
    (tr.StackFlow(), "StackFlow: the item must hold flow, from transforms.AddFlow say; got label"),
    (tr.Normalize(flow=tr.I3D_FLOW), "Normalize: the item must hold flow"),
])  # fmt: skip
def test_rejects(transform: tr.ItemTransform, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        transform({"label": 3}, ANY)
