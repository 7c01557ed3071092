"""Which frames of a video a network sees: pure functions from a number of frames to frame indices.

Each gives int64 indices `(samples, length)`, a row for each input of the network, 0-based and always inside the
video: `video.frames(indices.flatten()).unflatten(0, indices.shape)` is `(samples, length, C, H, W)`. Where a window
reads past the end of a short video the last frame repeats; only `clip_indices` starts over instead.

================================ ==============================================================================
input                            indices
================================ ==============================================================================
one frame or stack, training     `segment_indices(frames, 1, length=length)`
25 frames or stacks, test        `even_indices(frames, 25, length=length)`
MotionNet, training, validation  `segment_indices(frames, 1, length=11, mode=mode)`
MotionNet, test                  `even_indices(frames, 25, length=11, endpoint=False)`
TSN                              `segment_indices(frames, 3, mode=mode)`; 25 segments to test
TSN, test as its Caffe release   `even_indices(frames, 25)`
TRN                              `segment_indices(frames, 8, mode=mode)`
I3D                              `clip_indices(frames, 64, mode=mode)` of a video at 25 fps, see `resample_indices`
SG3I                             `sg3i_indices(frames, shots, mode=mode)`
SG3I, sampled data set           `window_indices(frames, length=3, step=6)` of a video at 6 fps
================================ ==============================================================================

`length` counts what is read. L fields of flow that are computed on the fly come from L + 1 frames.

Papers, by number: 000 Cao et al., cross-enhancement, 2019; 001 Zhang et al., CCS, 2019; 002 Zhu et al., hidden
two-stream, 2018; 003 Devarakonda et al., SG3I and FuseNet; 004 Simonyan and Zisserman, two-stream, 2014.
"""

import math
from numbers import Integral
from typing import Literal, get_args

import torch
from torch import Tensor

Mode = Literal["train", "validation", "test"]

# Two frames are equally near if their distances differ by less, in seconds: a tick of MPEG's clock is ten times as
# much, and float64 holds the time of a day 10^4 times as exactly.
_TIE = 1e-6


def resample_indices(timestamps: Tensor, fps: float) -> Tensor:
    """Chooses the frames of a video as if it had been recorded at another rate: frame j is the one nearest j / fps.

    Time counts from the first frame. The last frame is taken to last as long as the mean one, and as many frames
    are chosen as fit the whole, rounded to the nearest number (half up), but at least one. Of two frames equally
    near, the earlier. Frames repeat where the video is slower than `fps`.

    Index the result with indices of the other functions to sample at that rate. Paper 000, 4.3, and I3D (Carreira
    and Zisserman, 2017) use 25 fps, the sampled data set of paper 003, III-A, 6 fps.

    Args:
        timestamps: ``(T,)``, when each frame is shown, in seconds, never decreasing: `Reader.timestamps`, or
            ``torch.arange(T, dtype=torch.float64) / rate`` for a folder of frames. Computed in float64.
        fps: finite, > 0.

    Returns:
        ``(frames at fps,)`` int64, never decreasing, on timestamps' device.

    Raises:
        TypeError: timestamps is not a tensor.
        ValueError: timestamps is empty, not 1-dimensional, not finite or decreases somewhere; fps is not as above.

    Example:
        >>> from pyaction.data import sampling
        >>> at_25 = sampling.resample_indices(torch.arange(12, dtype=torch.float64) / 30, 25)
        >>> at_25.tolist()
        [0, 1, 2, 4, 5, 6, 7, 8, 10, 11]
        >>> at_25[sampling.clip_indices(len(at_25), 4, mode="validation")]
        tensor([[4, 5, 6, 7]])
    """
    _check_timestamps(timestamps)
    if not (math.isfinite(fps) and fps > 0):
        raise ValueError(f"resample_indices: fps must be a finite number > 0; got {fps}")
    frames = len(timestamps)
    times = timestamps.to(torch.float64)
    times = times - times[0]
    duration = times[-1].item() * frames / max(frames - 1, 1)
    count = max(math.floor(duration * fps + 0.5), 1)
    wanted = torch.arange(count, dtype=torch.float64, device=times.device) / fps
    later = torch.searchsorted(times, wanted).clamp(max=frames - 1)  # the first frame at or after each wanted time
    earlier = (later - 1).clamp(min=0)
    return torch.where(times[later] - wanted < wanted - times[earlier] - _TIE, later, earlier)


def clip_indices(
    frames: int, length: int = 64, *, mode: Mode = "train", generator: torch.Generator | None = None
) -> Tensor:
    """Takes one dense clip of neighbouring frames, as I3D does; a video shorter than the clip starts over.

    ============== =======================================================================================
    mode           start, and frame i of the clip
    ============== =======================================================================================
    `"train"`      start uniform in 0..T - length; frame (start + i) mod T
    `"validation"` the centre clip: start = floor((T - length) / 2); frame (start + i) mod T
    `"test"`       the whole video, i = 0..max(T, length) - 1; frame i mod T
    ============== =======================================================================================

    With T < length, start is 0 in every mode. Carreira and Zisserman, 2017 (64 frames in training, the whole video
    in testing, short videos looped); paper 000, 4.3: 64 frames. No source names a clip for validation, nor the looping
    of short videos in tests: the network needs its frames there too.

    Args:
        frames: T, at least 1, at the rate that the network was made for, see `resample_indices`.
        length: at least 1.
        mode: one of the table's names.
        generator: for `"train"`; None is torch's global one.

    Returns:
        ``(1, length)`` int64, and ``(1, max(T, length))`` in mode `"test"`.

    Raises:
        ValueError: a number below 1, or another mode.

    Example:
        >>> from pyaction.data import sampling
        >>> sampling.clip_indices(3, 8, mode="validation")
        tensor([[0, 1, 2, 0, 1, 2, 0, 1]])
    """
    _check("clip_indices", mode, frames=frames, length=length)
    slack = max(frames - length, 0)
    if mode == "test":
        start, length = 0, max(frames, length)
    else:
        start = int(torch.randint(slack + 1, (), generator=generator)) if mode == "train" else slack // 2
    return (start + torch.arange(length)).remainder(frames).unsqueeze(0)


def segment_indices(
    frames: int, segments: int, *, length: int = 1, mode: Mode = "train", generator: torch.Generator | None = None
) -> Tensor:
    """Takes a window from each of `segments` equal parts of the video, as TSN, TRN and paper 001 do.

    With T = frames, K = segments, L = length and n = T - L + 1 possible starts, segment k = 0..K - 1 begins at

    ============== =======================================================================================
    mode           start
    ============== =======================================================================================
    `"train"`      k · floor(n / K) + a uniform number below floor(n / K);
                   where n < K < T: K uniform numbers below n, sorted; where n < K and T <= K: 0
    `"validation"` floor(n / (2K) + k · n / K), the centre of each part; where n <= K: 0
    `"test"`       floor(n / (2K) + k · n / K)
    ============== =======================================================================================

    and everywhere at 0 where L > T, so that the last frame repeats. The centres are computed in float64 in this
    very order, as the source does: with K = 25 about one in two hundred is the frame before the exact centre.

    TSN (Wang et al., 2016) by yjxiong/tsn-pytorch, whose unsorted single number for n < K is the K sorted numbers
    of TRN (Zhou et al., 2018, zhoubolei/TRN-pytorch). Paper 001, 4.2: 3 segments in training and 25 in
    testing. K = 1 is the random start and the centre of MotionNet's 11 frames (paper 002, by the release's
    prototxt), and the random frame or stack that paper 004 trains on.

    Args:
        frames: T, at least 1.
        segments: K, at least 1; 3 for TSN's training, 25 for its test, 8 for TRN.
        length: L, at least 1, frames or flow fields per window.
        mode: one of the table's names.
        generator: for `"train"`; None is torch's global one.

    Returns:
        ``(K, L)`` int64, never decreasing along a row nor down a column.

    Raises:
        ValueError: a number below 1, or another mode.

    Example:
        >>> from pyaction.data import sampling
        >>> sampling.segment_indices(20, 3, length=5, mode="test")
        tensor([[ 2,  3,  4,  5,  6],
                [ 8,  9, 10, 11, 12],
                [13, 14, 15, 16, 17]])
    """
    _check("segment_indices", mode, frames=frames, segments=segments, length=length)
    starts = max(frames - length + 1, 1)
    if mode == "train":
        chosen = _random_starts(frames, segments, starts, generator)
    elif mode == "validation" and starts <= segments:
        chosen = torch.zeros(segments, dtype=torch.int64)
    else:
        tick = starts / segments
        chosen = torch.tensor([int(tick / 2 + tick * k) for k in range(segments)])
    return _windows(chosen, length, frames)


def even_indices(
    frames: int,
    samples: int = 25,
    *,
    length: int = 1,
    endpoint: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Takes `samples` windows at equal steps from the first frame on, as the two-stream networks' tests do.

    Window k = 0..K - 1 begins at k · step, with T = frames, K = samples and L = length:

    ======== ========================== ================================================================
    endpoint step                       source
    ======== ========================== ================================================================
    True     floor((T - L) / (K - 1))   TSN's Caffe release; "equal temporal spacing" in paper 004
    False    floor((T - L + 1) / K)     paper 002 by its release: L = 11, K = 25
    ======== ========================== ================================================================

    As in `numpy.linspace`, endpoint says whether the last window is meant to lie at the end of the video, which
    it does up to the rounding of the step. With K = 1, or where the step comes out as 0 or less, every window
    begins at 0.

    Args:
        frames: T, at least 1.
        samples: K, at least 1.
        length: L, at least 1, frames or flow fields per window.
        endpoint: see the table.
        generator: not used; taken because `ClipSpec` gives one to every function here.

    Returns:
        ``(K, L)`` int64, never decreasing along a row nor down a column.

    Raises:
        ValueError: a number below 1.

    Example:
        >>> from pyaction.data import sampling
        >>> sampling.even_indices(101, 25, length=5)[:3]
        tensor([[ 0,  1,  2,  3,  4],
                [ 4,  5,  6,  7,  8],
                [ 8,  9, 10, 11, 12]])
    """
    _check("even_indices", frames=frames, samples=samples, length=length)
    step = (frames - length) // max(samples - 1, 1) if endpoint else (frames - length + 1) // samples
    return _windows(torch.arange(samples) * max(step, 0), length, frames)


def window_indices(frames: int, *, length: int, step: int, generator: torch.Generator | None = None) -> Tensor:
    """Takes every whole window of `length` frames that begins at a multiple of `step`.

    There are floor((T - length) / step) + 1; a video shorter than a window gives one, its last frame repeated.

    Paper 003, III-A: mode 2 samples at 6 fps with 1 second between samples, hence every sixth frame of a video at
    6 fps; mode 1 uses every frame, hence step 1 at the video's own rate. How many frames make a sample there is
    not written: 3 for the temporal stream (one SG3I) and 1 for the spatial one follow from the networks' inputs.

    Args:
        frames: T, at least 1.
        length: at least 1.
        step: from one start to the next, in frames, at least 1; `length` for windows side by side.
        generator: not used; taken because `ClipSpec` gives one to every function here.

    Returns:
        ``(windows, length)`` int64, never decreasing along a row nor down a column.

    Raises:
        ValueError: a number below 1.

    Example:
        >>> from pyaction.data import sampling
        >>> at_6 = sampling.resample_indices(torch.arange(60, dtype=torch.float64) / 30, 6)  # two seconds
        >>> at_6[sampling.window_indices(len(at_6), length=3, step=6)]
        tensor([[ 0,  5, 10],
                [30, 35, 40]])
    """
    _check("window_indices", frames=frames, length=length, step=step)
    return _windows(torch.arange(0, max(frames - length, 0) + 1, step), length, frames)


def sg3i_indices(
    frames: int, shots: int = 1, *, mode: Mode = "train", generator: torch.Generator | None = None
) -> Tensor:
    """Takes three frames from each of `shots` equal sub-shots: the channels of a stacked grayscale 3-channel image.

    The video is cut into K = 3 · shots equal parts, part k = 0..K - 1 from frame floor(k · T / K) to the frame
    before floor((k + 1) · T / K), and at least one frame long. A frame comes from each:

    ======================== =============================================================
    mode                     frame
    ======================== =============================================================
    `"train"`                a uniform one of the part
    `"validation"`, `"test"` floor((2k + 1) · T / (2K)), the middle of the part
    ======================== =============================================================

    Kim and Won, 2020: three frames at three times for a video, or for each of its sub-shots; paper 003, III-C: one
    image per video. Which times is written in neither: equal thirds show the whole action, however long it takes.

    Args:
        frames: T, at least 1.
        shots: images per video, at least 1; 10 in Kim and Won's tests by paper 003, V-B.
        mode: one of the table's names.
        generator: for `"train"`; None is torch's global one.

    Returns:
        ``(shots, 3)`` int64, never decreasing in reading order.

    Raises:
        ValueError: a number below 1, or another mode.

    Example:
        >>> from pyaction.data import sampling
        >>> sampling.sg3i_indices(12, shots=2, mode="test")
        tensor([[ 1,  3,  5],
                [ 7,  9, 11]])
    """
    _check("sg3i_indices", mode, frames=frames, shots=shots)
    parts = 3 * shots
    if mode == "train":
        edges = torch.arange(parts + 1) * frames // parts
        # torch.randint knows one width only. In float32 the largest number below 1 times a width may give the width.
        place = torch.rand(parts, dtype=torch.float64, generator=generator)
        chosen = edges[:-1] + (place * edges.diff()).long()
    else:
        chosen = (2 * torch.arange(parts) + 1) * frames // (2 * parts)
    return chosen.view(shots, 3)


def _random_starts(frames: int, segments: int, starts: int, generator: torch.Generator | None) -> Tensor:
    """Row "train" of `segment_indices`: (segments,) int64."""
    width = starts // segments
    if width > 0:
        return torch.arange(segments) * width + torch.randint(width, (segments,), generator=generator)
    if frames > segments:
        return torch.randint(starts, (segments,), generator=generator).sort().values
    return torch.zeros(segments, dtype=torch.int64)


def _windows(starts: Tensor, length: int, frames: int) -> Tensor:
    """`length` neighbouring frames from each start, the last frame of the video repeated past its end."""
    return (starts.unsqueeze(1) + torch.arange(length)).clamp(max=frames - 1)


def _check(caller: str, mode: str = "train", **counts: int) -> None:
    for name, count in counts.items():
        if not isinstance(count, Integral) or count < 1:
            raise ValueError(f"{caller}: {name} must be a whole number of at least 1; got {count!r}")
    if mode not in get_args(Mode):
        raise ValueError(f"{caller}: mode must be 'train', 'validation' or 'test'; got {mode!r}")


def _check_timestamps(timestamps: Tensor) -> None:
    who = "resample_indices: timestamps must"
    if not isinstance(timestamps, Tensor):
        raise TypeError(f"{who} be a torch.Tensor [T]; got {type(timestamps).__name__}")
    if timestamps.ndim != 1 or len(timestamps) == 0:
        raise ValueError(
            f"{who} have one dimension, [T], with a time for at least one frame; got {[*timestamps.shape]}"
        )
    if not timestamps.isfinite().all():
        raise ValueError(f"{who} be finite seconds; got NaN or inf")
    if (timestamps.diff() < 0).any():
        first = int((timestamps.diff() < 0).nonzero()[0])
        pair = timestamps[first : first + 2].tolist()
        raise ValueError(f"{who} never decrease; got {pair[0]} and then {pair[1]} at frame {first + 1}")
