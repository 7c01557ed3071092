"""Windows of a clip: at random for training, corners and centre for testing, one for all frames and both streams."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pyaction.data.transforms.content import Content, check_clip
from pyaction.data.transforms.draws import draw_integer
from pyaction.data.transforms.flips import HorizontalFlip

RGB_SCALES = (1.0, 0.875, 0.75, 0.66)
"""Sides of `multi_scale_crop` for RGB, in short sides of the frame."""
FLOW_SCALES = (1.0, 0.875, 0.75)
"""The same for flow, for differences of frames, and for the frames that MotionNet sees."""

# Where `multi_scale_crop` puts a window: (x, y) in quarters of the room around it. Four corners and the centre, the
# middles of the four edges, half-way between each corner and the centre.
_FIXED_OFFSETS = (
    *((0, 0), (4, 0), (0, 4), (4, 4), (2, 2)),
    *((0, 2), (4, 2), (2, 0), (2, 4)),
    *((1, 1), (3, 1), (1, 3), (3, 3)),
)


def resize(clip: Tensor, size: int | tuple[int, int], content: Content) -> Tensor:
    """Resizes a clip bilinearly (smoothed where it shrinks), and flow in pixels with it.

    `"flow"` is scaled by new width / old width in x and by the heights in y: pixels of the new resolution.
    `"encoded_flow"` keeps its values, so they still mean pixels of the old one: what two-stream networks are trained
    on (Wang et al., *Temporal Segment Networks*, 2016).

    Args:
        clip: `(..., C, H, W)`, see `pyaction.data.transforms`.
        size: `(height, width)`, or the new short side with the proportions kept, >= 1.
        content: what the clip holds.

    Returns:
        `(..., C, height, width)`, the clip's dtype; the clip itself if it has that size.

    Raises:
        TypeError: clip is not a tensor.
        ValueError: clip cannot hold the content, or size is not positive.

    Example:
        >>> resize(torch.ones(2, 4, 6), (8, 18), "flow")[:, 0, 0]  # 3 times as wide, 2 times as high
        tensor([3., 2.])
    """
    check_clip("transforms.resize", clip, content)
    sides = list(size) if isinstance(size, Sequence) else [size]
    if len(sides) not in (1, 2) or not all(_is_side(side) for side in sides):
        raise ValueError(f"transforms.resize: size must be one side or (height, width), whole and >= 1; got {size}")
    if list(clip.shape[-2:]) == sides or sides == [min(clip.shape[-2:])]:
        return clip
    from torchvision.transforms.v2 import functional

    resized = functional.resize(clip, sides, antialias=True)
    if content != "flow":
        return resized
    scale = [resized.shape[-1] / clip.shape[-1], resized.shape[-2] / clip.shape[-2]]
    return resized * resized.new_tensor(scale).repeat(clip.shape[-3] // 2).view(-1, 1, 1)


@dataclass(frozen=True)
class Crop:
    """A window of the frame, resized to a square: the same one for every clip it is called with.

    Call it with a clip `(..., C, H, W)` of `frame_size` and what it holds, see `pyaction.data.transforms`; RGB and flow
    of one clip get the same pixels. Flow vectors follow the resizing as in `resize`. The result is
    `(..., C, size, size)`, of the clip's dtype; a view where nothing is resized.

    Raises:
        TypeError: The clip is not a tensor.
        ValueError: The window is not within the frame; the clip cannot hold the content or has another frame size.

    Example:
        >>> crop = Crop((4, 6), top=1, left=2, height=2, width=2, size=2)
        >>> crop(torch.arange(24.0).view(1, 4, 6), "frames")
        tensor([[[ 8.,  9.],
                 [14., 15.]]])
    """

    frame_size: tuple[int, int]
    """(H, W) of the clips it is for: a crop for other ones would show something else."""
    top: int
    """First row of the window, 0 = top."""
    left: int
    """First column."""
    height: int
    """Rows, >= 1."""
    width: int
    """Columns, >= 1."""
    size: int
    """Height and width of the result, >= 1."""

    def __post_init__(self) -> None:
        _check_size("transforms.Crop", self.size)
        frame_height, frame_width = _checked_frame("transforms.Crop", self.frame_size)
        fits_down = 0 <= self.top < self.top + self.height <= frame_height
        if not (fits_down and 0 <= self.left < self.left + self.width <= frame_width):
            raise ValueError(
                f"transforms.Crop: the window must lie within a frame of (H, W) = {tuple(self.frame_size)}; "
                f"got top {self.top}, left {self.left}, height {self.height}, width {self.width}"
            )

    def __call__(self, clip: Tensor, content: Content) -> Tensor:
        """The window of each frame, `(..., C, size, size)`."""
        check_clip("transforms.Crop", clip, content)
        if tuple(clip.shape[-2:]) != tuple(self.frame_size):
            raise ValueError(
                f"transforms.Crop: clip must have the (H, W) that the crop is for, {tuple(self.frame_size)}; "
                f"got shape {list(clip.shape)}"
            )
        window = clip[..., self.top : self.top + self.height, self.left : self.left + self.width]
        return resize(window, (self.size, self.size), content)


def random_crop(frame_size: Sequence[int], generator: torch.Generator, *, size: int = 224) -> Crop:
    """Draws a square window anywhere in the frame, without resizing: the training crop of paper 004, section 8.

    Args:
        frame_size: (H, W) of the clips, as `clip.shape[-2:]`; at least size.
        generator: where the random numbers come from.
        size: side of the window in pixels.

    Returns:
        One crop for every tensor of a clip.

    Raises:
        TypeError: generator is not a torch.Generator.
        ValueError: size or frame_size is not positive, or the frame is smaller than the window.
    """
    height, width = _checked_frame("transforms.random_crop", frame_size, size)
    top = draw_integer("transforms.random_crop", height - size + 1, generator)
    left = draw_integer("transforms.random_crop", width - size + 1, generator)
    return Crop((height, width), top, left, size, size, size)


def multi_scale_crop(
    frame_size: Sequence[int],
    generator: torch.Generator,
    *,
    size: int = 224,
    scales: Sequence[float] = RGB_SCALES,
    max_distort: int = 1,
    fixed_offsets: bool = True,
) -> Crop:
    """Draws a window of random size, shape and place, resized to a square (Wang et al., 2016).

    Its sides are the frame's short side times one of `scales` each, rounded down; sides within 2 pixels of `size`
    become `size`, so that they need no resizing. Of frames of 256 × 340, windows of 256, 224, 192 or 168.

    Args:
        frame_size: (H, W) of the clips, as `clip.shape[-2:]`.
        generator: where the random numbers come from.
        size: side of the result in pixels.
        scales: in (0, 1], from large to small.
        max_distort: how far apart in `scales` height and width may be; 0 gives squares.
        fixed_offsets: True: one of 13 places, the corners among them. False: anywhere.

    Returns:
        One crop for every tensor of a clip.

    Raises:
        TypeError: generator is not a torch.Generator.
        ValueError: size or frame_size is not positive, scales is empty or leaves (0, 1], max_distort is negative.

    Example:
        >>> frames, flow = torch.rand(11, 3, 256, 340), torch.rand(10, 2, 256, 340)
        >>> crop = multi_scale_crop(frames.shape[-2:], torch.Generator().manual_seed(3))
        >>> crop(frames, "frames").shape, crop(flow, "flow").shape
        (torch.Size([11, 3, 224, 224]), torch.Size([10, 2, 224, 224]))
    """
    caller = "transforms.multi_scale_crop"
    frame_height, frame_width = _checked_frame(caller, frame_size)
    _check_size(caller, size)
    if len(scales) == 0 or not all(0 < scale <= 1 for scale in scales):
        raise ValueError(f"{caller}: scales must be one or more numbers in (0, 1]; got {scales}")
    if max_distort < 0:
        raise ValueError(f"{caller}: max_distort must be >= 0; got {max_distort}")
    short_side = min(frame_height, frame_width)
    sides = [max(1, int(short_side * scale)) for scale in scales]
    sides = [size if abs(side - size) < 3 and size <= short_side else side for side in sides]
    pairs = [(h, w) for i, h in enumerate(sides) for j, w in enumerate(sides) if abs(i - j) <= max_distort]
    height, width = pairs[draw_integer(caller, len(pairs), generator)]
    if fixed_offsets:
        x, y = _FIXED_OFFSETS[draw_integer(caller, len(_FIXED_OFFSETS), generator)]
        top, left = y * ((frame_height - height) // 4), x * ((frame_width - width) // 4)
    else:
        top = draw_integer(caller, frame_height - height + 1, generator)
        left = draw_integer(caller, frame_width - width + 1, generator)
    return Crop((frame_height, frame_width), top, left, height, width, size)


def center_crop(clip: Tensor, size: int, content: Content) -> Tensor:
    """The square in the middle of the frame, half a pixel up and left where that is odd.

    Args:
        clip: `(..., C, H, W)`, see `pyaction.data.transforms`.
        size: side in pixels, at most H and W.
        content: what the clip holds.

    Returns:
        `(..., C, size, size)`, a view of the clip.

    Raises:
        TypeError: clip is not a tensor.
        ValueError: clip cannot hold the content, or is smaller than size.
    """
    check_clip("transforms.center_crop", clip, content)
    return _corners_and_center("transforms.center_crop", clip, size)[4](clip, content)


def five_crop(clip: Tensor, size: int, content: Content) -> Tensor:
    """The squares in the four corners and the middle of the frame.

    Args:
        clip: `(..., C, H, W)`, see `pyaction.data.transforms`.
        size: side in pixels, at most H and W.
        content: what the clip holds.

    Returns:
        `(5, ..., C, size, size)`: top left, top right, bottom left, bottom right, centre.

    Raises:
        TypeError: clip is not a tensor.
        ValueError: clip cannot hold the content, or is smaller than size.
    """
    check_clip("transforms.five_crop", clip, content)
    return torch.stack([crop(clip, content) for crop in _corners_and_center("transforms.five_crop", clip, size)])


def ten_crop(clip: Tensor, size: int, content: Content) -> Tensor:
    """The crops of `five_crop` and then their mirror images: the test crops of paper 004, section 8, and 002.

    Paper 002 computes flow from mirrored frames; flow that is given is mirrored as `HorizontalFlip` does.

    Args:
        clip: `(..., C, H, W)`, see `pyaction.data.transforms`.
        size: side in pixels, at most H and W.
        content: what the clip holds.

    Returns:
        `(10, ..., C, size, size)`: top left, top right, bottom left, bottom right, centre, and the same flipped.

    Raises:
        TypeError: clip is not a tensor.
        ValueError: clip cannot hold the content, or is smaller than size.

    Example:
        >>> ten_crop(torch.rand(25, 3, 256, 340), 224, "frames").flatten(0, 1).shape
        torch.Size([250, 3, 224, 224])
    """
    check_clip("transforms.ten_crop", clip, content)
    crops = [crop(clip, content) for crop in _corners_and_center("transforms.ten_crop", clip, size)]
    return torch.stack([*crops, *(HorizontalFlip()(crop, content) for crop in crops)])


def _corners_and_center(caller: str, clip: Tensor, size: int) -> list[Crop]:
    height, width = _checked_frame(caller, clip.shape[-2:], size)
    bottom, right = height - size, width - size
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)]
    return [Crop((height, width), top, left, size, size, size) for top, left in corners]


def _is_side(value: object) -> bool:
    return isinstance(value, int) and value >= 1


def _check_size(caller: str, size: object) -> None:
    if not _is_side(size):
        raise ValueError(f"{caller}: size must be a whole number >= 1; got {size}")


def _checked_frame(caller: str, frame_size: Sequence[int], at_least: int | None = None) -> tuple[int, int]:
    if not isinstance(frame_size, Sequence) or len(frame_size) != 2 or not all(map(_is_side, frame_size)):
        raise ValueError(f"{caller}: frame_size must be (H, W), whole numbers >= 1; got {frame_size}")
    height, width = frame_size
    if at_least is not None:
        _check_size(caller, at_least)
        if min(height, width) < at_least:
            raise ValueError(f"{caller}: size must be at most the frame's (H, W) = {(height, width)}; got {at_least}")
    return height, width
