import dataclasses

import pytest
import torch

from pyaction.data import transforms as tr


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


CLIP = torch.zeros(4, 3, 8, 9)
FLOW = torch.zeros(4, 2, 8, 9)
CROP = tr.Crop((8, 9), 0, 0, 8, 8, 8)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: CROP(CLIP, "rgb"), ValueError, r"Crop: content must be 'frames', .* got 'rgb'"),
        (lambda: CROP([1.0], "frames"), TypeError, r"clip must be a torch\.Tensor; got list"),
        (lambda: CROP(CLIP[0, 0], "frames"), ValueError, r"clip must be \(\.\.\., C, H, W\).*got shape \[8, 9\]"),
        (lambda: CROP(CLIP[..., :0], "frames"), ValueError, r"with pixels in it; got shape \[4, 3, 8, 0\]"),
        (lambda: CROP(FLOW, "frames"), ValueError, r"frames must have 3 channels.*\[4, 2, 8, 9\]"),
        (lambda: CROP(CLIP, "flow"), ValueError, r"flow must have 2 channels, x and y, or 2L; got shape \[4, 3"),
        (lambda: CROP(FLOW.byte(), "flow"), ValueError, r"flow must be floating point.*got torch\.uint8"),
        (lambda: CROP(FLOW.long(), "encoded_flow"), ValueError, r"uint8 or floating point; got torch\.int64"),
        (lambda: CROP(CLIP[..., 1:], "frames"), ValueError, r"\(H, W\) that the crop is for, \(8, 9\); got"),
        (lambda: tr.Crop((8, 9), 1, 0, 8, 8, 8), ValueError, r"window must lie within.*\(8, 9\); got top 1, left 0"),
        (lambda: tr.Crop((8, 9), 0, -1, 8, 8, 8), ValueError, r"within a frame.*left -1"),
        (lambda: tr.Crop((8, 9), 0, 0, 8, 0, 8), ValueError, r"within a frame.*width 0"),
        (lambda: tr.Crop((8, 9), 0, 0, 8, 8, 0), ValueError, r"Crop: size must be a whole number >= 1; got 0"),
        (lambda: tr.random_crop((8, 9), seeded(0), size=9), ValueError, r"at most the frame's .* = \(8, 9\); got 9"),
        (lambda: tr.random_crop((8, 9), 3, size=4), TypeError, r"generator must be a torch\.Generator; got int"),
        (lambda: tr.random_crop(CLIP.shape, seeded(0)), ValueError, r"frame_size must be \(H, W\).*got .*4, 3, 8, 9"),
        (lambda: tr.random_crop(224, seeded(0)), ValueError, r"frame_size must be \(H, W\).*got 224"),
        (lambda: tr.multi_scale_crop((8, 9), seeded(0), size=-2), ValueError, r"size must be .* >= 1; got -2"),
        (lambda: tr.multi_scale_crop((8, 9), seeded(0), scales=()), ValueError, r"scales must be one or more .*\(\)"),
        (lambda: tr.multi_scale_crop((8, 9), seeded(0), scales=(1, 1.2)), ValueError, r"in \(0, 1\]; got \(1, 1\.2\)"),
        (lambda: tr.multi_scale_crop((8, 9), seeded(0), max_distort=-1), ValueError, r"max_distort must be >= 0"),
        (lambda: tr.ten_crop(CLIP, 9, "frames"), ValueError, r"ten_crop: size must be at most .*got 9"),
        (lambda: tr.five_crop(CLIP, 9, "frames"), ValueError, r"five_crop: size must be at most .*got 9"),
        (lambda: tr.center_crop(CLIP, 0, "frames"), ValueError, r"center_crop: size must be .* >= 1; got 0"),
        (lambda: tr.resize(CLIP, (4, 0), "frames"), ValueError, r"resize: size must be .*got \(4, 0\)"),
        (lambda: tr.resize(CLIP, 4.5, "frames"), ValueError, r"resize: size must be .*got 4\.5"),
        (lambda: tr.resize(CLIP, (4, 5, 6), "frames"), ValueError, r"resize: size must be .*got \(4, 5, 6\)"),
        (lambda: tr.random_flip(seeded(0), probability=1.5), ValueError, r"probability must be in \[0, 1\]; got 1\.5"),
        (lambda: tr.random_flip(None), TypeError, r"random_flip: generator must be .* got NoneType"),
        (lambda: tr.HorizontalFlip()(FLOW, "frames"), ValueError, r"HorizontalFlip: frames must have 3 channels"),
        (lambda: tr.ColorJitter()(CLIP[:, :1]), ValueError, r"must be RGB.*\[4, 1, 8, 9\]"),
        (lambda: tr.random_color_jitter(seeded(0), hue=0.7), ValueError, r"hue must be in \[0, 0\.5\]; got 0\.7"),
        (lambda: tr.random_color_jitter(seeded(0), contrast=-1), ValueError, r"contrast must be finite and >= 0"),
        (lambda: tr.I3D_FLOW(CLIP, "frames"), ValueError, r"this one is for flow; got frames"),
        (lambda: tr.I3D_RGB(FLOW, "flow"), ValueError, r"this one is for frames; got flow"),
        (lambda: tr.I3D_RGB(CLIP[:, :1], "frames"), ValueError, r"frames must be RGB"),
        (lambda: dataclasses.replace(tr.I3D_FLOW, mean=(1, 2)), ValueError, r"mean and std must have one value"),
        (lambda: dataclasses.replace(tr.I3D_RGB, std=(0,)), ValueError, r"std no 0; got mean \(1,\), std \(0,\)"),
        (lambda: tr.stack_flow(FLOW[0]), ValueError, r"stack_flow: flow must be \(\.\.\., L, 2, H, W\).*\[2, 8, 9\]"),
        (lambda: tr.stack_flow(FLOW[:0]), ValueError, r"with L >= 1; got shape \[0, 2, 8, 9\]"),
        (lambda: tr.stack_trajectories(CLIP), ValueError, r"stack_trajectories: flow must be .*\[4, 3, 8, 9\]"),
        (lambda: tr.stack_trajectories(FLOW.byte()), ValueError, r"float32 or float64, in pixels; got torch\.uint8"),
        (lambda: tr.stack_trajectories(None), TypeError, r"flow must be a torch\.Tensor; got NoneType"),
        (lambda: tr.stack_bidirectional(FLOW, FLOW[1:]), ValueError, r"one shape, dtype and device; got .*\[3, 2, 8"),
        (lambda: tr.stack_bidirectional(FLOW, FLOW.byte()), ValueError, r"one shape.*torch\.uint8"),
        (lambda: tr.stack_bidirectional(FLOW, CLIP), ValueError, r"reverse must be \(\.\.\., L, 2, H, W\)"),
        (lambda: tr.subtract_mean_flow(FLOW.byte()), ValueError, r"subtract_mean_flow: flow must be floating point"),
    ],
)  # fmt: skip
def test_rejects(call, error, message):
    with pytest.raises(error, match=message):
        call()
