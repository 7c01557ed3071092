"""Reading what is no video, or only part of one."""

import os
import shutil
import subprocess
import sys
import wave
from pathlib import Path

import av
import pytest
import torch
from video.numbered_video import COUNT, number_in

from pyaction import video
from pyaction.video import pyav_reader
from pyaction.video.truncation import announced_size


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^there is no file .*none\.mp4; check the path$"):
        video.open(tmp_path / "none.mp4")


def test_folder(tmp_path):
    with pytest.raises(video.VideoError, match="is a folder; name a video file in it"):
        video.open(tmp_path)


@pytest.mark.parametrize("on_error", ["raise", "stop"])
@pytest.mark.parametrize(("name", "content"), [("a.mp4", b"hello\n" * 500), ("b.avi", b"hello\n"), ("c.txt", b"x")])
def test_no_video_inside(tmp_path, name, content, on_error):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(video.VideoError, match=rf"{name} cannot be opened as a video \(Invalid data"):
        video.open(tmp_path / name, on_error=on_error)


def test_impossible_size(tmp_path):
    video.write(tmp_path / "a.mp4", torch.zeros(2, 3, 2, 2, dtype=torch.uint8), fps=25)
    with video.open(tmp_path / "a.mp4", short_side=10_000_000) as reader:
        with pytest.raises(video.VideoError, match=r"a\.mp4 cannot be scaled from 2 x 2 to 10000000 x 10000000 pixels"):
            next(iter(reader))


def test_empty_file(tmp_path):
    (tmp_path / "a.mp4").touch()
    with pytest.raises(video.VideoError, match=r"a\.mp4 is empty \(0 bytes\)"):
        video.open(tmp_path / "a.mp4")


def test_sound_only(tmp_path):
    with wave.open(str(tmp_path / "a.wav"), "w") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(8000))
    with pytest.raises(video.VideoError, match=r"a\.wav has no pictures, only audio; name a video file"):
        video.open(tmp_path / "a.wav")


def test_unknown_codec(folder, tmp_path):
    content = (folder / "mjpeg.avi").read_bytes().replace(b"MJPG", b"Zq7x")
    (tmp_path / "a.avi").write_bytes(content)
    with pytest.raises(video.VideoError, match=r"a\.avi is compressed by a codec that this FFmpeg cannot decode"):
        video.open(tmp_path / "a.avi")


def packet_positions(path):
    with av.open(str(path)) as container:
        return sorted(packet.pos for packet in container.demux(video=0) if packet.pos is not None)


def index_in_front(source_path, path):
    """Copy an MP4 file with its index in front, as on the web: else nothing of a cut one can be read."""
    with (
        av.open(str(source_path)) as source,
        av.open(str(path), "w", container_options={"movflags": "faststart"}) as target,
    ):
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)


@pytest.mark.parametrize("name", ["h264_b_frames.mp4", "h264_open_gop.mkv", "vp9.webm", "mpeg4.avi", "mjpeg.avi"])
def test_cut_file(folder, tmp_path, name):
    source = folder / name
    if source.suffix == ".mp4":
        source = tmp_path / "front.mp4"
        index_in_front(folder / name, source)
    path = tmp_path / f"cut{source.suffix}"
    for packet in (20, 30, 44):
        path.write_bytes(source.read_bytes()[: packet_positions(source)[packet] + 11])
        with pytest.raises(video.VideoError, match=r"is cut short: it has \d+ of the \d+ bytes"):
            video.open(path)
        with video.open(path, on_error="stop") as reader:
            numbers = [number_in(frame) for frame in reader]
            assert len(numbers) == len(reader) == len(reader.timestamps) == packet
            # The last B-frames may be lost before the frame that they lead to.
            assert numbers[: packet - 4] == list(range(packet - 4))
            assert numbers == sorted(set(numbers))
            assert [number_in(frame) for frame in reader.frames([-1, 0])] == [numbers[-1], 0]


def test_cut_before_the_index(folder, tmp_path):
    """An MP4 file whose index was at the end: not one frame can be found, in either mode."""
    content = (folder / "h264_b_frames.mp4").read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(content[: content.index(b"moov") - 100])
    with pytest.raises(video.VideoError, match="is cut short"):
        video.open(path)
    with pytest.raises(video.VideoError, match="cannot be opened as a video"):
        video.open(path, on_error="stop")


def test_bytes_after_the_video_do_no_harm(folder, tmp_path):
    for name in ("h264_b_frames.mp4", "vp9.webm", "mpeg4.avi"):
        longer = tmp_path / name
        longer.write_bytes((folder / name).read_bytes() + b"comment " * 100)
        with video.open(longer) as reader:
            assert len(reader) == COUNT


def test_announced_size(folder):
    for name in ("h264_b_frames.mp4", "vp9.webm", "h264_open_gop.mkv", "mpeg4.avi"):
        actual = (folder / name).stat().st_size
        assert actual - 8 <= announced_size(folder / name) <= actual
    assert announced_size(folder / "mpeg2_b_frames.mpg") == 0


def test_length_left_open(folder, tmp_path):
    """A live stream: the segment's length is all ones, and the file may end anywhere."""
    content = bytearray((folder / "vp9.webm").read_bytes())
    at = content.index(b"\x18\x53\x80\x67") + 4
    content[at : at + 8] = b"\x01" + b"\xff" * 7
    (tmp_path / "live.webm").write_bytes(content)
    assert announced_size(tmp_path / "live.webm") == 0
    with video.open(tmp_path / "live.webm") as reader:
        assert len(reader) == COUNT


@pytest.mark.parametrize("name", ["h264_b_frames.mp4", "vp9.webm", "mpeg4.avi"])
def test_damaged_file(folder, tmp_path, name):
    path = tmp_path / name
    content = bytearray((folder / name).read_bytes())
    start = packet_positions(folder / name)[20]
    content[start + 12 : start + 200] = bytes(255 - byte for byte in content[start + 12 : start + 200])
    path.write_bytes(content)
    with (
        video.open(path) as reader,
        pytest.raises(video.VideoError, match=r"is damaged after \d+ frames \(.+\); copy"),
    ):
        len(reader)
    with video.open(path) as reader, pytest.raises(video.VideoError, match="is damaged after"):
        reader.frames()
    with video.open(path, on_error="stop") as reader:
        first = list(reader)
        assert 10 < len(first) == len(reader) < 30
        assert [number_in(frame) for frame in first[:15]] == list(range(15))[: len(first)]


def test_no_frame_decodes(folder, tmp_path):
    """A WebM file cut right after its header; the length is taken out so that only decoding can tell."""
    content = bytearray((folder / "vp9.webm").read_bytes())
    at = content.index(b"\x18\x53\x80\x67") + 4
    content[at : at + 8] = b"\x01" + b"\xff" * 7
    first = packet_positions(folder / "vp9.webm")[0]
    path = tmp_path / "header.webm"
    path.write_bytes(content[: first + 3])
    with video.open(path) as reader:
        for read in (len, list, lambda reader: reader.frames(), lambda reader: reader.size):
            with pytest.raises(video.VideoError, match=r"header\.webm has no frame that decodes"):
                read(reader)
    with video.open(path, on_error="stop", short_side=32) as reader:
        assert len(reader) == 0
        assert list(reader) == []
        assert reader.frames().shape == (0, 3, 32, 48)
        assert reader.timestamps.shape == (0,)


def test_quiet(folder, tmp_path):
    """FFmpeg's complaints about a damaged file stay off the terminal."""
    content = (folder / "mpeg4.avi").read_bytes()
    (tmp_path / "cut.avi").write_bytes(content[: packet_positions(folder / "mpeg4.avi")[20] + 11])
    code = f"from pyaction import video; print(len(video.open({str(tmp_path / 'cut.avi')!r}, on_error='stop')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == 20
    assert done.stderr == ""


def test_import_loads_no_decoder():
    code = "import sys, pyaction.video; print('av' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"color": "bgr"}, "color must be 'rgb' or 'gray'; got 'bgr'"),
        ({"on_error": "skip"}, "on_error must be 'raise' or 'stop'; got 'skip'"),
        ({"size": (0, 5)}, r"size must be \(height, width\), two whole numbers from 1; got \(0, 5\)"),
        ({"size": (8, 5, 3)}, r"got \(8, 5, 3\)"),
        ({"short_side": 2.5}, "short_side must be a whole number from 1; got 2.5"),
        ({"short_side": 9, "size": (8, 8)}, r"give size or short_side, not both; got \(8, 8\) and 9"),
    ],
)
def test_rejects(path, options, message):
    with pytest.raises(ValueError, match=message):
        video.open(path, **options)


def test_closed(path):
    reader = video.open(path)
    frames = iter(reader)
    next(frames)
    assert len(reader) == COUNT
    reader.close()
    reader.close()
    for read in (lambda: next(frames), lambda: next(iter(reader)), lambda: reader.frames([1])):
        with pytest.raises(ValueError, match="was closed; open it again"):
            read()


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files in /proc")
def test_no_open_files_stay_behind(path):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with video.open(path) as reader:
            next(iter(reader))
            abandoned = iter(reader)
            next(abandoned)
            reader.frames([3, 40])
        assert len(os.listdir("/proc/self/fd")) == before


def test_a_file_that_changes(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(pyav_reader, "HELD_BYTES", 0)
    shutil.copy(folder / "mpeg4.avi", tmp_path / "a.avi")
    with video.open(tmp_path / "a.avi") as reader:
        assert len(reader) == COUNT
        shutil.copy(folder / "mjpeg.avi", tmp_path / "other.avi")
        os.replace(tmp_path / "other.avi", tmp_path / "a.avi")
        with pytest.raises(video.VideoError, match="changed while it was read"):
            reader.frames([3, 2])
            reader.frames([1])
