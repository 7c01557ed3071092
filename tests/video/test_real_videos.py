"""The clips of real data sets: UCF101, HMDB51, Kinetics and others like Something-Something's."""

import csv
import re
from pathlib import Path

import pytest
import torch
from video.numbered_video import sequential

from pyaction import video
from pyaction.data import sampling
from pyaction.video import pyav_reader


@pytest.fixture(scope="module")
def clips(real_data):
    """The labelled clips, and how many frames of each decode."""
    rows = (real_data / "INDEX.md").read_text()
    counts = dict(re.findall(r"^\| (videos/\S+) .*?(\d+) frames decoded", rows, re.MULTILINE))
    with (real_data / "videos/labels.csv").open() as file:
        names = [row["path"] for row in csv.DictReader(file)]
    assert len(names) >= 33
    return [(real_data / name, int(counts[name])) for name in names]


def test_any_frame_in_any_order(clips, tmp_path, monkeypatch):
    """Of frames that are held, sought, and found by an index."""
    for path, count in clips:
        every = sequential(path, short_side=48)
        assert len(every) == count, path
        generator = torch.Generator().manual_seed(count)
        several, few = (torch.randint(-count, count, (number,), generator=generator) for number in (9, 3))
        for held_bytes, folder in ((pyav_reader.HELD_BYTES, None), (0, tmp_path), (0, tmp_path)):
            monkeypatch.setattr(pyav_reader, "HELD_BYTES", held_bytes)
            with video.open(path, short_side=48, index_folder=folder) as reader:
                assert len(reader) == count
                times = reader.timestamps
                assert len(times) == count
                assert bool((times.diff() > 0).all()), path
                assert torch.equal(reader.frames(several), every[several]), path
                for number in few.tolist():
                    assert torch.equal(reader.frames([number])[0], every[number]), (path, number)
    assert len(list(tmp_path.iterdir())) == len(clips)


def samples(count, times, generator):
    """What every sampler takes of a video of so many frames, in every mode."""
    for mode in ("train", "validation", "test"):
        yield sampling.clip_indices(count, 64, mode=mode, generator=generator)
        yield sampling.segment_indices(count, 3, length=5, mode=mode, generator=generator)
        yield sampling.segment_indices(count, 25, mode=mode, generator=generator)
        yield sampling.sg3i_indices(count, 2, mode=mode, generator=generator)
    yield sampling.even_indices(count, 25)
    yield sampling.even_indices(count, 25, length=11, endpoint=False)
    for fps in (25, 6):
        chosen = sampling.resample_indices(times, fps)
        yield chosen[sampling.clip_indices(len(chosen), 16, generator=generator)]
        yield chosen[sampling.window_indices(len(chosen), length=3, step=6)]


def test_every_sampler_stays_inside(clips):
    for turn, (path, count) in enumerate(clips):
        every = sequential(path, short_side=24)
        with video.open(path, short_side=24) as reader:
            found = list(samples(len(reader), reader.timestamps, torch.Generator().manual_seed(turn)))
            for indices in found:
                assert 0 <= int(indices.min()) and int(indices.max()) < count, path
            indices = found[turn % len(found)]
            assert torch.equal(reader.clips(indices), every[indices]), path


def test_cut_short(clips, tmp_path):
    for source, count in clips[::4]:
        content = source.read_bytes()
        path = tmp_path / f"cut{Path(source).suffix}"
        path.write_bytes(content[: len(content) * 6 // 10])
        with pytest.raises(video.VideoError, match="is cut short"):
            video.open(path)
        if path.suffix != ".mp4":  # these have their index at the end
            with video.open(path, on_error="stop", short_side=32) as reader:
                assert 0 < len(reader) < count
                assert reader.frames([-1, 0]).shape[0] == 2
