"""200 damaged files: whatever is wrong with them, they give frames or one sentence, and in time."""

import faulthandler
import multiprocessing
import random
import re

import numpy as np
import pytest
import torch
from video.numbered_video import HEIGHT, WIDTH, encode, numbered_picture
from video.test_reader_errors import index_in_front

from pyaction import video
from pyaction.video import pyav_reader
from pyaction.video.pyav_reader import HELD_BYTES

FILES, FRAMES = 200, 24
SECONDS_PER_FILE = 30  # a tenth of a second is usual; a busy machine is no hang
SEED = 20_240_611

# name: codec, pixel format, encoder options
SOURCES = {
    "h264.mp4": ("libx264", "yuv420p", {"bf": "3", "g": "8", "x264-params": "scenecut=0:b-adapt=0"}),
    "vp9.webm": ("libvpx-vp9", "yuv420p", {"g": "8", "cpu-used": "8"}),
    "mjpeg.avi": ("mjpeg", "yuvj420p", {"qmin": "2", "qmax": "8"}),
    "mpeg4.avi": ("mpeg4", "yuv420p", {"bf": "2", "g": "8"}),
}


def flip_bytes(content, draw):
    for _ in range(draw.choice([1, 5, 50])):
        content[draw.randrange(len(content))] ^= draw.randrange(1, 256)


def zero_range(content, draw):
    start, length = _range(content, draw)
    content[start : start + length] = bytes(length)


def cut(content, draw):
    del content[draw.randrange(100, len(content)) :]


def remove_range(content, draw):
    start, length = _range(content, draw)
    del content[start : start + length]


def insert_garbage(content, draw):
    start, length = _range(content, draw)
    content[start:start] = draw.randbytes(length)


def swap_blocks(content, draw):
    length = min(draw.choice([16, 200, 1000]), len(content) // 4)
    one, other = sorted(draw.sample(range(len(content) // length), 2))
    one, other = one * length, other * length
    content[one : one + length], content[other : other + length] = (
        content[other : other + length],
        content[one : one + length],
    )


def damage_header(content, draw):
    """The first bytes are the header in all of them, with sizes, rates and lengths."""
    for _ in range(draw.choice([1, 4, 16])):
        content[draw.randrange(min(600, len(content)))] = draw.choice([0, 255, draw.randrange(256)])


DAMAGES = (flip_bytes, zero_range, cut, remove_range, insert_garbage, swap_blocks, damage_header)


def _range(content, draw):
    length = min(draw.choice([1, 30, 400, 2000]), len(content) // 2)
    return draw.randrange(len(content) - length), length


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    texture = np.random.default_rng(SEED).integers(0, 60, (2 * HEIGHT, WIDTH, 3), dtype=np.uint8)
    # Without it the files would be hardly more than their headers.
    pictures = [numbered_picture(number) // 2 + texture[2 * number :][:HEIGHT] for number in range(FRAMES)]
    for name, (codec, pixel_format, options) in SOURCES.items():
        # One thread, or the files would differ from run to run.
        encode(folder / name, codec, pixel_format, options | {"threads": "1"}, pictures)
    index_in_front(folder / "h264.mp4", folder / "front.mp4")
    (folder / "front.mp4").replace(folder / "h264.mp4")
    return [folder / name for name in SOURCES]


def damaged_files(sources, folder, seed=SEED):
    draw = random.Random(seed)
    for number in range(FILES):
        source = sources[number % len(sources)]
        content = bytearray(source.read_bytes())
        for damage in draw.sample(DAMAGES, draw.choice([1, 1, 1, 2])):
            damage(content, draw)
        path = folder / f"{number:03}{source.suffix}"
        path.write_bytes(content)
        yield path


def read(path, index_folder, on_error):
    """How many frames there are, or the sentence that says why there are none."""
    options = {"on_error": on_error, "size": (16, 24)}
    try:
        with video.open(path, index_folder=index_folder, **options) as reader:
            every = list(reader)
            count = len(reader)
            assert count == len(every) == len(reader.timestamps)
            assert bool((reader.timestamps.diff() >= 0).all())
        chosen = sorted({count - 1, count // 2, 0} & set(range(count)), reverse=True)
        # With what is kept of a visit, with frames that are held, and by seeking.
        for folder, held_bytes in ((index_folder, HELD_BYTES), (None, HELD_BYTES), (None, 0)):
            pyav_reader.HELD_BYTES = held_bytes
            with video.open(path, index_folder=folder, **options) as reader:
                assert len(reader) == count
                for number, frame in zip(chosen, reader.frames(chosen), strict=True):
                    assert torch.equal(frame, every[number]), number
    except video.VideoError as error:
        return str(error)
    return count


def read_all(paths, index_folder, sender):
    """In a process of its own, which a hang or a crash may end."""
    torch.set_num_threads(1)
    for path in paths:
        # Ends the process with a traceback of where it hangs.
        faulthandler.dump_traceback_later(SECONDS_PER_FILE, exit=True)
        sender.send((path, {on_error: read(path, index_folder, on_error) for on_error in ("stop", "raise")}))
    sender.close()


def outcomes(paths, index_folder):
    """path -> what `read` says in both modes, from a process of its own."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=read_all, args=(paths, index_folder, sender))
    process.start()
    sender.close()
    found = {}
    while True:
        try:
            path, outcome = receiver.recv()
        except EOFError:
            break
        found[path] = outcome
    process.join()
    missing = next((path for path in paths if path not in found), None)
    assert missing is None, f"{missing}: the process ended with {process.exitcode}; stderr says where"
    return found


def test_damaged_files(sources, tmp_path):
    (tmp_path / "indexes").mkdir()
    paths = list(damaged_files(sources, tmp_path))
    found = outcomes(paths, tmp_path / "indexes")
    for path, outcome in found.items():
        for said in outcome.values():
            if isinstance(said, str):
                assert said.startswith(str(path)) and "\n" not in said, said
            else:
                assert 0 <= said <= FRAMES, path
        stopped, raised = outcome["stop"], outcome["raise"]
        if isinstance(raised, int):
            assert stopped == raised > 0, path
        elif damaged := re.search(r"is damaged after (\d+) frames", raised):
            assert stopped == int(damaged[1]), path
        elif "is cut short" not in raised:
            assert stopped in (raised, 0), path
    # The damage is of all degrees.
    assert sum(isinstance(outcome["raise"], int) for outcome in found.values()) > FILES // 10
    assert sum(isinstance(outcome["stop"], str) for outcome in found.values()) > FILES // 20
    assert sum("is damaged after" in str(outcome["raise"]) for outcome in found.values()) > FILES // 10
