"""DALI's frames are PyAV's: the same numbers, and the same pixels as far as the decoders allow."""

import importlib.util
import os
import subprocess
import sys
import threading

import cv2
import numpy as np
import pytest
import torch
from video.numbered_video import COUNT, HEIGHT, STREAMS, WIDTH, encode, number_in, numbered_picture

from pyaction import video
from pyaction.video.dali_reader import DALIReader, color_matrix
from pyaction.video.frame_index import FrameIndex

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("nvidia") is None or importlib.util.find_spec("nvidia.dali") is None,
    reason="DALI is not installed: pip install 'pyaction[cuda13]'",
)

VP9 = ("libvpx-vp9", "yuv420p", {"crf": "5", "b": "0", "cpu-used": "5"})
MJPEG = ("mjpeg", "yuvj420p", {"qmin": "2", "qmax": "2"})
# Codecs that DALI decodes without a GPU.
DECODED = ["vp9.webm", "mjpeg.avi"]

# Mean and largest difference from PyAV's pixels, in grey levels; see `video.open`.
UNSCALED, SCALED = (2.0, 50), (2.5, 50)


def open_both(path, **options):
    return video.open(path, backend="dali", **options), video.open(path, **options)


def assert_close(frames, expected, tolerance):
    assert frames.shape == expected.shape and frames.dtype == expected.dtype
    difference = (frames.float() - expected.float()).abs()
    assert difference.mean() < tolerance[0] and difference.max() < tolerance[1]


def smooth_picture(height=240, width=320):
    colors = np.random.default_rng(3).integers(20, 236, (4, 5, 3), dtype=np.uint8)
    return cv2.resize(colors, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.fixture(params=DECODED)
def decoded_path(folder, request):
    return folder / request.param


# ---------------------------------------------------------------------- the same frames


def test_every_frame_in_order(decoded_path):
    with video.open(decoded_path, backend="dali") as reader:
        assert [number_in(frame) for frame in reader] == list(range(COUNT))
        assert [number_in(frame) for frame in reader.frames()] == list(range(COUNT))
        assert (len(reader), reader.size, reader.fps) == (COUNT, (HEIGHT, WIDTH), 25)
        assert torch.equal(reader.timestamps, video.open(decoded_path).timestamps)


def test_indices(decoded_path):
    dali, pyav = open_both(decoded_path)
    with dali, pyav:
        for number in torch.randperm(COUNT, generator=torch.Generator().manual_seed(7)).tolist():
            assert number_in(dali.frames([number])[0]) == number
        indices = [30, 3, 3, -1, 44, 0, 17, -45]
        frames = dali.frames(torch.tensor(indices))
        assert frames.is_contiguous() and frames.device.type == "cpu"
        assert_close(frames, pyav.frames(indices), UNSCALED)
        assert dali.frames([]).shape == (0, 3, HEIGHT, WIDTH)
        with pytest.raises(IndexError, match=rf"has {COUNT} frames; got index {COUNT}$"):
            dali.frames([1, COUNT])


@pytest.mark.parametrize("suffix", ["webm", "mkv", "mp4"])
def test_a_variable_rate(tmp_path, suffix):
    ticks = [0, 40, 50, 200, 210, 1000, 1001, 1500, 1900, 2000]
    pictures = [numbered_picture(number) for number in range(len(ticks))]
    encode(tmp_path / f"v.{suffix}", *VP9, pictures, ticks=ticks)
    with video.open(tmp_path / f"v.{suffix}", backend="dali") as reader:
        assert [number_in(frame) for frame in reader.frames([5, 1, 9])] == [5, 1, 9]


def test_frames_outlive_the_next_call(decoded_path):
    """The memory is DALI's own; a later frame must not be written into it."""
    with video.open(decoded_path, backend="dali") as reader:
        first = reader.frames([5])
        kept = first.clone()
        for number in range(20, 30):
            reader.frames([number])
    assert torch.equal(first, kept)


# ---------------------------------------------------------------------- the same pixels


@pytest.mark.parametrize("encoding", [VP9, MJPEG], ids=["vp9", "mjpeg"])
@pytest.mark.parametrize("options", [{}, {"color": "gray"}], ids=["rgb", "gray"])
def test_pixels(tmp_path, encoding, options):
    encode(tmp_path / "v.mkv", *encoding, [smooth_picture()] * 2)
    dali, pyav = open_both(tmp_path / "v.mkv", **options)
    assert_close(dali.frames(), pyav.frames(), UNSCALED)


def test_no_difference_where_chroma_is_whole(tmp_path):
    encode(tmp_path / "v.webm", "libvpx-vp9", "yuv444p", VP9[2], [numbered_picture(21)] * 2)
    dali, pyav = open_both(tmp_path / "v.webm")
    assert torch.equal(dali.frames(), pyav.frames())


@pytest.mark.parametrize("options", [{"size": (112, 131)}, {"short_side": 128}, {"short_side": 300}])
@pytest.mark.parametrize("color", ["rgb", "gray"])
def test_scaled(tmp_path, options, color):
    encode(tmp_path / "v.webm", *VP9, [smooth_picture()] * 2)
    dali, pyav = open_both(tmp_path / "v.webm", color=color, **options)
    assert dali.size == pyav.size
    assert_close(dali.frames(), pyav.frames(), SCALED)


@pytest.mark.parametrize("color", ["rgb", "gray"])
def test_colours_of_bt709(tmp_path, color):
    encode(tmp_path / "v.webm", *VP9, [smooth_picture()] * 2, colorspace=1)
    dali, pyav = open_both(tmp_path / "v.webm", color=color)
    assert_close(dali.frames(), pyav.frames(), UNSCALED)


def test_color_matrix():
    assert color_matrix(5, gray=False) is None
    assert np.allclose(color_matrix(2, gray=True), [[0.299, 0.587, 0.114]])
    red = np.array([0.2126, 0.0722])  # luma of BT.709's red and blue
    matrix = color_matrix(1, gray=False)
    assert np.allclose(matrix.sum(1), 1, atol=1e-6)  # grey stays grey
    # Y' Cb Cr of a pixel by one standard are the same numbers by the other.
    rgb601 = np.array([0.5, 0.4, 0.3])
    luma = 0.299 * 0.5 + 0.587 * 0.4 + 0.114 * 0.3
    rgb709 = matrix @ rgb601
    assert np.isclose(red[0] * rgb709[0] + (1 - red.sum()) * rgb709[1] + red[1] * rgb709[2], luma)
    assert np.isclose((rgb709[2] - luma) / 1.8556, (rgb601[2] - luma) / 1.772)


@pytest.mark.parametrize("rotation", [90, -90, 180])
@pytest.mark.parametrize("options", [{}, {"size": (160, 112)}])
def test_frames_come_upright(tmp_path, rotation, options):
    encode(tmp_path / "phone.mp4", *VP9, [smooth_picture()] * 2, rotation=rotation)
    dali, pyav = open_both(tmp_path / "phone.mp4", **options)
    assert dali.size == pyav.size
    frames = dali.frames()
    assert frames.is_contiguous()
    assert_close(frames, pyav.frames(), SCALED)


def test_real_video(real_data):
    (path,) = sorted(real_data.glob("videos/ssv2_like/**/0.webm"))
    dali, pyav = open_both(path, short_side=224)
    indices = list(range(0, len(pyav), 9))
    assert_close(dali.frames(indices), pyav.frames(indices), SCALED)


# ---------------------------------------------------------------------- damage and refusals


def packet_twenty(path):
    with video.open(path) as reader:
        return [packet.pos for packet in reader._open_pass()._container.demux(video=0)][20]


@pytest.mark.parametrize("harm", ["cut", "overwritten"])
def test_damaged_file(decoded_path, tmp_path, harm):
    content = bytearray(decoded_path.read_bytes())
    start = packet_twenty(decoded_path) + 12
    content[start:] = bytes(255 - byte for byte in content[start:][:200]) + content[start + 200 :]
    if harm == "cut":
        del content[start:]
    path = tmp_path / decoded_path.name
    path.write_bytes(content)
    with pytest.raises(video.VideoError, match="is cut short" if harm == "cut" else "is damaged after 20 frames"):
        video.open(path, backend="dali").frames([3])
    with video.open(path, backend="dali", on_error="stop") as reader:
        assert [number_in(frame) for frame in reader] == list(range(20))
        assert number_in(reader.frames([-1])[0]) == 19


def test_what_dali_does_not_find(folder, tmp_path, monkeypatch):
    """An index that promises more than DALI finds gives an error, no black frame; and the next file is read."""
    monkeypatch.setattr(FrameIndex, "__len__", lambda self: COUNT + 5)
    with video.open(folder / "vp9.webm", backend="dali") as reader:
        with pytest.raises(video.VideoError, match=r"does not decode in DALI \(Unexpected out-of-bounds frame"):
            reader.frames([COUNT + 2])
        assert number_in(reader.frames([7])[0]) == 7


def test_a_size_that_changes(tmp_path):
    for name, shape in (("a.mjpeg", (64, 96)), ("b.mjpeg", (32, 48))):
        picture = cv2.resize(numbered_picture(33), shape[::-1], interpolation=cv2.INTER_AREA)
        encode(tmp_path / name, *MJPEG, [picture] * 2)
    path = tmp_path / "both.mjpeg"
    path.write_bytes((tmp_path / "a.mjpeg").read_bytes() + (tmp_path / "b.mjpeg").read_bytes())
    kept = {"index_folder": tmp_path}
    len(video.open(path, **kept))
    for options in ({}, kept):
        with pytest.raises(video.VideoError, match="changes its picture size, which DALI cannot follow; use"):
            video.open(path, backend="dali", **options).frames([0])


@pytest.mark.parametrize("times", [[0, 1, 1], [-1, 0, 1], [0, 2, 1]], ids=["equal", "negative", "out of order"])
def test_times_that_do_not_tell_frames_apart(folder, monkeypatch, times):
    """DALI would give other frames, as of the AVI files of HMDB51 on a GPU, without a word."""
    append = FrameIndex.append

    def append_badly(self, frame, **options):
        append(self, frame, **options)
        self.pts[-1] = times[(len(self.pts) - 1) % 3] + 3 * ((len(self.pts) - 1) // 3)

    monkeypatch.setattr(FrameIndex, "append", append_badly)
    with (
        video.open(folder / "mjpeg.avi", backend="dali") as reader,
        pytest.raises(video.VideoError, match="does not say when its frames are shown, which DALI finds them by"),
    ):
        reader.frames([1])


def test_hmdb51_is_left_to_pyav(real_data):
    path = next(path for path in sorted(real_data.glob("videos/hmdb51/**/*.avi")))
    with (
        DALIReader(
            path,
            device=torch.device("cuda"),
            color="rgb",
            size=None,
            short_side=None,
            on_error="raise",
            index_folder=None,
        ) as reader,
        pytest.raises(video.VideoError, match="does not say when its frames are shown"),
    ):
        reader.stored  # noqa: B018


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("h264_b_frames.mp4", r"is H\.264, which needs a GPU in DALI .*; use backend='pyav' or device='cuda'$"),
        ("mpeg4.avi", "is MPEG-4, which needs a GPU in DALI"),
        ("mpeg2_b_frames.mpg", "is compressed as mpeg2video, which DALI does not decode; use backend='pyav'$"),
    ],
)
def test_codecs_that_need_something_else(folder, name, message):
    with pytest.raises(video.VideoError, match=message):
        video.open(folder / name, backend="dali")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "opencv"}, "backend must be 'pyav' or 'dali'; got 'opencv'"),
        ({"device": "cuda"}, "PyAV decodes on device 'cpu'; got 'cuda', which needs backend='dali'"),
        ({"backend": "dali", "device": "mps"}, "device must be 'cpu', 'cuda' or 'cuda:N'; got 'mps'"),
        ({"backend": "dali", "device": "gpu"}, "device must be 'cpu', 'cuda' or 'cuda:N'; got 'gpu'"),
        ({"backend": "dali", "device": "cuda:77"}, "device 'cuda:77' needs an NVIDIA GPU, and torch sees"),
    ],
)
def test_rejects(folder, options, message):
    with pytest.raises(ValueError, match=message):
        video.open(folder / "vp9.webm", **options)


def test_closed(folder):
    reader = video.open(folder / "vp9.webm", backend="dali")
    reader.frames([3])
    reader.close()
    with pytest.raises(ValueError, match="was closed; open it again"):
        reader.frames([3])


def test_not_installed(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    with pytest.raises(ImportError, match=r"needs NVIDIA DALI: pip install 'pyaction\[cuda13\]', or .*cuda12"):
        video.open(folder / "vp9.webm", backend="dali")


def test_import_loads_no_dali():
    code = "import sys, pyaction; from pyaction import video, data; print('nvidia.dali' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# ---------------------------------------------------------------------- threads and processes


def test_two_threads(decoded_path):
    """Each has its pipelines: feeding and running one are two steps."""
    wrong = []

    def read(seed):
        numbers = torch.randint(COUNT, (30,), generator=torch.Generator().manual_seed(seed)).tolist()
        with video.open(decoded_path, backend="dali") as reader:
            wrong.extend(number for number in numbers if number_in(reader.frames([number])[0]) != number)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_forked_child(folder):
    """A DataLoader's worker: the parent's pipelines would make it wait for ever."""
    code = f"""
import os, signal
from pyaction import video
def read():
    with video.open({str(folder / "vp9.webm")!r}, backend="dali") as reader:
        return reader.frames([9]).shape[0]
read()
if os.fork() == 0:
    signal.alarm(60)
    os._exit(7 if read() == 1 else 1)
print(os.waitstatus_to_exitcode(os.wait()[1]), read())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == ["7", "1"]


@pytest.mark.gpu
@pytest.mark.parametrize("name", [*DECODED, "h264_b_frames.mp4", "mpeg4.avi"])
def test_on_a_gpu(tmp_path, name):
    # NVDEC takes no VP9 of less than 128 x 128 pixels.
    pictures = [cv2.resize(numbered_picture(number), (384, 256)) for number in range(COUNT)]
    encode(tmp_path / name, *STREAMS[name], pictures)
    with video.open(tmp_path / name) as pyav:
        expected = pyav.frames()
    with video.open(tmp_path / name, backend="dali", device="cuda") as reader:
        assert [number_in(frame.cpu()) for frame in reader] == list(range(COUNT))
        frames = reader.frames([30, 3, 3, -1])
        assert frames.device == torch.device("cuda", torch.cuda.current_device())
        assert_close(frames.cpu(), expected[[30, 3, 3, -1]], UNSCALED)
