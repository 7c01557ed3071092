"""What networks over the segments of a video have in common: one backbone sees all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pyaction.models.backbone import Backbone
from pyaction.models.checks import check_floating

if TYPE_CHECKING:
    from typing_extensions import Self


class SegmentNetwork(nn.Module):
    """A backbone that sees the segments of each video as so many images.

    Attributes:
        backbone: The network over images.
        classes: How many scores there are.
        segments: S in training.
        fixed_segments: Whether clips must have just these segments, in evaluation too.
        in_channels: C of the segments; what a modality is to the network. See `adapt_first_convolution`.
    """

    def __init__(
        self, backbone: Backbone, *, classes: int, segments: int, fixed_segments: bool, partial_batch_norm: bool
    ) -> None:
        super().__init__()
        if not isinstance(backbone, Backbone) or backbone.classes is not None:
            raise ValueError(f"{self._name}: backbone must be a network of pyaction.models made with classes=None")
        for name, number in (("classes", classes), ("segments", segments)):
            if number < 1:
                raise ValueError(f"{self._name}: {name} must be at least 1; got {number}")
        self.backbone = backbone
        self.classes = classes
        self.segments = segments
        self.fixed_segments = fixed_segments
        self.partial_batch_norm = partial_batch_norm
        if not partial_batch_norm:
            self._thaw_norms()
        self.train()

    @property
    def in_channels(self) -> int:
        """C of the segments."""
        return self.backbone.in_channels

    @property
    def _name(self) -> str:
        return f"models.{type(self).__name__}"

    def train(self, mode: bool = True) -> Self:
        """As of any module, but frozen batch normalisation keeps its statistics, and is frozen again if it was not."""
        super().train(mode)
        if self.partial_batch_norm:
            for norm in self._later_norms():
                norm.requires_grad_(False).eval()
        return self

    def feature_map(self, clips: Tensor) -> Tensor:
        """What the last convolutional block sees where in each segment.

        Args:
            clips: `(N, S, C, H, W)`, floating point, normalised as the backbone expects it: for each segment an
                image, or flow stacked into channels.

        Returns:
            `(N, S, K, h, w)`, K = `backbone.map_channels`.

        Raises:
            TypeError: clips is not a tensor.
            ValueError: clips has another shape, no segment, or is not floating point.
        """
        segments = self.segments if self.fixed_segments else "S"
        check_floating(self._name, "clips", clips, ("N", segments, self.in_channels, "H", "W"))
        if clips.shape[1] == 0:
            raise ValueError(f"{self._name}: clips must have at least one segment; got shape {list(clips.shape)}")
        return self.backbone.feature_map(clips.flatten(0, 1)).unflatten(0, clips.shape[:2])

    def to_vectors(self, feature_map: Tensor) -> Tensor:
        """`(N, S, K, h, w)` -> the feature vector of each segment, `(N, S, D)`, D = `backbone.vector_size`."""
        return self.backbone.to_vector(feature_map.flatten(0, 1)).unflatten(0, feature_map.shape[:2])

    def segment_vectors(self, clips: Tensor) -> Tensor:
        """`(N, S, C, H, W)` -> `(N, S, D)`; what `feature_map` says of clips holds."""
        return self.to_vectors(self.feature_map(clips))

    def _later_norms(self) -> list[_BatchNorm]:
        """All batch normalisation but the first, which has to follow the new input's statistics."""
        return [module for module in self.backbone.modules() if isinstance(module, _BatchNorm)][1:]

    def _thaw_norms(self) -> None:
        """If just what partial batch normalisation freezes is frozen, another network has left the backbone so."""
        frozen = {id(parameter) for parameter in self.backbone.parameters() if not parameter.requires_grad}
        norms = self._later_norms()
        if frozen == {id(parameter) for norm in norms for parameter in norm.parameters()}:
            for norm in norms:
                norm.requires_grad_()
