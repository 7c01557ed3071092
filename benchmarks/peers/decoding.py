"""Chosen frames of a video by other libraries, each on one thread, in the fastest way that gives the frames asked for.

Every function takes a path and frame numbers and returns (T, H, W, 3) uint8, RGB.
"""

from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

Frames = NDArray[np.uint8]
Read = Callable[[str, Sequence[int]], Frames]

PACKAGES = ("av", "opencv-contrib-python-headless", "decord", "torchcodec", "torchvision")


def all_frames(path: str, threads: int | None = None) -> list[NDArray[np.uint8]]:
    """Every frame by OpenCV, (H, W, 3), BGR; with as many threads, or as it likes."""
    options = [] if threads is None else [cv2.CAP_PROP_N_THREADS, threads]
    capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG, options)
    frames = []
    while True:
        there, frame = capture.read()
        if not there:
            break
        frames.append(frame)
    capture.release()
    return frames


def opencv_every_frame(path: str, numbers: Sequence[int]) -> Frames:
    """Reads the whole video and then chooses, as most data sets do."""
    frames = all_frames(path, threads=1)
    return np.stack([cv2.cvtColor(frames[number], cv2.COLOR_BGR2RGB) for number in numbers])


def opencv_sequential(path: str, numbers: Sequence[int]) -> Frames:
    """Decodes as far as the last wanted frame; converts the wanted ones only."""
    capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    wanted, found = set(numbers), {}
    for number in range(max(numbers) + 1):
        if not capture.grab():
            raise ValueError(f"{path} ends before frame {number}")
        if number in wanted:
            found[number] = cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB)
    capture.release()
    return np.stack([found[number] for number in numbers])


def pyav_sequential(path: str, numbers: Sequence[int]) -> Frames:
    """Likewise."""
    wanted, found, last = set(numbers), {}, max(numbers)
    to_rgb = VideoReformatter()
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type, stream.thread_count = "NONE", 1
        for number, frame in enumerate(container.decode(stream)):
            if number in wanted:
                found[number] = to_rgb.reformat(frame, format="rgb24", interpolation="BICUBIC", threads=1).to_ndarray()
            if number == last:
                break
    return np.stack([found[number] for number in numbers])


def decord_sequential(path: str, numbers: Sequence[int]) -> Frames:
    import decord

    reader = decord.VideoReader(path, num_threads=1)
    wanted, found = set(numbers), {}
    for number in range(max(numbers) + 1):
        if number in wanted:
            found[number] = reader.next().asnumpy()
        else:
            reader.skip_frames(1)
    return np.stack([found[number] for number in numbers])


def decord_batch(path: str, numbers: Sequence[int]) -> Frames:
    import decord

    return decord.VideoReader(path, num_threads=1).get_batch(list(numbers)).asnumpy()


def torchcodec_exact(path: str, numbers: Sequence[int]) -> Frames:
    return _torchcodec(path, numbers, "exact")


def torchcodec_approximate(path: str, numbers: Sequence[int]) -> Frames:
    return _torchcodec(path, numbers, "approximate")


def _torchcodec(path: str, numbers: Sequence[int], seek_mode: str) -> Frames:
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(path, seek_mode=seek_mode, num_ffmpeg_threads=1, dimension_order="NHWC")
    return decoder.get_frames_at(list(numbers)).data.numpy()


PEERS: dict[str, Read] = {
    "OpenCV, every frame": opencv_every_frame,
    "OpenCV, in order": opencv_sequential,
    "PyAV, in order": pyav_sequential,
    "decord, in order": decord_sequential,
    "decord get_batch": decord_batch,
    "torchcodec exact": torchcodec_exact,
    "torchcodec approximate": torchcodec_approximate,
}


def usable_peers(path: str) -> tuple[dict[str, Read], list[str]]:
    """Those that read a first frame, and a sentence on each that does not."""
    peers, left_out = {}, []
    for name, read in PEERS.items():
        try:
            read(path, [0])
        except Exception as error:  # noqa: BLE001 - whatever keeps a library from loading its FFmpeg
            reason = str(error).strip().partition("\n")[0]
            left_out.append(f"{name} does not load here: {reason}")
        else:
            peers[name] = read
    if not _has_torchvision_reader():
        left_out.append(f"torchvision {versions()['torchvision']} has no video reader any more")
    return peers, left_out


def versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _has_torchvision_reader() -> bool:
    try:
        from torchvision.io import VideoReader  # noqa: F401
    except ImportError:
        return False
    return True
