"""Reading: what comes out of a file is exactly what is in it, or an error that says what is wrong."""

from fractions import Fraction

import av
import pytest
import torch
from video.numbered_video import COUNT, HEIGHT, WIDTH, encode, number_in, numbered_picture, sequential

from pyaction import video
from pyaction.data.sampling import resample_indices
from pyaction.video import pyav_reader
from pyaction.video.frame_index import FrameIndex, fingerprint


def test_every_frame_in_order(path):
    with video.open(path) as reader:
        numbers = [number_in(frame) for frame in reader]
        assert numbers == list(range(COUNT))
        assert [number_in(frame) for frame in reader] == numbers  # again, from the start
        assert len(reader) == COUNT
        # An .mpg states no length; FFmpeg guesses it from the bit rate.
        assert reader.expected_length == pytest.approx(COUNT, abs=COUNT if path.suffix == ".mpg" else 1)
        assert reader.size == (HEIGHT, WIDTH)
        assert reader.fps == 25


def test_no_expected_length_without_a_header(tmp_path):
    encode(tmp_path / "bare.h264", "libx264", "yuv420p", {}, [numbered_picture(0), numbered_picture(1)])
    with video.open(tmp_path / "bare.h264") as reader:
        assert reader.expected_length is None
        assert len(reader) == 2


def test_frame_layout(path):
    with video.open(path) as reader:
        frame = next(iter(reader))
    assert frame.dtype == torch.uint8
    assert frame.shape == (3, HEIGHT, WIDTH)
    assert frame.is_contiguous()


@pytest.fixture(params=[0, 10 * HEIGHT * WIDTH, None], ids=["holding nothing", "holding some", "holding all"])
def held_bytes(request, monkeypatch):
    """How many decoded frames a reader may hold; without a limit it has no reason to seek in these short videos."""
    if request.param is not None:
        monkeypatch.setattr(pyav_reader, "HELD_BYTES", request.param)


@pytest.mark.usefixtures("held_bytes")
def test_indices_are_exact(path):
    every = sequential(path)
    generator = torch.Generator().manual_seed(7)
    with video.open(path) as reader:
        # One at a time, so that each of them seeks.
        for number in torch.randperm(COUNT, generator=generator).tolist():
            assert torch.equal(reader.frames([number])[0], every[number]), number
        indices = [30, 3, 3, -1, 44, 0, 17, -45]
        assert torch.equal(reader.frames(indices), every[indices])
        assert torch.equal(reader.frames(torch.tensor(indices)), every[indices])
        assert torch.equal(reader.frames(range(10, 30, 3)), every[10:30:3])
        assert torch.equal(reader.frames(), every)
        assert torch.equal(reader.frames([5]), every[5:6])  # and iterating has not moved anything


def test_seeking_is_used(folder, monkeypatch):
    """Without this, decoding every file from its start would pass the tests above."""
    monkeypatch.setattr(pyav_reader, "HELD_BYTES", 0)
    seeks = []
    seek = pyav_reader.DecodingPass.seek
    monkeypatch.setattr(pyav_reader.DecodingPass, "seek", lambda self, pts: (seeks.append(pts), seek(self, pts)))
    with video.open(folder / "h264_b_frames.mp4") as reader:
        len(reader)
        reader.frames([40, 2])
        assert len(seeks) == 1
        assert reader._seeking_is_exact


def test_a_wrong_landing_is_noticed(folder, monkeypatch):
    """A container that seeks to a wrong place costs time, never a wrong frame."""
    monkeypatch.setattr(pyav_reader, "HELD_BYTES", 0)
    path = folder / "mpeg4.avi"
    every = sequential(path)
    seek = pyav_reader.DecodingPass.seek
    monkeypatch.setattr(pyav_reader.DecodingPass, "seek", lambda self, pts: seek(self, pts + 12))
    with video.open(path) as reader:
        for number in (20, 44, 13, 0, 30):
            assert torch.equal(reader.frames([number])[0], every[number])


def test_a_picture_with_missing_references_is_noticed(folder, monkeypatch):
    """Decoding from a frame that only looks like a keyframe gives the right times and the wrong pixels."""
    monkeypatch.setattr(pyav_reader, "HELD_BYTES", 0)
    path = folder / "h264_intra_refresh.ts"
    every = sequential(path)
    monkeypatch.setattr(FrameIndex, "keyframe_before", lambda self, number: max(number - 1, 0))
    with video.open(path) as reader:
        for number in (20, 44, 13, 0, 30):
            assert torch.equal(reader.frames([number])[0], every[number])


def test_a_file_is_decoded_once(folder, monkeypatch):
    """And the frames that `len` has seen are freed when they are of no more use."""
    opened, open_file = [], av.open
    monkeypatch.setattr(av, "open", lambda *rest: (opened.append(rest), open_file(*rest))[1])
    with video.open(folder / "mpeg4.avi") as reader:
        assert len(reader) == COUNT
        assert len(reader._held) == COUNT
        reader.clips([[40, 3], [-1, 20]])
        assert reader.frames().shape[0] == COUNT
        assert len(opened) == 1
        next(iter(reader))
        assert len(reader._held) == 0
        assert [number_in(frame) for frame in reader.frames([30, 7])] == [30, 7]
    with video.open(folder / "mpeg4.avi") as reader:
        len(reader)
    assert len(reader._held) == 0


def test_frames_that_are_asked_for_at_once(folder, monkeypatch):
    """Without `len` the file is decoded as far as the last of them, and on from there."""
    decoded, decode = [], pyav_reader.DecodingPass.__iter__
    monkeypatch.setattr(
        pyav_reader.DecodingPass, "__iter__", lambda self: (decoded.append(frame) or frame for frame in decode(self))
    )
    with video.open(folder / "h264_b_frames.mp4") as reader:
        assert [number_in(frame) for frame in reader.frames([12, 7, 12])] == [12, 7, 12]
        assert len(decoded) == 13
        assert [number_in(frame) for frame in reader.frames([20, 15])] == [20, 15]
        assert len(decoded) == 21
        assert [number_in(frame) for frame in reader.frames([31, 7, 0, -1])] == [31, 7, 0, COUNT - 1]  # going back
        assert reader._seeking_is_exact
    with video.open(folder / "h264_b_frames.mp4") as reader:
        assert [number_in(frame) for frame in reader.frames([-1, 7])] == [COUNT - 1, 7]
        assert len(reader._held) == COUNT  # which frame is the last is known only at the end


def test_damage_behind_the_frames_wanted(folder, tmp_path):
    path = tmp_path / "cut.avi"
    content = (folder / "mjpeg.avi").read_bytes()
    middle = len(content) // 2
    path.write_bytes(content[:middle] + bytes(2000) + content[middle + 2000 :])
    with video.open(path) as reader:
        assert [number_in(frame) for frame in reader.frames([5, 2])] == [5, 2]
        with pytest.raises(video.VideoError, match="is damaged after"):
            reader.frames([COUNT - 1])
    with video.open(path, on_error="stop") as reader, pytest.raises(IndexError, match=f"got index {COUNT - 1}"):
        reader.frames([COUNT - 1])


def test_frames_are_held_within_bounds(folder, monkeypatch):
    with video.open(folder / "mpeg4.avi") as reader:
        len(reader)
        size = sum(plane.buffer_size for plane in reader._held[0].planes)
    monkeypatch.setattr(pyav_reader, "HELD_BYTES", 7 * size)
    with video.open(folder / "mpeg4.avi") as reader:
        len(reader)
        assert sorted(reader._held) == list(range(7))


def test_no_indices(path):
    with video.open(path, color="gray", short_side=32) as reader:
        assert reader.frames([]).shape == (0, 1, 32, 48)


@pytest.mark.parametrize("index", [COUNT, -COUNT - 1])
def test_index_outside(path, index):
    with (
        video.open(path) as reader,
        pytest.raises(IndexError, match=rf"{path.name} has {COUNT} frames; got index {index}$"),
    ):
        reader.frames([1, index])


@pytest.mark.parametrize("indices", [[1.0], [[1, 2]], [True, False], 3])
def test_indices_of_a_wrong_kind(path, indices):
    with (
        video.open(path) as reader,
        pytest.raises(TypeError, match="indices must be a flat list of whole numbers"),
    ):
        reader.frames(indices)


def test_clips(path):
    every = sequential(path)
    indices = [[30, 3, 3, -1], [3, 44, 31, 30]]
    with video.open(path) as reader:
        clips = reader.clips(torch.tensor(indices))
        assert clips.shape == (2, 4, 3, HEIGHT, WIDTH)
        assert clips.is_contiguous()
        assert torch.equal(clips, every[torch.tensor(indices)])
        assert torch.equal(reader.clips(indices), clips)
        assert reader.clips(torch.empty(0, 7, dtype=torch.int64)).shape == (0, 7, 3, HEIGHT, WIDTH)
        assert reader.clips(torch.empty(5, 0, dtype=torch.int32)).shape == (5, 0, 3, HEIGHT, WIDTH)


def test_a_frame_of_several_clips_is_converted_once(folder, monkeypatch):
    converted = []
    convert = pyav_reader.PyAVReader._convert
    monkeypatch.setattr(
        pyav_reader.PyAVReader, "_convert", lambda self, *rest: (converted.append(1), convert(self, *rest))[1]
    )
    with video.open(folder / "mpeg4.avi") as reader:
        reader.clips([[3, 4, 5], [-40, 4, 5], [5, 5, 5]])
    assert len(converted) == 3


@pytest.mark.parametrize("indices", [[1, 2], [[[1]]], [[1.0, 2.0]], [[True]], [[1, 2], [3]], "12", [], 3])
def test_clips_of_a_wrong_kind(folder, indices):
    with (
        video.open(folder / "mpeg4.avi") as reader,
        pytest.raises(TypeError, match=r"^clips: indices must be a table \(S, L\) of whole numbers; got "),
    ):
        reader.clips(indices)


def test_clips_with_an_index_outside(folder):
    with (
        video.open(folder / "mpeg4.avi") as reader,
        pytest.raises(IndexError, match=rf"mpeg4\.avi has {COUNT} frames; got index {COUNT}$"),
    ):
        reader.clips([[1, 2], [COUNT, 3]])


def test_two_iterators_and_random_access_at_once(path):
    with video.open(path) as reader:
        pairs = []
        for first, second in zip(reader, reader, strict=True):
            assert torch.equal(first, second)
            pairs.append(number_in(reader.frames([len(pairs)])[0]))
        assert pairs == list(range(COUNT))


# ---------------------------------------------------------------------- time


def test_timestamps_of_a_constant_rate(path):
    with video.open(path) as reader:
        times = reader.timestamps
    assert times.dtype == torch.float64
    # MPEG program and transport streams do not begin at 0.
    assert torch.allclose(times - times[0], torch.arange(COUNT, dtype=torch.float64) / 25, atol=2e-3)


@pytest.mark.parametrize("name", ["variable.mp4", "variable.mkv"])
def test_timestamps_of_a_variable_rate(tmp_path, name):
    ticks = [0, 40, 50, 200, 210, 1000, 1001, 1500, 1900, 2000]
    pictures = [numbered_picture(number) for number in range(len(ticks))]
    encode(tmp_path / name, "libx264", "yuv420p", {"bf": "2"}, pictures, ticks=ticks)
    with video.open(tmp_path / name) as reader:
        assert [number_in(frame) for frame in reader.frames([5, 1, 9])] == [5, 1, 9]
        assert torch.allclose(reader.timestamps, torch.tensor(ticks, dtype=torch.float64) / 1000, atol=1e-3)
        # Wanted are 0, 200, 400, ..., 2000 ms: the last frame lasts as long as the mean one, until 2222 ms.
        chosen = resample_indices(reader.timestamps, 5)
        table = [0, 3, 4, 4, 5, 5, 6, 7, 7, 8, 9]
        assert chosen.tolist() == table
        assert [number_in(frame) for frame in reader.frames(chosen)] == table


@pytest.mark.parametrize("pts", [[1, 4, 3, 5, 7, 6], [0, None, 2, 3, 4, 5]], ids=["out of order", "missing"])
def test_unusable_times_count_as_none(pts):
    """AVI stores no presentation times: for the B-frames of HMDB51 FFmpeg gives some that go back and forth."""
    index = FrameIndex(pts=pts)
    assert index.number_at is None
    assert index.timestamps(Fraction(1, 30), 30.0).tolist() == [number / 30 for number in range(6)]


def test_equal_times_are_kept_but_not_sought():
    index = FrameIndex(pts=[0, 3, 3, 9])
    assert index.number_at is None
    assert index.timestamps(Fraction(1, 30), 30.0).tolist() == [0, 0.1, 0.1, 0.3]


def test_a_raw_stream_without_times(tmp_path):
    path = tmp_path / "raw.h264"
    encode(path, "libx264", "yuv420p", {"bf": "2", "g": "12"}, [numbered_picture(n) for n in range(20)])
    with video.open(path) as reader:
        assert [number_in(frame) for frame in reader.frames([19, 0, 7])] == [19, 0, 7]
        assert len(reader) == 20
        assert bool((reader.timestamps.diff() > 0).all())


@pytest.mark.parametrize("shape", [(64, 96), (33, 24), (2, 8)])
def test_a_fingerprint_sees_every_block(shape):
    """Of a frame, and of either field of an interlaced one; the last pixels at the right need not count."""
    height, width = shape
    pixels = torch.randint(60, 200, shape, dtype=torch.uint8).numpy()

    def of(pixels):
        return fingerprint(av.VideoFrame.from_ndarray(pixels, format="gray"))

    before = of(pixels)
    for step in (1, 2):
        for top in range(0, height - 4 * step + 1):
            changed = pixels.copy()
            changed[top : top + 4 * step : step, :4] += 9
            assert of(changed) != before, (top, step)
    assert of(pixels.copy()) == before
