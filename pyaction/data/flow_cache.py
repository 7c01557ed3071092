"""Optical flow kept on disk, for those who would rather store it than compute it in every epoch."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import struct
import zlib
from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from pyaction import flow
from pyaction._native import build_facts
from pyaction.flow.estimation import Method

_logger = logging.getLogger(__name__)

_FORMAT = 1  # raised where old files would be misread
# A pair of frames: number and CRC-32 of the first and of the second one.
_KEY = struct.Struct("<qIqI")
# Key; where the flow is: offset, bytes, their CRC-32; and the CRC-32 of all this.
_ENTRY = struct.Struct(f"<{_KEY.size}sQIII")


class FlowCache:
    """A folder of flow that has been computed before: 27 to 36 KB for a pair of 320 x 240 frames.

    What comes back is always the uint8 form, `flow.encode(flow, bound)`, whether it was stored or has just been
    computed. A pair is found again by its video's path, frame numbers, frame size and the *contents* of both frames,
    and by the method, its parameters, bound and pyaction's version. So a video may be replaced and frames may be
    cropped: the worst is that a pair is not found. Crops drawn anew in every epoch never are, and only make the
    folder grow: use the cache before them.

    With the warm start of `ops.tvl1_flow_clip`, the flow of a pair depends a little on the frames before it in its
    clip: where a clip begins, by some hundredths of a pixel (0.7 where a camera shakes), and less with every further
    pair. What is stored is the flow in the first clip that had the pair, and every clip then gets that.

    Several processes may use one folder. It survives being killed at any moment: what is incomplete or damaged is
    computed again. Where it cannot be written, because the disk is full say, one warning says so, and this object
    stores nothing more. Delete the folder to start anew.

    Args:
        folder: Where; made when the first flow comes.
        bound: The displacement in pixels that saturates, see `flow.encode`.

    Example:
        >>> import tempfile
        >>> cache = FlowCache(tempfile.mkdtemp())
        >>> frames = torch.randint(0, 256, (2, 5, 3, 48, 64), dtype=torch.uint8)
        >>> indices = torch.tensor([[0, 1, 2, 3, 4], [4, 5, 6, 7, 8]])
        >>> cache.flow("a.mp4", indices, frames, "tvl1").shape
        torch.Size([2, 4, 2, 48, 64])
    """

    def __init__(self, folder: str | os.PathLike[str], *, bound: float = 20.0) -> None:
        self.folder = Path(folder)
        self.bound = float(bound)  # 20 and 20.0 are one bound
        self._grows = True

    def flow(
        self,
        path: str | os.PathLike[str],
        frame_indices: Tensor,
        frames: Tensor,
        method: Method | Callable[[Tensor], Tensor],
        settings: str | None = None,
    ) -> Tensor:
        """The flow of clips of one video; only clips with a pair that is not stored are computed.

        Args:
            path: The video's name. Only a name: the file is not looked at.
            frame_indices: (S, T), integers: which frames of the video these are.
            frames: (S, T, C, H, W), as for `flow.estimate`.
            method: As for `flow.estimate`.
            settings: What names the method with all that decides its result. None for the methods that pyaction
                names, whose `repr` it is. (If that has a file of weights, another file needs another path.)

        Returns:
            (S, T - 1, 2, H, W), uint8, on the device of `frames`; `flow.decode(..., cache.bound)` makes pixels of it.

        Raises:
            ValueError: As `flow.estimate`; frame_indices does not fit; settings are needed.
        """
        _check(frame_indices, frames)
        estimator = flow.estimator(method)
        if settings is None:
            if not isinstance(estimator, flow.Estimator):
                raise ValueError(f"FlowCache.flow: settings must be given for a method of your own; got {method!r}")
            settings = repr(estimator)
        count, length, *frame_shape = frames.shape
        result = torch.empty((count, length - 1, 2, *frame_shape[1:]), dtype=torch.uint8)
        keys = _keys(frame_indices, frames)
        video = self._video(os.fsdecode(path), settings, frames)

        known = self._attempt(video.read, {key for clip in keys for key in clip})
        missing = [number for number, clip in enumerate(keys) if any(key not in known for key in clip)]
        if missing:
            with torch.no_grad():
                computed = flow.encode(flow.estimate(frames[missing], estimator), self.bound).cpu()
            new: dict[bytes, Tensor] = {}
            for number, pairs in zip(missing, computed, strict=True):
                for key, pair in zip(keys[number], pairs, strict=True):
                    if key not in known:
                        new.setdefault(key, pair)
            # What another process has stored meanwhile holds: one pair, one flow.
            known = new | known | (self._attempt(video.add, new) if self._grows else {})
        for clip, pairs in zip(keys, result, strict=True):
            for key, pair in zip(clip, pairs, strict=True):
                pair.copy_(known[key])
        return result.to(frames.device)

    def _video(self, path: str, settings: str, frames: Tensor) -> _Video:
        shape = tuple(frames.shape[2:])
        parts = [_FORMAT, build_facts()["version"], path, settings, self.bound, shape, str(frames.dtype)]
        name = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
        return _Video(self.folder / name[:2] / name[2:], shape[1:])

    def _attempt(self, action: Callable[..., dict[bytes, Tensor]], argument: object) -> dict[bytes, Tensor]:
        """Training goes on without the cache."""
        try:
            return action(argument)
        except OSError as error:
            if self._grows:
                self._grows = False
                _logger.warning("the flow cache in %s no longer grows: %s", self.folder, error)
            return {}


class _Place(NamedTuple):
    """Where the flow of a pair is."""

    offset: int
    size: int
    checksum: int


class _Video:
    """The flow of one video by one method: `.flow` holds compressed fields one after another, `.index` where they are.

    Both only grow, by a writer that holds a lock on the index, and first the flow: an entry of the index that is whole
    points at flow that was written. A writer that was killed leaves flow without an entry, or part of an entry behind
    the last whole one; the next one writes over both.
    """

    def __init__(self, path: Path, size: tuple[int, ...]) -> None:
        self._index = path.with_suffix(".index")
        self._flow = path.with_suffix(".flow")
        self._size = size

    def read(self, keys: Collection[bytes]) -> dict[bytes, Tensor]:
        """Those of the pairs that are stored and undamaged: (2, H, W) each."""
        try:
            with _opened(self._index, os.O_RDONLY) as index, _opened(self._flow, os.O_RDONLY) as file:
                return self._read(file, _entries(_contents(index), keys), keys)
        except FileNotFoundError:
            return {}

    def add(self, new: dict[bytes, Tensor]) -> dict[bytes, Tensor]:
        """Stores pairs that are not stored yet; returns those that are."""
        packed = {key: _pack(pair) for key, pair in new.items()}  # before others have to wait
        self._index.parent.mkdir(parents=True, exist_ok=True)
        writing = os.O_RDWR | os.O_CREAT
        with _opened(self._index, writing) as index, _opened(self._flow, writing) as file, _locked(index):
            contents = _contents(index)
            places = _entries(contents)
            stored = self._read(file, places, new)
            index_end = len(contents) - len(contents) % _ENTRY.size
            flow_end = max((place.offset + place.size for place in places.values()), default=0)
            fields, entries, offset = [], [], flow_end
            for key, data in packed.items():
                if key not in stored:
                    fields.append(data)
                    entries.append(_entry(key, _Place(offset, len(data), zlib.crc32(data))))
                    offset += len(data)
            try:
                _write(file, flow_end, b"".join(fields))
                _write(index, index_end, b"".join(entries))
            except OSError:
                os.ftruncate(index, index_end)
                os.ftruncate(file, flow_end)
                raise
        return stored

    def _read(self, file: int, places: dict[bytes, _Place], keys: Collection[bytes]) -> dict[bytes, Tensor]:
        found = {}
        for key in keys:
            if key in places:
                offset, size, checksum = places[key]
                data = os.pread(file, size, offset)
                if len(data) == size and zlib.crc32(data) == checksum:
                    found[key] = _unpack(data, self._size)
        return found


@contextmanager
def _opened(path: Path, flags: int) -> Generator[int]:
    file = os.open(path, flags, 0o666)
    try:
        yield file
    finally:
        os.close(file)


@contextmanager
def _locked(file: int) -> Generator[None]:
    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        # Closing would not do: a process forked meanwhile holds the file open, and with it the lock.
        fcntl.flock(file, fcntl.LOCK_UN)


def _contents(file: int) -> bytes:
    return os.pread(file, os.fstat(file).st_size, 0)


def _write(file: int, offset: int, data: bytes) -> None:
    while data:
        written = os.pwrite(file, data, offset)
        data, offset = data[written:], offset + written


def _entry(key: bytes, place: _Place) -> bytes:
    entry = _ENTRY.pack(key, *place, 0)[:-4]
    return entry + struct.pack("<I", zlib.crc32(entry))


def _entries(index: bytes, keys: Collection[bytes] | None = None) -> dict[bytes, _Place]:
    """What an index says of some pairs, or of all.

    Of two entries for one pair the later one holds: it was written because the first was bad.
    """
    places = {}
    for start in range(0, len(index) - _ENTRY.size + 1, _ENTRY.size):
        if keys is not None and index[start : start + _KEY.size] not in keys:  # long videos have ten thousands
            continue
        key, *place, checksum = _ENTRY.unpack_from(index, start)
        if zlib.crc32(index[start : start + _ENTRY.size - 4]) == checksum:
            places[key] = _Place(*place)
    return places


def _pack(pair: Tensor) -> bytes:
    """(2, H, W) uint8 -> differences between rows, by Huffman codes alone.

    Of 320 x 240 pixels: 27 to 36 KB, 0.9 ms to pack and 0.5 ms to unpack; by zlib's level 1 without differences 31 to
    57 KB, 1.2 and 0.4 ms; differences between columns need 3 % more bytes.
    """
    differences = pair.diff(dim=-2, prepend=torch.zeros_like(pair[:, :1]))
    compressor = zlib.compressobj(1, strategy=zlib.Z_HUFFMAN_ONLY)
    return compressor.compress(differences.numpy().tobytes()) + compressor.flush()


def _unpack(data: bytes, size: tuple[int, ...]) -> Tensor:
    differences = torch.frombuffer(bytearray(zlib.decompress(data)), dtype=torch.uint8).view(2, *size)
    return differences.cumsum(dim=-2, dtype=torch.uint8)


def _keys(frame_indices: Tensor, frames: Tensor) -> list[list[bytes]]:
    """For each clip, the key of each pair."""
    keys = []
    for numbers, clip in zip(frame_indices.tolist(), frames.detach().cpu().contiguous().view(torch.uint8), strict=True):
        ends = list(zip(numbers, (zlib.crc32(frame.numpy()) for frame in clip), strict=True))
        keys.append([_KEY.pack(*first, *second) for first, second in zip(ends[:-1], ends[1:], strict=True)])
    return keys


def _check(frame_indices: Tensor, frames: Tensor) -> None:
    for name, value in (("frame_indices", frame_indices), ("frames", frames)):
        if not isinstance(value, Tensor):
            raise TypeError(f"FlowCache.flow: {name} must be a torch.Tensor; got {type(value).__name__}")
    if frames.dim() != 5 or frames.shape[1] == 0:
        raise ValueError(f"FlowCache.flow: frames must be [S, T, C, H, W] with T >= 1; got {list(frames.shape)}")
    if frame_indices.shape != frames.shape[:2] or frame_indices.is_floating_point():
        raise ValueError(
            f"FlowCache.flow: frame_indices must be integers {list(frames.shape[:2])}, as frames have it; "
            f"got {frame_indices.dtype} {list(frame_indices.shape)}"
        )
