"""DALI's batches are the DataLoader's: the same draws, and pixels within what decoders and resizers differ by."""

import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from video.numbered_video import encode

from pyaction import data, video
from pyaction.data import sampling
from pyaction.data import transforms as tr
from pyaction.data.dali_plans import as_stored, split_transforms
from pyaction.video.pyav_reader import PyAVReader

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("nvidia") is None or importlib.util.find_spec("nvidia.dali") is None,
    reason="DALI is not installed: pip install 'pyaction[cuda13]'",
)

VP9 = ("libvpx-vp9", "yuv420p", {"crf": "8", "b": "0", "cpu-used": "8"})
FRAMES = 12
TRAINING = (tr.TrainingCrop(48, scales=(1, 0.75, 0.6)), tr.RandomFlip())
JITTER = tr.RandomColorJitter(brightness=0.4, hue=0.1)
RGB, BGR = tr.Normalize(tr.TORCHVISION_RGB), tr.Normalize(tr.BN_INCEPTION_RGB)

# Mean and largest difference from the DataLoader's frames, in grey levels; jitter makes them larger.
TOLERANCE = 3.0, 60


def segments(frames: int, generator: torch.Generator) -> torch.Tensor:
    return sampling.segment_indices(frames, 3, length=2, generator=generator)


def repeated(frames: int, generator: torch.Generator) -> torch.Tensor:
    return torch.tensor([[frames - 1, 0], [5, 5], [1, 5]])


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine videos of two sizes: VP9, Motion JPEG, one turned by a phone, one in the colours of BT.709."""
    root = tmp_path_factory.mktemp("videos")
    for number in range(7):
        action = data.ACTIONS[number % 3]
        size = (64, 96) if number % 2 else (80, 112)
        frames = data.ActionScene(action, group=number, clip=0, size=size, frames=FRAMES, seed=3).frames()
        video.write(root / f"{number}{'.avi' if number == 4 else '.webm'}", frames, fps=25)
    pictures = [frame.permute(1, 2, 0).contiguous().numpy() for frame in frames]
    encode(root / "7.mp4", *VP9, pictures, rotation=90)
    colors = np.random.default_rng(3).integers(20, 236, (3, 4, 3), dtype=np.uint8)
    gaudy = cv2.resize(colors, (112, 80), interpolation=cv2.INTER_CUBIC)
    encode(root / "8.webm", *VP9, [gaudy] * FRAMES, colorspace=1)
    return root


def of(root: Path, spec: data.ClipSpec) -> data.VideoDataSet:
    files = sorted(root.iterdir())
    annotations = data.AnnotationList(
        tuple(data.Annotation(file.name, int(file.stem) % 3) for file in files), ("a", "b", "c")
    )
    return data.VideoDataSet(annotations, root, spec)


def assert_same(batch: dict, expected: dict, scale: float = 1.0) -> None:
    """The same facts, and frames within the tolerance; `scale`: what a grey level has become."""
    assert set(batch) == set(expected)
    for key, value in expected.items():
        if key != "frames" and isinstance(value, torch.Tensor):
            assert torch.equal(batch[key], value), key
        elif key != "frames":
            assert batch[key] == value
    frames, wanted = batch["frames"], expected["frames"]
    assert frames.shape == wanted.shape and frames.dtype == wanted.dtype
    difference = (frames.float() - wanted.float()).abs() / scale
    assert difference.mean() < TOLERANCE[0] and difference.max() < TOLERANCE[1]


@pytest.mark.parametrize(
    ("transforms", "scale"),
    [
        (TRAINING, 1),
        ((*TRAINING, RGB), 1 / 255 / 0.225),
        ((*TRAINING, BGR), 1),
        ((tr.RandomFlip(), tr.TrainingCrop(50), tr.RandomFlip()), 1),
        ((tr.TestCrop(56), RGB), 1 / 255 / 0.225),
        ((*TRAINING, JITTER, RGB), 1 / 255 / 0.225),  # jitter and what follows in torch
        ((tr.TestCrop(40, crops=5), RGB), 1 / 255 / 0.225),
        ((JITTER, *TRAINING), 1),
    ],
    ids=["training", "normalized", "bgr", "two flips", "test", "jitter", "five crops", "jitter first"],
)
@pytest.mark.parametrize("size", [{"size": (72, 90)}, {"short_side": 60}], ids=["size", "short side"])
def test_same_batches(root: Path, transforms: tuple, scale: float, size: dict) -> None:
    data_set = of(root, data.ClipSpec(segments, transforms, seed=5, **size))
    for epoch in (0, 3):
        data_set.set_epoch(epoch)
        pairs = zip(data.DALILoader(data_set, 4, device="cpu"), DataLoader(data_set, 4), strict=True)
        for batch, expected in pairs:
            assert_same(batch, expected, scale)


def test_draws_differ_between_epochs(root: Path) -> None:
    data_set = of(root, data.ClipSpec(segments, TRAINING, size=(72, 90)))
    (first,) = data.DALILoader(data_set, 9, device="cpu")
    data_set.set_epoch(1)
    (second,) = data.DALILoader(data_set, 9, device="cpu")
    assert not torch.equal(first["frame_indices"], second["frame_indices"])


def test_unscaled_frames(root: Path) -> None:
    """No size, no transforms: whole frames, which must be alike in a batch, as in a DataLoader."""
    data_set = of(root, data.ClipSpec(segments))
    for batch, expected in zip(data.DALILoader(data_set, device="cpu"), DataLoader(data_set), strict=True):
        assert_same(batch, expected)
    with pytest.raises(RuntimeError, match="equal size"):
        list(data.DALILoader(data_set, 2, device="cpu"))


def test_repeated_frames(root: Path) -> None:
    data_set = of(root, data.ClipSpec(repeated, TRAINING, size=(72, 90)))
    for batch, expected in zip(data.DALILoader(data_set, 9, device="cpu"), DataLoader(data_set, 9), strict=True):
        assert_same(batch, expected)
        assert torch.equal(batch["frames"][:, 1, 0], batch["frames"][:, 2, 1])


@pytest.mark.parametrize("workers", [0, 2])
def test_order(root: Path, workers: int) -> None:
    """Shuffled as a DataLoader would, the last batch smaller or left out; batches keep what they held."""
    data_set = of(root, data.ClipSpec(segments, TRAINING, size=(72, 90)))
    loader = data.DALILoader(data_set, 4, device="cpu", shuffle=True, workers=workers)
    torch.manual_seed(8)
    batches = list(loader)
    torch.manual_seed(8)
    wanted = [batch["index"].tolist() for batch in DataLoader(data_set, 4, shuffle=True)]
    assert [batch["index"].tolist() for batch in batches] == wanted
    assert len(loader) == len(batches) == 3
    assert len(data.DALILoader(data_set, 4, device="cpu", drop_last=True)) == 2
    for batch in batches:
        for row, index in enumerate(batch["index"].tolist()):
            difference = batch["frames"][row].float() - data_set[index]["frames"].float()
            assert difference.abs().mean() < TOLERANCE[0]
    next(iter(loader))  # an abandoned iteration does not disturb the next one
    assert sorted(index for batch in loader for index in batch["index"].tolist()) == list(range(9))


def test_batch_sampler(root: Path) -> None:
    data_set = of(root, data.ClipSpec(segments, TRAINING, size=(72, 90)))
    batches = [[3], [8, 2, 5], [1], [4, 0, 6, 7]]  # growing: the first pipeline is too small
    loader = data.DALILoader(data_set, device="cpu", batch_sampler=batches)
    assert loader.batch_sampler is batches
    for batch, expected in zip(loader, DataLoader(data_set, batch_sampler=batches), strict=True):
        assert_same(batch, expected)


def test_mirror_images_only_where_allowed(root: Path) -> None:
    data_set = of(root, data.ClipSpec(segments, (tr.RandomFlip(1.0),), size=(72, 90)))
    annotations = data.AnnotationList(data_set.annotations, data_set.class_names, mirrors=False)
    plain = data.VideoDataSet(annotations, root, data_set.spec)
    (mirrored,), (not_mirrored,) = (list(data.DALILoader(one, 9, device="cpu")) for one in (data_set, plain))
    assert torch.equal(mirrored["frames"], not_mirrored["frames"].flip(-1))


def test_kept_indexes(root: Path, tmp_path: Path, monkeypatch) -> None:
    """From the second epoch on PyAV decodes nothing."""
    data_set = of(root, data.ClipSpec(segments, TRAINING, size=(72, 90), index_folder=tmp_path / "indexes"))
    (expected,) = DataLoader(data_set, 9)
    monkeypatch.setattr(PyAVReader, "_decode", lambda self: pytest.fail("PyAV decodes"))
    (batch,) = data.DALILoader(data_set, 9, device="cpu")
    assert_same(batch, expected)


# ---------------------------------------------------------------------- broken videos and refusals


@pytest.fixture
def broken_root(root: Path, tmp_path: Path) -> Path:
    """A copy in which video 3 is cut and video 5 is no video."""
    for file in root.iterdir():
        content = file.read_bytes()
        (tmp_path / file.name).write_bytes({"3": content[:-500], "5": b"x" * 999}.get(file.stem, content))
    return tmp_path


def test_broken_videos(broken_root: Path) -> None:
    spec = data.ClipSpec(segments, TRAINING, size=(72, 90))
    with pytest.raises(video.VideoError, match=r"3\.webm is cut short"):
        list(data.DALILoader(of(broken_root, spec), 9, device="cpu"))
    left_out = [of(broken_root, data.ClipSpec(segments, TRAINING, size=(72, 90), on_error="skip")) for _ in range(2)]
    (expected,), (batch,) = DataLoader(left_out[0], 9), data.DALILoader(left_out[1], 9, device="cpu")
    assert_same(batch, expected)
    assert left_out[1].unreadable == ["3.webm", "5.webm"]


def test_stop_before_the_damage(broken_root: Path) -> None:
    data_set = of(broken_root, data.ClipSpec(segments, TRAINING, size=(72, 90), on_error="stop"))
    (expected,), (batch,) = DataLoader(data_set, 9), data.DALILoader(data_set, 9, device="cpu")
    assert_same(batch, expected)
    assert batch["index"].tolist() == [0, 1, 2, 3, 4, 8, 6, 7, 8]


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_what_only_dali_cannot_read(root: Path, on_error: str, monkeypatch, caplog) -> None:
    """A file that breaks between counting and decoding: found among its batch, and replaced or reported."""
    data_set = of(root, data.ClipSpec(segments, TRAINING, size=(72, 90), on_error=on_error))
    loader = data.DALILoader(data_set, 3, device="cpu")
    read = type(loader._plans).read

    def read_badly(self, index, generator):
        item = read(self, index, generator)
        if index == 4:
            item["frames"].numbers[-1] = 99
        return item

    monkeypatch.setattr(type(loader._plans), "read", read_badly)
    if on_error == "raise":
        with pytest.raises(video.VideoError, match=r"4\.avi does not decode in DALI \(Unexpected out-of-bounds"):
            list(loader)
        return
    indices = [batch["index"].tolist() for batch in loader]
    assert indices == [[0, 1, 2], [3, 7, 5], [6, 7, 8]]
    assert data_set.unreadable == ["4.avi"]
    assert "4.avi does not decode in DALI" in caplog.text


def test_a_codec_that_dali_lacks_is_no_damage(root: Path, tmp_path: Path) -> None:
    video.write(tmp_path / "0.mp4", torch.zeros(9, 3, 64, 64, dtype=torch.uint8), fps=25)
    data_set = of(tmp_path, data.ClipSpec(segments, on_error="skip"))
    with pytest.raises(ValueError, match=r"is H\.264, which needs a GPU in DALI"):
        list(data.DALILoader(data_set, device="cpu"))
    assert data_set.unreadable == []


def test_rejects(root: Path) -> None:
    data_set = of(root, data.ClipSpec(segments))
    with pytest.raises(TypeError, match="data_set must read video files; got list"):
        data.DALILoader([1], device="cpu")
    with pytest.raises(ValueError, match="DALILoader: device must be 'cpu', 'cuda' or 'cuda:N'; got 'gpu'"):
        data.DALILoader(data_set, device="gpu")
    with pytest.raises(ValueError, match="the window must lie within a frame|must be at least"):
        list(data.DALILoader(of(root, data.ClipSpec(segments, (tr.TestCrop(90),))), device="cpu"))


# ---------------------------------------------------------------------- parts


def test_split_transforms() -> None:
    crop, flip, test = TRAINING[0], tr.RandomFlip(), tr.TestCrop(32)
    for done, rest in (
        ((), ()),
        ((flip, crop, RGB), (JITTER,)),
        ((crop, flip), (JITTER, RGB)),
        ((test,), (crop,)),  # a second crop
        ((), (tr.TestCrop(32, crops=10), flip)),
        ((crop,), (tr.Normalize(tr.TORCHVISION_RGB, tr.TORCHVISION_FLOW), flip)),
    ):
        assert split_transforms((*done, *rest)) == (done, rest)


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_as_stored(turns: int) -> None:
    stored = torch.arange(70).view(7, 10)
    upright = torch.rot90(stored, turns)
    (top, left), (height, width) = as_stored((1, 3), (4, 2), tuple(upright.shape), turns)
    window = stored[top : top + height, left : left + width]
    assert torch.equal(torch.rot90(window, turns), upright[1:5, 3:5])


@pytest.mark.gpu
def test_on_a_gpu(tmp_path: Path) -> None:
    # H.264, which DALI decodes there alone; NVDEC takes no VP9 of less than 128 x 128 pixels.
    for name in ("0.mp4", "1.webm", "2.mp4"):
        scene = data.ActionScene(data.ACTIONS[2], group=3, clip=0, size=(160, 208), frames=FRAMES, seed=3)
        video.write(tmp_path / name, scene.frames(), fps=25)
    data_set = of(tmp_path, data.ClipSpec(segments, (*TRAINING, JITTER, RGB), size=(72, 90)))
    loaders = data.DALILoader(data_set, 2, device="cuda"), DataLoader(data_set, 2)
    for batch, expected in zip(*loaders, strict=True):
        assert all(value.is_cuda for value in batch.values() if isinstance(value, torch.Tensor))
        on_cpu = {key: value.cpu() if isinstance(value, torch.Tensor) else value for key, value in batch.items()}
        assert_same(on_cpu, expected, 1 / 255 / 0.225)
