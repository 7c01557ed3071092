"""FrameFolders: pictures of a folder are what was extracted."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from pyaction import data, video
from pyaction.data import sampling

COUNT, SIZE = 9, (24, 40)


def save(path: Path, picture: Tensor) -> None:
    """As png, so that pixels stay."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = picture.permute(1, 2, 0) if picture.shape[0] == 3 else picture[0]
    Image.fromarray(pixels.numpy()).save(path)


@pytest.fixture
def clip() -> tuple[Tensor, Tensor]:
    return (
        torch.randint(256, (COUNT, 3, *SIZE), dtype=torch.uint8),
        torch.randint(256, (COUNT - 1, 2, *SIZE), dtype=torch.uint8),
    )


@pytest.fixture
def split_root(tmp_path: Path, clip: tuple[Tensor, Tensor]) -> Path:
    """One video as dense_flow lays it out."""
    frames, flow = clip
    for number, frame in enumerate(frames, 1):
        save(tmp_path / "split" / "walk" / f"img_{number:05d}.png", frame)
    for number, pair in enumerate(flow, 1):
        for axis, picture in zip("xy", pair, strict=True):
            save(tmp_path / "split" / "walk" / f"flow_{axis}_{number:05d}.png", picture[None])
    return tmp_path / "split"


def walk(label: int | None = 3, num_frames: int | None = None, offset: int = 0) -> data.AnnotationList:
    return data.AnnotationList((data.Annotation("walk", label, num_frames, offset),), ())


def last_four(frames: int, generator: torch.Generator) -> Tensor:
    return torch.arange(frames - 4, frames).view(2, 2)


def whole(frames: int, generator: torch.Generator) -> Tensor:
    return torch.arange(frames)[None]


def test_frames_and_flow(split_root: Path, clip: tuple[Tensor, Tensor]) -> None:
    frames, flow = clip
    spec = data.ClipSpec(last_four)
    item = data.FrameFolders(walk(), split_root, spec)[0]
    assert set(item) == {"frames", "frame_indices", "label", "index", "path"}
    assert item["frame_indices"].tolist() == [[5, 6], [7, 8]]
    assert torch.equal(item["frames"], frames[5:].view(2, 2, 3, *SIZE))
    item = data.FrameFolders(walk(), split_root, spec, read="flow")[0]
    assert "frames" not in item and torch.equal(item["encoded_flow"], flow[4:].view(2, 2, 2, *SIZE))
    item = data.FrameFolders(walk(), split_root, spec, read="both")[0]
    assert torch.equal(item["encoded_flow"], flow[4:].view(2, 2, 2, *SIZE))
    assert torch.equal(item["frames"], frames[4:8].view(2, 2, 3, *SIZE))


def test_packed_flow_elsewhere(split_root: Path, clip: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    """Red is x, green is y, as TRN's lists of Something-Something have it."""
    flow = clip[1]
    for number, pair in enumerate(flow, 1):
        save(tmp_path / "packed" / "walk" / f"{number:06d}.png", torch.cat([pair, torch.full_like(pair[:1], 77)]))
    spec = data.ClipSpec(whole)
    item = data.FrameFolders(walk(), split_root, spec, read="flow", flow_root=tmp_path / "packed")[0]
    assert torch.equal(item["encoded_flow"][0], flow)


def test_size_rate_and_offset(split_root: Path, clip: tuple[Tensor, Tensor]) -> None:
    spec = data.ClipSpec(whole, short_side=12, fps=10)
    item = data.FrameFolders(walk(None, 7, 2), split_root, spec, recorded_fps=25)[0]
    # 7 frames at 25 fps are 3 (2.8) at 10 fps: times 0, 0.1 and 0.2, frames 0, 2 (as near as 3, and before) and 5.
    assert item["frame_indices"].tolist() == [[2, 4, 7]] and item["label"] == -1
    assert item["frames"].shape == (1, 3, 3, 12, 20)
    by_area = torch.nn.functional.avg_pool2d(clip[0][[2, 4, 7]].float(), 2)
    assert (item["frames"][0] - by_area).abs().mean() < 15  # noise: a still grey would be off by 30


def test_damaged_and_missing_pictures(split_root: Path) -> None:
    data_set = data.FrameFolders(walk(), split_root, data.ClipSpec(whole))
    broken = split_root / "walk" / "img_00007.png"
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(video.VideoError, match="img_00007.png cannot be read as a picture .*; extract the video anew"):
        data_set[0]
    broken.unlink()
    with pytest.raises(video.VideoError, match="img_00007.png is missing"):
        data_set[0]
    two = data.AnnotationList((data.Annotation("run", 3), data.Annotation("walk", 3)), ())
    skipping = data.FrameFolders(two, data_set.layout, data.ClipSpec(whole, on_error="skip"))
    with pytest.raises(video.VideoError, match="none of the 2 videos can be read"):
        skipping[1]
    assert skipping.unreadable == ["run", "walk"]


def test_rejects(split_root: Path) -> None:
    spec = data.ClipSpec(whole)
    with pytest.raises(ValueError, match="read must be 'frames', 'flow' or 'both'; got 'rgb'"):
        data.FrameFolders(walk(), split_root, spec, read="rgb")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="spec.fps 6 needs recorded_fps"):
        data.FrameFolders(walk(), split_root, data.ClipSpec(whole, fps=6))
    for picture in (split_root / "walk").glob("flow_*"):
        picture.unlink()
    with pytest.raises(ValueError, match="holds no flow in a known layout"):
        data.FrameFolders(walk(), split_root, spec, read="flow")


def test_real_folder(real_data: Path) -> None:
    """mmaction2's own test clip."""
    annotations = data.AnnotationList((data.Annotation("mmaction2_rawframes", 0),), ())
    spec = data.ClipSpec(lambda frames, generator: sampling.segment_indices(frames, 2, length=2, mode="test"))
    frames = data.Pictures(real_data, "{video}/img_{index:05d}.jpg", 1)
    flow = data.Pictures(real_data, "{video}/{axis}_{index:05d}.jpg", 1, ("x", "y"))
    item = data.FrameFolders(annotations, data.FrameLayout(frames, flow), spec, read="both")[0]
    assert item["frames"].shape[:3] == (2, 2, 3) and item["encoded_flow"].shape[:3] == (2, 2, 2)
    assert item["encoded_flow"].float().mean().sub(128).abs() < 10
