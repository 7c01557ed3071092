"""The parts of benchmarks/bench_decoding.py that time nothing."""

from pathlib import Path
from typing import Any

import av
import bench_decoding
import numpy as np
import pytest
import render
import torch
from bench_decoding import Clip, Task, is_frame, ours, tasks, write_clip, wrong_frames
from decoding_tables import decoding_table
from peers.decoding import opencv_sequential, pyav_sequential, usable_peers

from pyaction import video

COUNT = 40


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    path = tmp_path_factory.mktemp("clips") / "7.avi"
    write_clip(path, 7, COUNT)
    return Clip(str(path), COUNT)


def test_made_clips_are_like_those_of_ucf101(clip: Clip) -> None:
    with av.open(clip.path) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.width, stream.height) == ("mpeg4", 320, 240)
        keyframes = [number for number, frame in enumerate(container.decode(stream)) if frame.key_frame]
    assert keyframes == [0, 12, 24, 36]
    with video.open(clip.path) as reader:
        frames = reader.frames().float()
    assert (frames.diff(dim=0).abs().mean((1, 2, 3)) > 2).all()  # each is told from the next
    assert frames.std() > 30


def test_all_are_asked_for_the_same_frames(clip: Clip) -> None:
    clips = [clip, Clip("another", 70), Clip("short", 50)]
    torch.manual_seed(99)
    chosen = tasks(clips)
    torch.manual_seed(98)
    assert tasks(clips) == chosen
    for task, length in zip(chosen, (16, 3, 64), strict=True):
        assert [len(numbers) for numbers in task.numbers] == [length] * 3
        for numbers, of in zip(task.numbers, clips, strict=True):
            assert 0 <= min(numbers) and max(numbers) < of.count
    assert chosen[2].numbers[1] == list(range(chosen[2].numbers[1][0], chosen[2].numbers[1][0] + 64))


def test_the_frame_itself_is_known_from_its_neighbours() -> None:
    every = np.random.default_rng(0).integers(50, 60, (9, 6, 8, 3), dtype=np.uint8)
    assert is_frame(every[4], every, 4)
    assert is_frame(every[8] + 1, every, 8)  # another conversion to RGB
    assert not is_frame(every[3], every, 4)
    assert not is_frame(every[4] + 7, every, 4)
    assert not is_frame(every[4][:, :-1], every, 4)
    still = every[[2, 2, 2]]
    assert is_frame(still[0], still, 1)


def test_wrong_frames_are_counted(clip: Clip, tmp_path: Path) -> None:
    def late(path: str, numbers: Any) -> Any:
        return ours(path, [min(number + 1, COUNT - 1) for number in numbers])

    def failing(path: str, numbers: Any) -> Any:
        raise OSError("broken")

    contenders = {"ours": ours, "OpenCV": opencv_sequential, "late": late, "failing": failing}
    task = Task("some", [[30, 3, 3, 39, 11]])
    found = wrong_frames([clip], task, contenders)
    assert found == ({"ours": 0, "OpenCV": 0, "late": 4, "failing": 5}, {"failing"})


def test_peers_give_the_frames_asked_for(clip: Clip) -> None:
    peers, left_out = usable_peers(clip.path)
    assert {"OpenCV, in order", "PyAV, in order"} <= set(peers)
    assert len(peers) + len(left_out) >= 6
    numbers = [21, 5, 38, 5]
    every = pyav_sequential(clip.path, range(COUNT))
    for name, read in peers.items():
        found = read(clip.path, numbers)
        assert found.shape == (4, 240, 320, 3), name
        assert all(is_frame(frame, every, number) for frame, number in zip(found, numbers, strict=True)), name


def test_a_peer_that_does_not_load_is_named(tmp_path: Path) -> None:
    peers, left_out = usable_peers(str(tmp_path / "none.avi"))
    assert peers == {}
    assert any(sentence.startswith("OpenCV, in order does not load here: ") for sentence in left_out)


def test_wrong_frames_of_ours_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], clip: Clip
) -> None:
    monkeypatch.setattr(bench_decoding, "find_clips", lambda folder, quick: ([clip], "generated"))
    monkeypatch.setattr(bench_decoding, "interleaved", lambda *arguments: pytest.fail("it was timed"))
    monkeypatch.setattr(bench_decoding, "ours", lambda path, numbers, index_folder=None: ours(path, [0] * len(numbers)))
    assert bench_decoding.main(["--quick"]) == 1
    assert "Refused: 16 random frames: pyaction returns" in capsys.readouterr().out


def test_tables_say_what_the_results_say() -> None:
    def method(name: str, seconds: float | None, wrong: int) -> dict[str, Any]:
        timing = seconds and {"median": seconds, "iqr": seconds / 4, "rounds": 3}
        return {"method": name, "wrong_frames": wrong, "seconds": timing}

    methods = [
        method("pyaction, first visit", 0.02, 0),
        method("OpenCV, in order", 0.05, 3),
        method("broken", None, 80),
    ]
    result = {
        **{"benchmark": "decoding", "device": "cpu", "threads": 1, "clips": 5, "data": "real", "quick": False},
        **{"date": "2030-01-02T03:04:05+00:00", "commit": "abc", "left_out": ["other has no reader"]},
        "versions": dict.fromkeys(render.DECODERS, "1.2"),
        "machine": {"cpu": "Some CPU", "cores": 2, "simd": "avx2"},
        "tasks": [{"task": "16 random frames", "frames": 80, "methods": methods}],
    }
    rows = decoding_table(result).rows
    assert rows[0] == ["16 random frames", "pyaction, first visit", "250", "4,000", "25 %", "2.5", "0 of 80"]
    assert rows[1][2:] == ["100", "1,600", "25 %", "1", "3 of 80"]
    assert rows[2][2:] == ["–", "–", "–", "–", "80 of 80"]
    text = render.decoding_markdown(result)
    assert text.startswith("Some CPU; 2030-01-02, commit abc; av 1.2, ")
    assert "UCF101 clips. other has no reader.\n" in text
    assert "| 16 random frames | broken | – | – | – | – | 80 of 80 |" in text
    with pytest.raises(ValueError, match="quick run"):
        render.decoding_markdown({**result, "quick": True})
