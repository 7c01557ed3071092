"""FlowCache: stored flow is the computed flow, whatever happens to its files and to those who write them."""

import fcntl
import os
import pickle
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pyaction import flow, ops
from pyaction.data import flow_cache
from pyaction.data.flow_cache import FlowCache

HEIGHT, WIDTH = 7, 13


class Counted:
    """A method whose flow depends on the pair alone, and which knows how often it was asked."""

    def __init__(self) -> None:
        self.clips: list[int] = []

    def __call__(self, clip: Tensor) -> Tensor:
        self.clips.append(len(clip))
        return (clip[:, 1:, :2].float() - clip[:, :-1, 1:].float()) / 7


def video_frames(count: int = 12) -> Tensor:
    return torch.randint(
        0, 256, (count, 3, HEIGHT, WIDTH), dtype=torch.uint8, generator=torch.Generator().manual_seed(3)
    )


FRAMES = video_frames()


def clips(*starts: int, length: int = 4) -> Tensor:
    return torch.stack([torch.arange(start, start + length) for start in starts])


def ask(cache: FlowCache, indices: Tensor, settings: str = "counted", path: str = "a/b.mp4") -> list[int]:
    """Asks for clips, compares what comes with what should, and returns the sizes of the batches computed."""
    method = Counted()
    frames = FRAMES[indices]
    expected = flow.encode(Counted()(frames), cache.bound)
    assert torch.equal(cache.flow(path, indices, frames, method, settings), expected)
    return method.clips


def files(folder: Path, suffix: str) -> list[Path]:
    return sorted(folder.rglob(f"*.{suffix}"))


def entry_count(folder: Path) -> int:
    return files(folder, "index")[0].stat().st_size // flow_cache._ENTRY.size


def test_second_call_computes_nothing(tmp_path: Path) -> None:
    cache = FlowCache(tmp_path / "new" / "folder", bound=15)
    assert ask(cache, clips(0, 5)) == [2]
    assert ask(cache, clips(0, 5)) == []
    assert ask(cache, clips(1, 5, length=2)) == []  # pairs of those clips
    assert ask(cache, clips(5, 6, 0)) == [1]  # of which one has a pair that is not stored
    assert ask(FlowCache(tmp_path / "new" / "folder", bound=15), clips(6)) == []
    assert ask(cache, torch.tensor([[3, 3, 9], [9, 2, 3]])) == [2]  # any pairs, also of a frame with itself


def test_other_settings_are_other_entries(tmp_path: Path) -> None:
    cache = FlowCache(tmp_path)
    assert ask(cache, clips(2)) == [1]
    assert ask(cache, clips(2), settings="other") == [1]
    assert ask(cache, clips(2), path="b.mp4") == [1]
    assert ask(FlowCache(tmp_path, bound=7.5), clips(2)) == [1]
    assert len(files(tmp_path, "index")) == 4
    assert ask(cache, clips(2)) == []


def test_other_frames_are_other_entries(tmp_path: Path) -> None:
    """The same video, frame numbers and size, but another crop, or grey levels; or a file that was replaced."""
    cache, indices, method = FlowCache(tmp_path), clips(2), Counted()
    for number, frames in enumerate(
        (FRAMES, FRAMES.flip(-1), FRAMES / 255, (FRAMES / 255).bfloat16(), FRAMES[:, :, :-2])
    ):
        chosen = frames[indices]
        for _ in range(2):
            assert torch.equal(cache.flow("a", indices, chosen, method, "x"), flow.encode(Counted()(chosen)))
        assert len(method.clips) == number + 1


def test_methods_of_pyaction_name_themselves(tmp_path: Path) -> None:
    cache = FlowCache(tmp_path)
    frames = torch.randint(0, 256, (2, 3, 3, 40, 50), dtype=torch.uint8)
    first = cache.flow("a", clips(0, 4, length=3), frames, "tvl1")
    assert torch.equal(first, flow.encode(ops.tvl1_flow_clip(frames)))
    assert len(files(tmp_path, "index")) == 1
    assert torch.equal(cache.flow("a", clips(0, 4, length=3), frames, flow.TVL1("video")), first)
    assert len(files(tmp_path, "index")) == 1
    cache.flow("a", clips(0, 4, length=3), frames, flow.TVL1("fast"))
    assert len(files(tmp_path, "index")) == 2


def test_a_pair_has_one_flow(tmp_path: Path) -> None:
    """The warm start makes it depend on the clip; what was stored first holds, for the clip that computes it too."""
    cache = FlowCache(tmp_path)
    cache.flow("a", clips(3, length=2), FRAMES[clips(3, length=2)], lambda clip: torch.full((1, 1, 2, 7, 13), 5.0), "x")
    longer = cache.flow(
        "a", clips(2, length=3), FRAMES[clips(2, length=3)], lambda clip: torch.zeros(1, 2, 2, 7, 13), "x"
    )
    assert [int(pair.unique()) for pair in longer[0]] == [128, 159]

    def meanwhile(clip: Tensor) -> Tensor:
        """Another process is faster."""
        FlowCache(tmp_path).flow("a", clips(8), FRAMES[clips(8)], lambda clip: torch.full((1, 3, 2, 7, 13), -5.0), "x")
        return torch.zeros(1, 3, 2, 7, 13)

    assert cache.flow("a", clips(8), FRAMES[clips(8)], meanwhile, "x").unique().tolist() == [96]
    assert entry_count(tmp_path) == 2 + 3


def test_unusable_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "in the way").write_text("")
    assert ask(FlowCache(tmp_path / "in the way"), clips(8)) == [1]
    assert "no longer grows" in caplog.text


@pytest.mark.parametrize("suffix", ["index", "flow"])
def test_goes_on_after_a_cut_anywhere(tmp_path: Path, suffix: str) -> None:
    """As a process leaves it that is killed while it writes its second batch."""
    cache = FlowCache(tmp_path)
    ask(cache, clips(0, length=3))
    (file,) = files(tmp_path, suffix)
    before = file.stat().st_size
    ask(cache, clips(2, length=2))
    whole = {path: path.read_bytes() for path in files(tmp_path, "*")}
    for size in range(before, len(whole[file])):
        for path, contents in whole.items():
            path.write_bytes(contents[:size] if path == file else contents)
        assert ask(cache, clips(0, length=3)) == []
        assert ask(cache, clips(0)) == [1]
        assert ask(cache, clips(0)) == []
        # The index has one more entry where the cut flow still has its own.
        if suffix == "index":
            assert {path: path.read_bytes() for path in whole} == whole


@pytest.mark.parametrize("suffix", ["index", "flow"])
def test_notices_a_flipped_byte(tmp_path: Path, suffix: str) -> None:
    cache = FlowCache(tmp_path)
    ask(cache, clips(0, length=3))
    (file,) = files(tmp_path, suffix)
    whole = {path: path.read_bytes() for path in files(tmp_path, "*")}
    for place in range(0, len(whole[file]), 5):
        for path, contents in whole.items():
            damaged = bytearray(contents)
            damaged[place % len(damaged)] ^= 0x10 if path == file else 0
            path.write_bytes(damaged)
        assert ask(cache, clips(0, length=3)) == [1]
        assert ask(cache, clips(0, length=3)) == []


def test_lost_file(tmp_path: Path) -> None:
    cache = FlowCache(tmp_path)
    for suffix in ("index", "flow"):
        ask(cache, clips(0))
        files(tmp_path, suffix)[0].unlink()
        assert ask(cache, clips(0)) == [1]
        assert ask(cache, clips(0)) == []


WORKER = f"""
import sys, torch
from torch import randint
from pyaction.data.flow_cache import FlowCache
folder, seed, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
generator = torch.Generator().manual_seed(3)
frames = randint(0, 256, (12, 3, {HEIGHT}, {WIDTH}), dtype=torch.uint8, generator=generator)
generator.manual_seed(seed)
cache = FlowCache(folder)
print("ready", flush=True)
for _ in range(rounds):
    indices = randint(0, 12, (2, 4), generator=generator)
    method = lambda clip: (clip[:, 1:, :2].float() - clip[:, :-1, 1:].float()) / 7
    first = cache.flow("a/b.mp4", indices, frames[indices], method, "counted")
    assert torch.equal(first, cache.flow("a/b.mp4", indices, frames[indices], method, "counted"))
"""


def worker(folder: Path, seed: int, rounds: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", WORKER, str(folder), str(seed), str(rounds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def all_pairs() -> Tensor:
    first, second = torch.meshgrid(torch.arange(12), torch.arange(12), indexing="ij")
    return torch.stack([first.flatten(), second.flatten()], dim=1)


def test_two_processes_at_once(tmp_path: Path) -> None:
    workers = [worker(tmp_path, seed, 60) for seed in (1, 2)]
    assert [process.wait() for process in workers] == [0, 0]
    stored = entry_count(tmp_path)
    assert 100 < stored <= 144  # each pair once
    assert sum(ask(FlowCache(tmp_path), all_pairs())) == 144 - stored


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    cache = FlowCache(tmp_path)
    ask(cache, clips(0))
    with files(tmp_path, "index")[0].open() as index, ThreadPoolExecutor() as pool:
        fcntl.flock(index, fcntl.LOCK_EX)
        reading, writing = pool.submit(ask, cache, clips(0)), pool.submit(ask, cache, clips(4))
        assert reading.result(timeout=60) == []  # readers need no lock
        time.sleep(0.2)
        assert not writing.done() and entry_count(tmp_path) == 3
        fcntl.flock(index, fcntl.LOCK_UN)
        assert writing.result(timeout=60) == [1] and entry_count(tmp_path) == 6


def test_a_fork_takes_no_lock_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loader starts its workers while another thread stores flow."""
    write, children = os.pwrite, []

    def fork_and_write(file: int, data: bytes, offset: int) -> int:
        if not children:
            children.append(os.fork())
            if children[0] == 0:
                time.sleep(30)
                os._exit(0)
        return write(file, data, offset)

    cache = FlowCache(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", fork_and_write)
        ask(cache, clips(0))
    try:
        with ThreadPoolExecutor() as pool:
            assert pool.submit(ask, cache, clips(4)).result(timeout=60) == [1]
    finally:
        os.kill(children[0], signal.SIGKILL)
        os.waitpid(children[0], 0)


def test_killed_at_any_moment(tmp_path: Path) -> None:
    for seed in range(4):
        process = worker(tmp_path, seed, 10_000)
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        time.sleep(0.003 * seed**2)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        ask(FlowCache(tmp_path), clips(seed, seed + 1))
    cache = FlowCache(tmp_path)
    ask(cache, all_pairs())
    assert ask(cache, all_pairs()) == []


def limit_file_size(size: int) -> Callable[[], None]:
    """As on a disk with so much room: a write is cut short, and the next one fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))

    def lift() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)

    return lift


@pytest.mark.parametrize("more", [0, 1, 300])
def test_full_disk(tmp_path: Path, more: int, caplog: pytest.LogCaptureFixture) -> None:
    cache = FlowCache(tmp_path)
    ask(cache, clips(0))
    sizes = {path: path.stat().st_size for path in files(tmp_path, "*")}
    lift = limit_file_size(max(sizes.values()) + more)
    try:
        assert ask(cache, clips(4)) == [1] and len(caplog.messages) == 1
        assert ask(cache, clips(4)) == [1] and len(caplog.messages) == 1
        assert ask(cache, clips(0)) == []  # what is stored serves on
        assert f"the flow cache in {tmp_path} no longer grows: [Errno 27]" in caplog.text
        assert {path: path.stat().st_size for path in files(tmp_path, "*")} == sizes
    finally:
        lift()
    assert ask(cache, clips(4)) == [1] and entry_count(tmp_path) == 3  # one try per object
    assert ask(FlowCache(tmp_path), clips(4)) == [1]
    assert ask(FlowCache(tmp_path), clips(4)) == []


@pytest.mark.parametrize("call", [0, 1])
def test_no_room_for_flow_or_index(
    tmp_path: Path, call: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Half of what is written for the last time still finds room: two of four entries, say."""
    write, calls = os.pwrite, []

    def full(file: int, data: bytes, offset: int) -> int:
        calls.append(len(data))
        if len(calls) > call + 1:
            raise OSError(28, "No space left on device")
        return write(file, data[: len(data) // 2] if len(calls) > call else data, offset)

    cache = FlowCache(tmp_path)
    ask(cache, clips(0))
    sizes = {path: path.stat().st_size for path in files(tmp_path, "*")}
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        assert ask(cache, clips(4, length=5)) == [1]
    assert "no longer grows: [Errno 28] No space left on device" in caplog.text
    assert len(calls) == call + 2
    assert {path: path.stat().st_size for path in files(tmp_path, "*")} == sizes
    assert ask(FlowCache(tmp_path), clips(4)) == [1]
    assert ask(FlowCache(tmp_path), clips(4, 0)) == []


def test_read_only_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Root may write everywhere: os.open says what it says to others."""
    ask(FlowCache(tmp_path), clips(0))
    reading = os.open

    def refuse(path: str, flags: int, mode: int) -> int:
        if flags != os.O_RDONLY:
            raise PermissionError(13, "Permission denied", path)
        return reading(path, flags, mode)

    monkeypatch.setattr(os, "open", refuse)
    cache = FlowCache(tmp_path)
    assert ask(cache, clips(0)) == []
    assert ask(cache, clips(4)) == [1] and "Permission denied" in caplog.text


@pytest.mark.parametrize(("count", "length"), [(0, 4), (3, 1)])
def test_empty(tmp_path: Path, count: int, length: int) -> None:
    frames = torch.zeros(count, length, 3, HEIGHT, WIDTH, dtype=torch.uint8)
    indices = torch.zeros(count, length, dtype=torch.int64)
    result = FlowCache(tmp_path).flow("a", indices, frames, "tvl1")
    assert result.shape == (count, length - 1, 2, HEIGHT, WIDTH) and result.dtype == torch.uint8


def test_pickle(tmp_path: Path) -> None:
    ask(FlowCache(tmp_path, bound=9.5), clips(0))
    assert ask(pickle.loads(pickle.dumps(FlowCache(tmp_path, bound=9.5))), clips(0)) == []


def test_rejects(tmp_path: Path) -> None:
    cache, frames = FlowCache(tmp_path), FRAMES[clips(0)]
    with pytest.raises(ValueError, match="settings must be given for a method of your own"):
        cache.flow("a", clips(0), frames, Counted())
    with pytest.raises(TypeError, match="frame_indices must be a torch.Tensor; got list"):
        cache.flow("a", [[0, 1, 2, 3]], frames, "tvl1")
    with pytest.raises(ValueError, match=r"frames must be \[S, T, C, H, W\] with T >= 1; got \[4, 3, 7, 13\]"):
        cache.flow("a", clips(0), frames[0], "tvl1")
    for wrong in (clips(0, 1), clips(0, length=3), clips(0) / 2):
        with pytest.raises(ValueError, match=r"frame_indices must be integers \[1, 4\], as frames have it; got torch"):
            cache.flow("a", wrong, frames, "tvl1")
    with pytest.raises(ValueError, match="method must be one of"):
        cache.flow("a", clips(0), frames, "farneback")
    with pytest.raises(ValueError, match="method must return"):
        cache.flow("a", clips(0), frames, lambda clip: clip.float(), "mine")
    assert not list(tmp_path.iterdir())


@pytest.mark.gpu
def test_cuda(tmp_path: Path) -> None:
    frames = torch.randint(0, 256, (1, 3, 3, 40, 50), dtype=torch.uint8).cuda()
    cache = FlowCache(tmp_path)
    first = cache.flow("a", clips(0, length=3), frames, "tvl1")
    assert first.is_cuda and torch.equal(cache.flow("a", clips(0, length=3), frames, "tvl1"), first)
