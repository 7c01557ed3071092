"""Frame indices against tables worked out by hand from the formulas, and what holds for every video."""

import re

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from pyaction.data import sampling

MODES = ["train", "validation", "test"]
FRAMES, COUNT, SEED = st.integers(1, 400), st.integers(1, 40), st.integers(0, 2**32)


def at_rate(frames, rate):
    return torch.arange(frames, dtype=torch.float64) / rate


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def many(sample, draws=200):
    """What `sample(generator)` gives, as a set of tuples of rows."""
    generator = seeded(5)
    return {tuple(map(tuple, sample(generator).tolist())) for _ in range(draws)}


@pytest.mark.parametrize(
    ("timestamps", "fps", "expected"),
    [
        # 12 frames at 30 last 0.4 s: 10 frames at 25; frame j is the one nearest 1.2 j.
        (at_rate(12, 30), 25, [0, 1, 2, 4, 5, 6, 7, 8, 10, 11]),
        # 6 frames at 15 last 0.4 s; nearest 0.6 j: 0, 0.6, 1.2, 1.8, 2.4, 3, 3.6, 4.2, 4.8, 5.4.
        (at_rate(6, 15), 25, [0, 1, 1, 2, 2, 3, 4, 4, 5, 5]),
        (at_rate(6, 50), 25, [0, 2, 4]),
        (at_rate(5, 25), 25, [0, 1, 2, 3, 4]),
        # 32 frames at 30 hold 6.4 frames at 6, rounded to 6; 33 hold 6.6, rounded to 7.
        (at_rate(32, 30), 6, [0, 5, 10, 15, 20, 25]),
        (at_rate(33, 30), 6, [0, 5, 10, 15, 20, 25, 30]),
        # Ties, at 0.5, 1.5: the earlier frame, though 0.04, 0.08 and 0.16 are no exact numbers.
        (at_rate(3, 12.5), 25, [0, 0, 1, 1, 2, 2]),
        (at_rate(400, 10), 20, [frame for frame in range(400) for _ in range(2)]),
        # Variable rate. 0.38 s and a mean frame of 0.095 s: 4.75, so 5 frames, at 0, 0.1, 0.2, 0.3 and 0.4 of
        # 0, 0.04, 0.30, 0.34, 0.38. The clock starts at 10 s, and a gap is filled by its ends.
        (torch.tensor([10, 10.04, 10.30, 10.34, 10.38], dtype=torch.float64), 10, [0, 1, 2, 2, 4]),
        # Two frames at one time: the tie at 0.05 is between the second of them and the third.
        (torch.tensor([0.0, 0.0, 0.1]), 20, [0, 1, 2]),
        (torch.tensor([7.5]), 25, [0]),
        (torch.tensor([3, 3, 3]), 25, [0]),
        # Whole seconds, 3 of them: 2 frames at 0.5 last 4 s, 1.5 of them are 3 s. Half up.
        (torch.tensor([4, 5, 6]), 0.5, [0, 2]),
    ],
)
def test_resample_known_value(timestamps, fps, expected):
    indices = sampling.resample_indices(timestamps, fps)
    assert indices.dtype == torch.int64 and indices.tolist() == expected


@given(frames=FRAMES, rate=st.sampled_from([24, 25, 30000 / 1001, 12.5, 60]), start=st.floats(-9, 1e5))
def test_own_rate_changes_nothing(frames, rate, start):
    assert sampling.resample_indices(start + at_rate(frames, rate), rate).tolist() == list(range(frames))


@given(gaps=st.lists(st.floats(0, 0.5), max_size=60), fps=st.floats(0.5, 60))
def test_resample_is_nearest(gaps, fps):
    times = torch.tensor([0.0, *gaps], dtype=torch.float64).cumsum(0)
    indices = sampling.resample_indices(times, fps)
    count, duration = len(indices), times[-1].item() * len(times) / max(len(gaps), 1)
    assert abs(count - duration * fps) <= 0.5 + 1e-9 or (count == 1 and duration * fps < 0.5)
    distance = (torch.arange(count) / fps - times[:, None]).abs()  # [T, count]
    assert (distance[indices, torch.arange(count)] <= distance.amin(0) + 2e-6).all()
    assert (indices.diff() >= 0).all()


@pytest.mark.parametrize(
    ("frames", "length", "mode", "expected"),
    [
        (100, 64, "validation", list(range(18, 82))),  # 36 frames left over, 18 before
        (9, 4, "validation", [2, 3, 4, 5]),  # 5 left over: 2 before, 3 after
        (5, 12, "validation", [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]),
        (5, 12, "train", [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]),
        (7, 7, "train", [0, 1, 2, 3, 4, 5, 6]),
        (5, 12, "test", [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]),
        (70, 64, "test", list(range(70))),
        (1, 3, "train", [0, 0, 0]),
    ],
)
def test_clip_known_value(frames, length, mode, expected):
    indices = sampling.clip_indices(frames, length, mode=mode)
    assert indices.dtype == torch.int64 and indices.tolist() == [expected]


def test_clip_starts_everywhere():
    drawn = many(lambda generator: sampling.clip_indices(66, generator=generator))
    assert drawn == {(tuple(range(start, start + 64)),) for start in (0, 1, 2)}


@pytest.mark.parametrize(
    ("frames", "segments", "length", "mode", "starts"),
    [
        (10, 3, 1, "test", [1, 5, 8]),  # tick 10/3: 1.67, 5, 8.33
        (10, 3, 1, "validation", [1, 5, 8]),
        (20, 3, 5, "test", [2, 8, 13]),  # 16 starts, tick 5.33: 2.67, 8, 13.33
        (75, 25, 1, "test", list(range(1, 75, 3))),  # 1.5 + 3 k
        # 0.2 + 0.4 k: 0.2, 0.6 | 1.0, 1.4, 1.8 | 2.2, 2.6 | 3.0, 3.4, 3.8 | 4.2, 4.6 | and 5 more of each
        (10, 25, 1, "test", [0, 0, 1, 1, 1, 2, 2, 3, 3, 3, 4, 4, 5, 5, 5, 6, 6, 7, 7, 7, 8, 8, 9, 9, 9]),
        (10, 25, 1, "validation", [0] * 25),
        (3, 3, 1, "validation", [0, 0, 0]),  # as many starts as segments: not enough in validation,
        (3, 3, 1, "test", [0, 1, 2]),  # 0.5, 1.5, 2.5
        (3, 3, 1, "train", [0, 1, 2]),  # but in training: parts of one frame
        (5, 3, 1, "train", [0, 1, 2]),  # floor(5/3) = 1: the tail is never seen
        (4, 3, 1, "validation", [0, 2, 3]),  # tick 4/3: 0.67, 2, 3.33
        (4, 3, 2, "validation", [0, 0, 0]),
        (4, 3, 2, "train", [0, 1, 2]),
        (4, 4, 2, "train", [0, 0, 0, 0]),  # 3 starts for 4 segments, and no more frames than segments
        (6, 5, 6, "train", [0, 0, 0, 0, 0]),  # more frames than segments, but one start
        (60, 8, 1, "test", [3, 11, 18, 26, 33, 41, 48, 56]),  # TRN, tick 7.5: 3.75, 11.25, 18.75, ...
        (8, 8, 1, "train", [0, 1, 2, 3, 4, 5, 6, 7]),
        (60, 1, 11, "validation", [25]),  # MotionNet: 50 starts
        (11, 1, 11, "validation", [0]),
        (11, 1, 11, "train", [0]),
        (2, 3, 2, "test", [0, 0, 0]),
    ],
)
def test_segments_known_value(frames, segments, length, mode, starts):
    indices = sampling.segment_indices(frames, segments, length=length, mode=mode)
    assert indices.dtype == torch.int64
    assert indices.tolist() == [list(range(start, start + length)) for start in starts]


def test_segments_round_as_their_source():
    # 30 / 25 = 1.2 is stored as a little less: 0.6 + 1.2 · 12 falls short of 15, and 0.6 + 1.2 · 2 = 3 does not.
    indices = sampling.segment_indices(30, 25, mode="test").flatten().tolist()
    assert indices[2] == 3 and indices[12] == 14


@pytest.mark.parametrize("mode", MODES)
def test_segments_of_a_short_video_repeat_its_last_frame(mode):
    assert sampling.segment_indices(5, 1, length=11, mode=mode).tolist() == [[0, 1, 2, 3, *[4] * 7]]
    assert sampling.segment_indices(2, 3, length=4, mode=mode).tolist() == [[0, 1, 1, 1]] * 3
    assert sampling.segment_indices(1, 3, mode=mode).tolist() == [[0]] * 3


def test_segments_start_everywhere_in_their_part():
    drawn = many(
        lambda generator: sampling.segment_indices(6, 2, length=2, generator=generator)
    )  # 5 starts, parts of 2
    assert drawn == {((a, a + 1), (b, b + 1)) for a in (0, 1) for b in (2, 3)}
    drawn = many(lambda generator: sampling.segment_indices(13, 1, length=11, generator=generator))
    assert drawn == {(tuple(range(start, start + 11)),) for start in (0, 1, 2)}


def test_few_starts_are_drawn_sorted():
    # 2 starts for 3 segments, but 4 frames
    drawn = many(lambda generator: sampling.segment_indices(4, 3, length=3, generator=generator)[:, :1])
    assert drawn == {((0,), (0,), (0,)), ((0,), (0,), (1,)), ((0,), (1,), (1,)), ((1,), (1,), (1,))}


@pytest.mark.parametrize(
    ("frames", "samples", "length", "endpoint", "starts"),
    [
        (100, 25, 1, True, list(range(0, 97, 4))),  # 99 / 24 = 4.1
        (97, 25, 1, True, list(range(0, 97, 4))),  # 96 / 24: the last is the last frame
        (96, 25, 1, True, list(range(0, 73, 3))),  # 95 / 24 = 3.96
        (24, 25, 1, True, [0] * 25),  # 23 / 24
        (101, 25, 5, True, list(range(0, 97, 4))),
        (9, 1, 3, True, [0]),
        (9, 2, 3, True, [0, 6]),
        (60, 25, 11, False, list(range(0, 49, 2))),  # 50 / 25
        (59, 25, 11, False, list(range(25))),  # 49 / 25
        (35, 25, 11, False, list(range(25))),  # 25 / 25
        (34, 25, 11, False, [0] * 25),
        (9, 1, 3, False, [0]),
        (9, 2, 3, False, [0, 3]),  # 7 / 2
    ],
)
def test_even_known_value(frames, samples, length, endpoint, starts):
    indices = sampling.even_indices(frames, samples, length=length, endpoint=endpoint)
    assert indices.dtype == torch.int64
    assert indices.tolist() == [list(range(start, start + length)) for start in starts]


@pytest.mark.parametrize("endpoint", [True, False])
def test_even_repeats_the_last_frame(endpoint):
    indices = sampling.even_indices(4, 25, length=11, endpoint=endpoint)
    assert indices.tolist() == [[0, 1, 2, *[3] * 8]] * 25


@pytest.mark.parametrize(
    ("frames", "length", "step", "expected"),
    [
        (10, 3, 6, [[0, 1, 2], [6, 7, 8]]),
        (9, 3, 6, [[0, 1, 2], [6, 7, 8]]),
        (8, 3, 6, [[0, 1, 2]]),
        (5, 2, 2, [[0, 1], [2, 3]]),
        (4, 3, 1, [[0, 1, 2], [1, 2, 3]]),
        (3, 1, 1, [[0], [1], [2]]),
        (2, 4, 5, [[0, 1, 1, 1]]),
        (1, 1, 3, [[0]]),
    ],
)
def test_windows_known_value(frames, length, step, expected):
    indices = sampling.window_indices(frames, length=length, step=step)
    assert indices.dtype == torch.int64 and indices.tolist() == expected


def test_sampled_data_set_of_paper_003():
    # 75 frames at 30: 15 at 6, every fifth; an image of three begins each second, while three are left.
    at_6 = sampling.resample_indices(at_rate(75, 30), 6)
    assert at_6[sampling.window_indices(len(at_6), length=3, step=6)].tolist() == [
        [0, 5, 10],
        [30, 35, 40],
        [60, 65, 70],
    ]


@pytest.mark.parametrize("mode", ["validation", "test"])
@pytest.mark.parametrize(
    ("frames", "shots", "expected"),
    [
        (9, 1, [[1, 4, 7]]),  # (2k + 1) 9 / 6: 1.5, 4.5, 7.5
        (90, 1, [[15, 45, 75]]),
        (12, 2, [[1, 3, 5], [7, 9, 11]]),  # (2k + 1) 12 / 12
        (20, 2, [[1, 5, 8], [11, 15, 18]]),  # (2k + 1) 20 / 12: 1.67, 5, 8.33, 11.67, 15, 18.33
        (2, 1, [[0, 1, 1]]),  # 0.33, 1, 1.67
        (1, 2, [[0, 0, 0], [0, 0, 0]]),
    ],
)
def test_sg3i_known_value(frames, shots, expected, mode):
    indices = sampling.sg3i_indices(frames, shots, mode=mode)
    assert indices.dtype == torch.int64 and indices.tolist() == expected


def test_sg3i_takes_every_frame_of_its_third():
    # Parts of 5 frames begin at 0, floor(5/3) = 1 and floor(10/3) = 3.
    drawn = many(lambda generator: sampling.sg3i_indices(5, generator=generator))
    assert drawn == {((0, b, c),) for b in (1, 2) for c in (3, 4)}
    # Two frames for three parts, at 0, 0 and 1.
    assert sampling.sg3i_indices(2).tolist() == [[0, 0, 1]]
    assert sampling.sg3i_indices(3).tolist() == [[0, 1, 2]]


def check(indices, shape, frames, sorted_along=()):
    assert indices.shape == shape and indices.dtype == torch.int64
    assert 0 <= indices.min() and indices.max() < frames
    for dim in sorted_along:
        assert (indices.diff(dim=dim) >= 0).all()


@given(frames=FRAMES, length=COUNT, mode=st.sampled_from(MODES), seed=SEED)
@example(frames=1, length=5, mode="train", seed=3)
def test_clip_of_any_video(frames, length, mode, seed):
    indices = sampling.clip_indices(frames, length, mode=mode, generator=seeded(seed))
    check(indices, (1, max(frames, length) if mode == "test" else length), frames)
    assert torch.equal(indices, sampling.clip_indices(frames, length, mode=mode, generator=seeded(seed)))
    # Each frame follows its neighbour, but for the first, which follows the last.
    assert (indices.diff() == 1).logical_or((indices[:, 1:] == 0) & (indices[:, :-1] == frames - 1)).all()


@given(frames=FRAMES, segments=COUNT, length=COUNT, mode=st.sampled_from(MODES), seed=SEED)
@example(frames=1, segments=4, length=5, mode="train", seed=3)
@example(frames=30, segments=25, length=29, mode="train", seed=3)
def test_segments_of_any_video(frames, segments, length, mode, seed):
    indices = sampling.segment_indices(frames, segments, length=length, mode=mode, generator=seeded(seed))
    check(indices, (segments, length), frames, sorted_along=(0, 1))
    again = sampling.segment_indices(frames, segments, length=length, mode=mode, generator=seeded(seed))
    assert torch.equal(indices, again)
    if frames >= length:  # whole windows
        assert (indices.diff(dim=1) == 1).all()


@given(frames=FRAMES, samples=COUNT, length=COUNT, endpoint=st.booleans())
@example(frames=1, samples=4, length=5, endpoint=True)
def test_even_samples_of_any_video(frames, samples, length, endpoint):
    indices = sampling.even_indices(frames, samples, length=length, endpoint=endpoint)
    check(indices, (samples, length), frames, sorted_along=(0, 1))
    assert indices[0, 0] == 0 and len(set(indices[:, 0].diff().tolist())) <= 1
    if frames >= length:
        assert (indices.diff(dim=1) == 1).all()


@given(frames=FRAMES, length=COUNT, step=COUNT)
@example(frames=1, length=3, step=5)
def test_windows_of_any_video(frames, length, step):
    indices = sampling.window_indices(frames, length=length, step=step)
    fitting = [start for start in range(0, frames, step) if start + length <= frames]
    check(indices, (max(len(fitting), 1), length), frames, sorted_along=(0, 1))
    assert indices[:, 0].tolist() == (fitting or [0])


@given(frames=FRAMES, shots=COUNT, mode=st.sampled_from(MODES), seed=SEED)
@example(frames=1, shots=4, mode="train", seed=3)
def test_sg3i_of_any_video(frames, shots, mode, seed):
    indices = sampling.sg3i_indices(frames, shots, mode=mode, generator=seeded(seed))
    check(indices, (shots, 3), frames)
    assert (indices.flatten().diff() >= 0).all()
    assert torch.equal(indices, sampling.sg3i_indices(frames, shots, mode=mode, generator=seeded(seed)))
    if frames >= 3 * shots:
        assert (indices.flatten().diff() > 0).all()


def test_no_generator_means_the_global_one():
    for sample in (
        lambda: sampling.clip_indices(900, 4),
        lambda: sampling.segment_indices(900, 3),
        lambda: sampling.segment_indices(45, 40, length=7),
        lambda: sampling.sg3i_indices(900, 3),
    ):
        torch.manual_seed(11)
        first, other = sample(), sample()
        torch.manual_seed(11)
        assert torch.equal(sample(), first) and not torch.equal(first, other)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sampling.clip_indices(0), "clip_indices: frames must be a whole number of at least 1; got 0"),
        (lambda: sampling.clip_indices(9, -2), "clip_indices: length must be a whole number of at least 1; got -2"),
        (
            lambda: sampling.clip_indices(9, mode="val"),
            "clip_indices: mode must be 'train', 'validation' or 'test'; got 'val'",
        ),
        (lambda: sampling.segment_indices(0, 3), "segment_indices: frames must be a whole number of at least 1; got 0"),
        (lambda: sampling.segment_indices(9, 0), "segment_indices: segments must be a whole number of at least 1"),
        (lambda: sampling.segment_indices(9, 3, length=0), "segment_indices: length must be"),
        (lambda: sampling.segment_indices(9, 3, mode="Test"), "segment_indices: mode must be"),
        (lambda: sampling.even_indices(0), "even_indices: frames must be a whole number of at least 1; got 0"),
        (lambda: sampling.even_indices(7, 2.5), "even_indices: samples must be a whole number of at least 1; got 2.5"),
        (lambda: sampling.even_indices(7, length=0), "even_indices: length must be"),
        (lambda: sampling.window_indices(-1, length=3, step=6), "window_indices: frames must be"),
        (lambda: sampling.window_indices(7, length=0, step=6), "window_indices: length must be"),
        (lambda: sampling.window_indices(7, length=3, step=0), "window_indices: step must be"),
        (lambda: sampling.sg3i_indices(0), "sg3i_indices: frames must be"),
        (lambda: sampling.sg3i_indices(7, 0), "sg3i_indices: shots must be a whole number of at least 1; got 0"),
        (lambda: sampling.sg3i_indices(7, mode=""), "sg3i_indices: mode must be"),
        (
            lambda: sampling.resample_indices(torch.zeros(0), 25),
            "resample_indices: timestamps must have one dimension, [T], with a time for at least one frame; got [0]",
        ),
        (lambda: sampling.resample_indices(torch.zeros(2, 3), 25), "with a time for at least one frame; got [2, 3]"),
        (lambda: sampling.resample_indices(torch.tensor([0, torch.nan]), 25), "timestamps must be finite seconds; got"),
        (
            lambda: sampling.resample_indices(torch.tensor([0, 0.5, 0.25, 0]), 25),
            "timestamps must never decrease; got 0.5 and then 0.25 at frame 2",
        ),
        (lambda: sampling.resample_indices(torch.zeros(3), 0), "fps must be a finite number > 0; got 0"),
        (lambda: sampling.resample_indices(torch.zeros(3), float("inf")), "fps must be a finite number > 0; got inf"),
    ],
)  # fmt: skip
def test_rejects(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


def test_rejects_what_is_no_tensor():
    with pytest.raises(TypeError, match=r"timestamps must be a torch\.Tensor \[T\]; got list"):
        sampling.resample_indices([0.0, 0.04], 25)
