"""Data sets: what an item is, that it does not depend on workers, and what becomes of broken videos."""

import copy
import errno
import pickle
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from pyaction import data, video
from pyaction.data import sampling
from pyaction.data import transforms as tr

RANDOM = [tr.TrainingCrop(32, scales=(1, 0.8)), tr.RandomFlip(), tr.RandomColorJitter(brightness=0.4)]


segments = partial(sampling.segment_indices, segments=3, length=2)


middle = partial(sampling.clip_indices, length=4, mode="validation")


def whole(frames: int, generator: torch.Generator) -> torch.Tensor:
    return torch.arange(frames)[None]


def of(root: Path, spec: data.ClipSpec, subset: str = "train") -> data.VideoDataSet:
    annotations = data.read_ucf101(root / "annotations", 1, subset)  # type: ignore[arg-type]
    return data.VideoDataSet(annotations, root / "videos", spec)


def same(one: object, other: object) -> bool:
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other  # type: ignore[arg-type]


@pytest.fixture
def broken_root(actions_root: Path, tmp_path: Path) -> Path:
    """A copy in which the two training videos of BallSpin and one of Eat are damaged."""
    root = tmp_path / "copy"
    shutil.copytree(actions_root, root)
    for path in (*(root / "videos" / "BallSpin").glob("*g0[23]*"), root / "videos/Eat/v_Eat_g02_c01.mp4"):
        path.write_bytes(path.read_bytes()[:900])
    return root


# ---- items


def test_item(actions_root: Path) -> None:
    data_set = of(actions_root, data.ClipSpec(segments))
    assert len(data_set) == 22 and data_set.class_names[2] == "BallSpin"
    assert data_set.labels[:4] == [1, 1, 0, 0]  # BallBounce before BallSlide, by name
    item = data_set[5]
    assert set(item) == {"frames", "frame_indices", "label", "index", "path"}
    assert item["path"] == data_set.annotations[5].path and item["index"] == 5
    assert item["label"] == data_set.labels[5] == 2
    assert item["frame_indices"].shape == (3, 2) and item["frames"].dtype == torch.uint8
    with video.open(actions_root / "videos" / item["path"]) as reader:
        wanted = reader.frames(item["frame_indices"].flatten()).unflatten(0, (3, 2))
    assert torch.equal(item["frames"], wanted)
    assert data_set[-1]["index"] == 21
    with pytest.raises(IndexError, match="has 22 items; got index 22"):
        data_set[22]


def test_size_and_rate(actions_root: Path) -> None:
    assert of(actions_root, data.ClipSpec(middle, size=(20, 30)))[0]["frames"].shape == (1, 4, 3, 20, 30)
    assert of(actions_root, data.ClipSpec(middle, short_side=24))[0]["frames"].shape == (1, 4, 3, 24, 32)
    # 14 frames at 25 fps are 3 at 6 fps (3.36), every 25 / 6 = 4.17 frames.
    assert of(actions_root, data.ClipSpec(whole, fps=6))[0]["frame_indices"].tolist() == [[0, 4, 8]]


def test_offset_and_length(actions_root: Path) -> None:
    name = data.read_ucf101(actions_root / "annotations", 1, "test").items[0].path
    items = (data.Annotation(name, 3, 5, 2), data.Annotation(name, None, 99, 11), data.Annotation(name, 1, 4, 14))
    data_set = data.VideoDataSet(data.AnnotationList(items, ()), actions_root / "videos", data.ClipSpec(whole))
    assert data_set[0]["frame_indices"].tolist() == [[2, 3, 4, 5, 6]]
    assert data_set[1]["frame_indices"].tolist() == [[11, 12, 13]] and data_set[1]["label"] == -1
    with pytest.raises(video.VideoError, match="has 14 frames; its clip was to begin at frame 14"):
        data_set[2]


def test_items_do_not_depend_on_workers(actions_root: Path) -> None:
    spec = data.ClipSpec(segments, RANDOM, seed=5)
    data_set = of(actions_root, spec)
    runs = []
    for workers in (0, 1, 2):
        loader = DataLoader(data_set, 4, num_workers=workers, persistent_workers=workers > 0)
        epochs = []
        for epoch in (3, 4, 3):
            data_set.set_epoch(epoch)  # reaches workers that run already
            epochs.append([batch["frames"] for batch in loader])
        runs.append(epochs)
    for epochs in runs:
        assert all(map(same, epochs[0], runs[0][0])) and all(map(same, epochs[1], runs[0][1]))
        assert all(map(same, epochs[2], epochs[0]))
        assert not any(map(same, epochs[1], epochs[0]))
    other_seed = of(actions_root, replace(spec, seed=6))
    other_seed.set_epoch(3)
    assert not same(other_seed[0]["frames"], runs[0][0][0][0])


@pytest.mark.parametrize("copied", [lambda one: pickle.loads(pickle.dumps(one)), copy.deepcopy])
def test_copies_hear_of_epochs_too(actions_root: Path, copied) -> None:  # type: ignore[no-untyped-def]
    data_set = copied(of(actions_root, data.ClipSpec(segments)))
    loader = DataLoader(data_set, 22, num_workers=1, persistent_workers=True)
    indices = []
    for epoch in (0, 1, 0):
        data_set.set_epoch(epoch)
        indices.append(next(iter(loader))["frame_indices"])
    assert not same(indices[0], indices[1]) and same(indices[0], indices[2])


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_other_ways_to_start_workers(actions_root: Path, method: str) -> None:
    data_set = of(actions_root, data.ClipSpec(segments, RANDOM))
    (batch,) = DataLoader(data_set, 22, num_workers=1, multiprocessing_context=method)
    assert same(batch["frames"][3], data_set[3]["frames"])


def test_finish_differs_between_processes(actions_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    for rank in range(2):
        monkeypatch.setattr("pyaction.data.data_sets.place_of_process", lambda rank=rank: (rank, 2))
        data_set = of(actions_root, data.ClipSpec(middle, on_device=[tr.TrainingCrop(24)]))
        batch = {"frames": torch.arange(48.0 * 64).view(1, 1, 1, 1, 48, 64)}
        drawn.append([float(data_set.finish(batch)["frames"][..., 0, 0]) for _ in range(6)])
    assert drawn[0] != drawn[1]


def test_finish_draws_once_for_a_batch(actions_root: Path) -> None:
    data_set = of(actions_root, data.ClipSpec(middle, on_device=[tr.TrainingCrop(24), tr.RandomFlip()], seed=7))
    batch = next(iter(DataLoader(data_set, 3)))
    first, second = data_set.finish(batch)["frames"], data_set.finish(batch)["frames"]
    assert first.shape == (3, 1, 4, 3, 24, 24) and not same(first, second)
    data_set.set_epoch(0)
    assert same(data_set.finish(batch)["frames"], first) and same(data_set.finish(batch)["frames"], second)
    shown = batch["frames"].unfold(-2, 24, 1).unfold(-2, 24, 1)  # every window there is
    assert any(
        same(first, shown[..., y, x, :, :].flip(dims)) for y in range(25) for x in range(41) for dims in ([], [-1])
    )


def test_index_folder(actions_root: Path, tmp_path: Path) -> None:
    plain = of(actions_root, data.ClipSpec(segments))
    indexed = of(actions_root, data.ClipSpec(segments, index_folder=tmp_path / "new" / "indexes"))
    for _ in range(2):
        assert all(same(plain[i]["frames"], indexed[i]["frames"]) for i in (3, 8))
    assert len(list((tmp_path / "new" / "indexes").rglob("*.index"))) == 2


# ---- broken videos


def test_broken_video_raises(broken_root: Path) -> None:
    data_set = of(broken_root, data.ClipSpec(middle))
    with pytest.raises(video.VideoError, match="v_BallSpin_g02_c01.mp4 "):
        data_set[4]
    assert data_set.unreadable == []


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_videos_are_replaced_and_counted(broken_root: Path, workers: int) -> None:
    data_set = of(broken_root, data.ClipSpec(middle, on_error="skip"))
    items = list(DataLoader(data_set, None, num_workers=workers))
    names = [item["path"].split("/")[1] for item in items]
    assert names[14] == "v_Eat_g03_c01.mp4" == names[15]  # of its class
    assert names[4] == names[5] == "v_BoxBounce_g02_c01.mp4"  # none of its class is left
    assert [item["label"] for item in items] == [data_set.labels[item["index"]] for item in items]
    assert len(data_set.unreadable) == 3 and data_set.unreadable[0] == "BallSpin/v_BallSpin_g02_c01.mp4"


def test_broken_video_is_reported_once(broken_root: Path, caplog: pytest.LogCaptureFixture) -> None:
    data_set = of(broken_root, data.ClipSpec(middle, on_error="skip"))
    for _ in range(3):
        data_set[14]
    (message,) = caplog.messages
    assert message.startswith("left out: ") and "v_Eat_g02_c01.mp4 is cut short" in message


def test_stop_takes_what_is_there(actions_root: Path, tmp_path: Path) -> None:
    name = "v_Eat_g02_c01.avi"
    with video.open(actions_root / "videos/Eat/v_Eat_g02_c01.mp4") as reader:
        video.write(tmp_path / name, reader.frames(), reader.fps)
    whole_file = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole_file[: len(whole_file) * 2 // 3])
    annotations = data.AnnotationList((data.Annotation(name, 1),), ())
    item = data.VideoDataSet(annotations, tmp_path, data.ClipSpec(whole, on_error="stop"))[0]
    assert 3 < item["frames"].shape[1] < 14
    (tmp_path / name).write_bytes(whole_file[:100])
    with pytest.raises(video.VideoError, match="none of the 1 videos can be read"):
        data.VideoDataSet(annotations, tmp_path, data.ClipSpec(whole, on_error="stop"))[0]


def test_missing_videos(actions_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "copy"
    shutil.copytree(actions_root, root)
    (root / "videos/Eat/v_Eat_g02_c01.mp4").unlink()
    with pytest.raises(ValueError, match="lacks 1 of the 22 videos, Eat/v_Eat_g02_c01.mp4 first"):
        of(root, data.ClipSpec(middle))
    data_set = of(root, data.ClipSpec(middle, on_error="skip"))
    assert "left out: 1 of 22 videos, Eat/v_Eat_g02_c01.mp4 first" in caplog.text
    assert data_set.unreadable == ["Eat/v_Eat_g02_c01.mp4"] and data_set[14]["path"] == "Eat/v_Eat_g03_c01.mp4"
    with pytest.raises(ValueError, match="nowhere cannot be listed"):
        data.VideoDataSet(
            data.read_ucf101(root / "annotations", 1, "test"), tmp_path / "nowhere", data.ClipSpec(middle)
        )


def test_videos_elsewhere_than_annotated(actions_root: Path, tmp_path: Path) -> None:
    """Re-encoded, or without folders of classes."""
    annotations = data.read_ucf101(actions_root / "annotations", 1, "test")
    for path in (actions_root / "videos").rglob("*.mp4"):
        (tmp_path / path.with_suffix(".MKV").name).symlink_to(path)
        (tmp_path / path.with_suffix(".txt").name).touch()
    data_set = data.VideoDataSet(annotations, tmp_path, data.ClipSpec(middle))
    assert data_set.files[0] == tmp_path / "v_BallBounce_g01_c01.MKV"
    original = data.VideoDataSet(annotations, actions_root / "videos", data.ClipSpec(middle))
    assert same(data_set[3]["frames"], original[3]["frames"])


def test_names_that_occur_twice_are_not_mixed_up(actions_root: Path, tmp_path: Path) -> None:
    """A file in the root itself may be of either."""
    source = actions_root / "videos/Eat/v_Eat_g02_c01.mp4"
    (tmp_path / "1.mp4").symlink_to(source)
    twice = data.AnnotationList((data.Annotation("a/1.mp4", 0), data.Annotation("b/1.mp4", 1)), ())
    with pytest.raises(ValueError, match="lacks 2 of the 2 videos"):
        data.VideoDataSet(twice, tmp_path, data.ClipSpec(middle))
    once = replace(twice, items=twice.items[1:])
    assert data.VideoDataSet(once, tmp_path, data.ClipSpec(middle)).files == [tmp_path / "1.mp4"]


@pytest.mark.parametrize("folder", ["playing kickball (drums)", "playing_kickball_drums", "playing_kickball_(drums)"])
def test_folders_named_a_little_differently(actions_root: Path, tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "abc_000001_000011.mkv").symlink_to(actions_root / "videos/Eat/v_Eat_g02_c01.mp4")
    path = "playing_kickball_(drums)/abc_000001_000011.mp4"
    annotations = data.AnnotationList((data.Annotation(path, 0),), ())
    data_set = data.VideoDataSet(annotations, tmp_path, data.ClipSpec(middle))
    assert data_set.files == [tmp_path / folder / "abc_000001_000011.mkv"]


def test_a_disk_that_is_away_is_no_broken_video(actions_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(actions_root, root)
    data_set = of(root, data.ClipSpec(middle, on_error="skip"))
    (root / "videos").rename(root / "away")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        data_set[3]
    (root / "away").rename(root / "videos")
    assert data_set[3]["index"] == 3 and data_set.unreadable == []


def test_own_trouble_is_no_broken_video(actions_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(index: int) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    data_set = of(actions_root, data.ClipSpec(middle, on_error="skip"))
    monkeypatch.setattr(data_set, "open", fail)
    with pytest.raises(OSError, match="Too many open files"):
        data_set[3]
    assert data_set.unreadable == []


# ---- named sets


def test_generated_actions(actions_root: Path, tmp_path: Path) -> None:
    options = {"groups": 3, "clips": 1, "size": (48, 64), "frames": 14, "seed": 4}
    data_set = data.GeneratedActions(actions_root, data.ClipSpec(whole), split=1, subset="test", **options)
    assert len(data_set) == 11 and data_set.class_names[-1] == "Eat"
    item, action = data_set[4], data.ACTIONS[3]
    assert item["path"] == f"{action.name}/v_{action.name}_g01_c01.mp4" and item["label"] == 3
    scene = data.ActionScene(action, group=0, clip=0, size=(48, 64), frames=14, seed=4)
    assert (item["frames"][0].float() - scene.frames()).abs().mean() < 3  # the codec's
    assert all(map(torch.equal, data_set.true_flow(4), scene.flow()))
    with pytest.raises(ValueError, match=r'holds actions made with .*"seed": 4.*choose another folder'):
        data.GeneratedActions(actions_root, data.ClipSpec(whole), split=1, subset="test", **options | {"seed": 5})


def test_named_sets(real_data: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each takes its own annotations, and says how many of the videos are not there."""
    spec, folder = data.ClipSpec(middle, on_error="skip", short_side=64), real_data / "annotations"
    ucf101 = data.UCF101(real_data / "videos/ucf101", folder / "ucf101", spec, split=1, subset="train")
    missing = set(ucf101.unreadable)
    there = [index for index, item in enumerate(ucf101.annotations) if item.path not in missing]
    assert there
    for index in there:
        item = ucf101[index]
        assert item["index"] == index and ucf101.class_names[item["label"]] in item["path"]
    videos, lists = real_data / "videos/hmdb51", folder / "hmdb51"
    hmdb51 = data.HMDB51(videos, lists, spec, split=1, subset="train", include_unused=True)
    assert len(hmdb51) == 5236 and len(hmdb51.unreadable) == 5234
    assert f"left out: {9537 - len(there)} of 9537 videos" in caplog.text and "of 5236 videos" in caplog.text


def test_something_something_is_not_mirrored(tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text('{"Pushing something from left to right": "0"}')
    (tmp_path / "train.json").write_text('[{"id": "7", "template": "Pushing [something] from left to right"}]')
    video.write(tmp_path / "7.webm", torch.randint(256, (5, 3, 40, 48), dtype=torch.uint8), 12)
    flips = (tr.RandomFlip(1.0), tr.TestCrop(32, crops=10))
    spec = data.ClipSpec(middle, flips, on_device=(tr.RandomFlip(1.0),))
    data_set = data.SomethingSomethingV2(tmp_path, tmp_path / "train.json", tmp_path / "labels.json", spec)
    plain = replace(spec, transforms=(tr.TestCrop(32, crops=5),))
    wanted = data.SomethingSomethingV2(tmp_path, tmp_path / "train.json", tmp_path / "labels.json", plain)[0]
    assert data_set[0]["frames"].shape == (5, 4, 3, 32, 32) and same(data_set[0]["frames"], wanted["frames"])
    assert same(data_set.finish(wanted)["frames"], wanted["frames"])


def test_frames_of_something_something_are_not_mirrored(tmp_path: Path) -> None:
    """Nor those of its first release, which come as folders of pictures."""
    (tmp_path / "labels.csv").write_text("Pushing something from left to right\n")
    (tmp_path / "train.csv").write_text("7;Pushing something from left to right\n")
    annotations = data.read_something_v1(tmp_path / "train.csv", tmp_path / "labels.csv")
    layout = data.FrameLayout(data.Pictures(tmp_path, "{video}/{index:05d}.jpg", 1), None)
    assert data.FrameFolders(annotations, layout, data.ClipSpec(middle, [tr.RandomFlip()])).transforms == ()


# ---- rejects


def test_what_a_transform_refuses_names_the_video(actions_root: Path) -> None:
    with pytest.raises(ValueError, match=r"BallBounce/v_BallBounce_g02_c01.mp4: transforms.random_crop: size must be"):
        of(actions_root, data.ClipSpec(middle, [tr.TrainingCrop(100)]))[0]


@pytest.mark.parametrize(("options", "message"), [
    ({"size": (0, 9)}, r"size must be \(height, width\), both at least 1; got \(0, 9\)"),
    ({"short_side": -1}, "short_side must be greater than 0; got -1"),
    ({"fps": 0}, "fps must be greater than 0; got 0"),
])  # fmt: skip
def test_rejected_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        data.ClipSpec(middle, **options)  # type: ignore[arg-type]


def test_rejects(actions_root: Path) -> None:
    with pytest.raises(ValueError, match="on_error must be 'raise', 'skip' or 'stop'; got 'ignore'"):
        data.ClipSpec(middle, on_error="ignore")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="give size or short_side, not both"):
        data.ClipSpec(middle, size=(8, 8), short_side=8)
    with pytest.raises(TypeError, match=r"sampler must return frame indices \(S, T\), int64; got torch.float32 \[3\]"):
        of(actions_root, data.ClipSpec(lambda frames, generator: torch.zeros(3)))[0]
    with pytest.raises(TypeError, match="got list"):
        of(actions_root, data.ClipSpec(lambda frames, generator: [[0]]))[0]  # type: ignore[arg-type, return-value]
