"""Flow files: Middlebury `.flo` (float32) and KITTI `.png` (16 bits, 1/64 pixel)."""

import os
import struct
import uuid
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pyaction.flow.convention import check_flow, check_valid, known_pixels

_FLO_HEADER = struct.Struct("<fii")  # tag, width, height
_FLO_TAG = 202021.25  # reads "PIEH" as text
_FLO_UNKNOWN = 1e10
_PNG_STEPS_PER_PIXEL = 64
_PNG_ZERO = 2**15


class FlowFile(NamedTuple):
    """What a flow file holds; `write(path, *read(path))` writes it back.

    Attributes:
        flow: float32 `(2, H, W)`, pixels, channel 0 = x; zero where valid is False.
        valid: bool `(H, W)`; False where the file says the flow is unknown.
    """

    flow: Tensor
    valid: Tensor


def read(path: str | os.PathLike[str]) -> FlowFile:
    """Read a flow file: Middlebury for the suffix `.flo`, KITTI for `.png`.

    A pixel is invalid where a `.flo` component is NaN or beyond ±1e9, or where the third channel of a
    KITTI picture is 0.

    Args:
        path: the file, whose suffix says the format.

    Returns:
        flow, float32 `(2, H, W)` in pixels, and valid, bool `(H, W)`, on the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: another suffix, or contents that are not what the suffix says.

    Example:
        >>> from pyaction import flow
        >>> motion, valid = flow.read("frame_0001.flo")  # doctest: +SKIP
    """
    path = Path(path)
    suffix = _suffix("flow.read", path)
    data = path.read_bytes()
    return _from_flo(path, data) if suffix == ".flo" else _from_png(path, data)


def write(path: str | os.PathLike[str], flow: Tensor, valid: Tensor | None = None) -> None:
    """Write a flow file: Middlebury for the suffix `.flo`, KITTI for `.png`.

    `.flo` keeps float32 exactly. KITTI's `.png` rounds to 1/64 pixel and holds -512 to 511.98 pixels;
    what lies outside is clamped. The file appears whole or not at all: it is written under a temporary
    name beside `path` and then renamed.

    Args:
        path: the file, whose suffix says the format; replaced if it exists.
        flow: floating point `(2, H, W)`, pixels, channel 0 = x.
        valid: bool `(H, W)`; None means all. Pixels where valid is False, or where flow is NaN or
            beyond ±1e9, are written as the format's "unknown".

    Raises:
        FileNotFoundError: the folder does not exist.
        TypeError: flow or valid is not a tensor.
        ValueError: another suffix, wrong dtype or shape.

    Example:
        >>> from pyaction import flow
        >>> flow.write("frame_0001.png", torch.zeros(2, 48, 64))  # doctest: +SKIP
    """
    path = Path(path)
    suffix = _suffix("flow.write", path)
    check_flow("flow.write", "flow", flow)
    if flow.dim() != 3:
        raise ValueError(f"flow.write: flow must be one field [2, H, W]; got {list(flow.shape)}")
    check_valid("flow.write", valid, flow)

    flow = flow.detach()
    known = known_pixels(flow) if valid is None else known_pixels(flow) & valid
    values = flow.permute(1, 2, 0).to("cpu", torch.float64).numpy()  # [H, W, 2]
    unknown = ~known.cpu().numpy()  # [H, W]
    _write_whole(path, _to_flo(values, unknown) if suffix == ".flo" else _to_png(values, unknown))


def _suffix(caller: str, path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in (".flo", ".png"):
        raise ValueError(f"{caller}: {path} must end in .flo (Middlebury) or .png (KITTI); got {path.suffix!r}")
    return suffix


def _from_flo(path: Path, data: bytes) -> FlowFile:
    if len(data) < _FLO_HEADER.size:
        raise ValueError(
            f"flow.read: {path} must hold a .flo header of {_FLO_HEADER.size} bytes; got {len(data)} bytes"
        )
    tag, width, height = _FLO_HEADER.unpack_from(data)
    if tag != _FLO_TAG:
        raise ValueError(f"flow.read: {path} must begin with b'PIEH' to be a .flo file; got {data[:4]!r}")
    if width < 1 or height < 1:
        raise ValueError(f"flow.read: {path} must say a width and height >= 1; got {width} x {height}")
    expected = _FLO_HEADER.size + 8 * width * height
    if len(data) != expected:
        raise ValueError(
            f"flow.read: {path} must be {expected} bytes long for its {width} x {height} pixels; got {len(data)} bytes"
        )
    values = np.frombuffer(data, "<f4", offset=_FLO_HEADER.size).reshape(height, width, 2)
    flow = _channels_first(values)
    valid = known_pixels(flow)
    return FlowFile(flow.masked_fill_(~valid, 0), valid)


def _to_flo(values: np.ndarray, unknown: np.ndarray) -> bytes:
    height, width = unknown.shape
    values = np.where(unknown[..., None], _FLO_UNKNOWN, values)
    return _FLO_HEADER.pack(_FLO_TAG, width, height) + values.astype("<f4").tobytes()


def _from_png(path: Path, data: bytes) -> FlowFile:
    import av

    decoder = av.CodecContext.create("png", "r")
    try:
        frames = [*decoder.decode(av.Packet(data)), *decoder.decode(None)]
    except av.error.FFmpegError as error:
        raise ValueError(f"flow.read: {path} must be a whole png file; got {len(data)} bytes: {error}") from error
    found = frames[0].format.name if frames else "no picture"
    if found != "rgb48be":
        raise ValueError(f"flow.read: {path} must be an RGB png of 16 bits (KITTI flow); got {found}")
    picture = frames[0].to_ndarray()  # [H, W, 3] uint16
    valid = torch.from_numpy(picture[..., 2] > 0)
    flow = _channels_first(picture[..., :2]).sub_(_PNG_ZERO).div_(_PNG_STEPS_PER_PIXEL)
    return FlowFile(flow.masked_fill_(~valid, 0), valid)


def _to_png(values: np.ndarray, unknown: np.ndarray) -> bytes:
    import av

    height, width = unknown.shape
    picture = np.ones((height, width, 3), np.uint16)
    values = np.where(unknown[..., None], 0, values)  # a NaN has no integer
    picture[..., :2] = (values * _PNG_STEPS_PER_PIXEL + _PNG_ZERO).round().clip(0, 2**16 - 1)
    picture[unknown] = 0
    encoder = av.CodecContext.create("png", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "rgb48be"
    encoder.time_base = Fraction(1)  # asked for by the encoder, no part of the file
    encoder.options = {"pred": "up"}  # a fifth smaller than unpredicted
    frame = av.VideoFrame.from_ndarray(picture, format="rgb48be")
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])


def _channels_first(values: np.ndarray) -> Tensor:
    """`(H, W, 2)` of any number type -> a new float32 tensor `(2, H, W)`."""
    return torch.from_numpy(np.array(values.transpose(2, 0, 1), np.float32, order="C"))


def _write_whole(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
