"""CCS: two streams that are trained together, and see each other through a connection block and a shared block.

Zhang, Xu, Shen and Shen, "Cooperative Cross-Stream Network for Discriminative Action Representation", 2019 (paper
001), section 3. Its loss is `losses.cooperative_cross_stream_loss`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyaction.models.checks import check_floating
from pyaction.models.i3d import I3D
from pyaction.models.trn import TRN
from pyaction.models.tsn import TSN

Exchange = Literal["own", "cross"]
Stream = Literal["spatial", "temporal"]


class CrossStreamOutput(NamedTuple):
    """What both streams say.

    Attributes:
        spatial_logits: `(N, classes)`.
        temporal_logits: `(N, classes)`.
        spatial_embeddings: `(N, D)`, at least float32.
        temporal_embeddings: `(N, D)`, likewise.
    """

    spatial_logits: Tensor
    temporal_logits: Tensor
    spatial_embeddings: Tensor
    temporal_embeddings: Tensor


class ConnectionBlock(nn.Module):
    r"""Lets what each stream sees depend on where the other one sees something related: paper 001, equations 1 to 3.

    .. math::
        A_{ij} &= \text{softmax}_j \; (W_φ x^f_i)^T (W_κ x^o_j) \\
        x'^f_i &= x^f_i + W^f \sum_j A_{ij} x^f_j \\
        x'^o_j &= x^o_j + W^o \sum_i A_{ij} x^o_i

    where i and j are positions in the feature maps of the spatial (f) and of the temporal stream (o). Equation 3 sums
    over each stream's own features, by the affinity to the other (`exchange="own"`); with `"cross"`, over the other
    stream's. W^f and W^o start at zero: at first the block changes nothing.

    Args:
        channels: K of both feature maps.
        embedding_channels: rows of W_φ and W_κ, which the paper does not tell; None: K / 2, as in non-local networks.
        exchange: as above.

    Raises:
        ValueError: An argument has no such value.

    Example:
        >>> block = ConnectionBlock(channels=8)
        >>> spatial, temporal = block(torch.rand(2, 8, 7, 7), torch.rand(2, 8, 7, 7))
        >>> spatial.shape
        torch.Size([2, 8, 7, 7])
    """

    def __init__(self, *, channels: int, embedding_channels: int | None = None, exchange: Exchange = "own") -> None:
        super().__init__()
        if embedding_channels is None:
            embedding_channels = max(channels // 2, 1)
        for name, number in (("channels", channels), ("embedding_channels", embedding_channels)):
            if number < 1:
                raise ValueError(f"models.ConnectionBlock: {name} must be at least 1; got {number}")
        if exchange not in get_args(Exchange):
            raise ValueError(f"models.ConnectionBlock: exchange must be one of {get_args(Exchange)}; got {exchange!r}")
        self.channels = channels
        self.exchange = exchange
        self.phi = nn.Conv1d(channels, embedding_channels, 1, bias=False)
        self.kappa = nn.Conv1d(channels, embedding_channels, 1, bias=False)
        self.spatial = nn.Conv1d(channels, channels, 1, bias=False)  # W^f
        self.temporal = nn.Conv1d(channels, channels, 1, bias=False)  # W^o
        nn.init.zeros_(self.spatial.weight)
        nn.init.zeros_(self.temporal.weight)

    def forward(self, spatial: Tensor, temporal: Tensor) -> tuple[Tensor, Tensor]:
        """Connects feature maps.

        Args:
            spatial: `(N, K, h, w)` or `(N, K, t, h, w)`; the positions are those of one image, segment or clip.
            temporal: The same shape.

        Returns:
            Both, changed.

        Raises:
            TypeError: an argument is not a tensor.
            ValueError: an argument has another shape or is not floating point.
        """
        positions = ("t", "h", "w") if isinstance(spatial, Tensor) and spatial.ndim == 5 else ("h", "w")
        check_floating("models.ConnectionBlock", "spatial", spatial, ("N", self.channels, *positions))
        check_floating("models.ConnectionBlock", "temporal", temporal, tuple(spatial.shape))
        x_f, x_o = spatial.flatten(2), temporal.flatten(2)  # (N, K, P)
        affinity = (self.phi(x_f).transpose(1, 2) @ self.kappa(x_o)).softmax(2)  # (N, P of f, P of o)
        seen_f, seen_o = (x_f, x_o) if self.exchange == "own" else (x_o, x_f)
        x_f = x_f + self.spatial(seen_f @ affinity.transpose(1, 2))
        x_o = x_o + self.temporal(seen_o @ affinity)
        return x_f.view(spatial.shape), x_o.view(temporal.shape)


class SharedBlock(nn.Module):
    """One projection for the vectors of both streams, so that they can be compared: paper 001, section 3.3.

    It starts as the identity: at first it changes nothing that trained classifiers see.

    Args:
        size: D of the vectors.
        normalize: whether embeddings are put on the unit sphere, which margins such as 0.3 and 0.8 suppose. The
            classifier sees the projection itself: scores of unit vectors could never be sure.
    """

    def __init__(self, *, size: int, normalize: bool = True) -> None:
        super().__init__()
        self.normalize = normalize
        self.projection = nn.Linear(size, size)
        nn.init.eye_(self.projection.weight)
        nn.init.zeros_(self.projection.bias)

    def forward(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """`(N, S, D)` of S segments -> their projections, and the embedding of all of them, `(N, D)`."""
        projected = self.projection(vectors)
        embedding = _mean_over_segments(projected)
        return projected, F.normalize(embedding, dim=1) if self.normalize else embedding


class CooperativeCrossStream(nn.Module):
    """Two streams, connected after their last convolutional blocks, with a shared block before their classifiers.

    The ablations of paper 001, table 3: `connection=False, shared=False` is the baseline, two separate streams;
    `shared=False` is "CB"; `connection=False` is "CS". With both, the network also starts as the two streams it is
    given, trained or not, and departs from there.

    The relations of `TRN` see the projections of the shared block, before their own reduction. In training both
    streams see the same tuples of segments: `network(frames, flow, network.spatial.draw_tuples(generator))`.

    Args:
        spatial: `TSN` or `TRN` over any backbone, or `I3D`, for RGB.
        temporal: The same for flow; classes, and the sizes of feature maps and vectors are those of the other, and so
            are the scales of `TRN`, and the segments where they are fixed.
        connection: Whether there is a `ConnectionBlock`.
        shared: Whether there is a `SharedBlock`. Without one, embeddings are the streams' own feature vectors.
        exchange: See `ConnectionBlock`.
        normalize: See `SharedBlock`.

    Source: paper 001 (Zhang et al., 2019), sections 3 and 4.3.

    Raises:
        TypeError: A stream is neither TSN nor TRN nor I3D, or they are not of one kind.
        ValueError: The streams are one network, or do not fit each other; or there is no such exchange.

    Example:
        >>> from pyaction import models
        >>> rgb, flow = (models.ResNet(classes=None, depth=18, in_channels=channels) for channels in (3, 10))
        >>> network = CooperativeCrossStream(spatial=models.TSN(rgb, classes=7), temporal=models.TSN(flow, classes=7))
        >>> output = network(torch.rand(2, 3, 3, 64, 64), torch.rand(2, 3, 10, 64, 64))
        >>> output.spatial_logits.shape, output.temporal_embeddings.shape
        (torch.Size([2, 7]), torch.Size([2, 512]))
    """

    def __init__(
        self,
        *,
        spatial: TSN | TRN | I3D,
        temporal: TSN | TRN | I3D,
        connection: bool = True,
        shared: bool = True,
        exchange: Exchange = "own",
        normalize: bool = True,
    ) -> None:
        super().__init__()
        _check_streams(self._name, spatial, temporal)
        channels, size = _sizes(spatial)
        self.spatial = spatial
        self.temporal = temporal
        self.connection = ConnectionBlock(channels=channels, exchange=exchange) if connection else None
        self.shared = SharedBlock(size=size, normalize=normalize) if shared else None

    def forward(self, frames: Tensor, flow: Tensor, tuples: Sequence[Tensor] | None = None) -> CrossStreamOutput:
        """Scores and embeddings of videos.

        Args:
            frames: `(N, S, C, H, W)` for TSN and TRN, `(N, T, C, H, W)` for I3D, as the spatial stream takes them.
            flow: The same for the temporal stream; N, S, H and W are those of the frames.
            tuples: For TRN alone: what `draw_tuples` of either stream gives; None: each stream's of evaluation.

        Returns:
            Of each stream; scores of both are averaged for a decision.

        Raises:
            TypeError: an argument is not a tensor.
            ValueError: an argument is not what its stream takes, or the feature maps of both differ in shape.
        """
        spatial_map, temporal_map = self.feature_maps(frames, flow)
        spatial_logits, spatial_embeddings = self.classify("spatial", spatial_map, tuples)
        temporal_logits, temporal_embeddings = self.classify("temporal", temporal_map, tuples)
        return CrossStreamOutput(spatial_logits, temporal_logits, spatial_embeddings, temporal_embeddings)

    def feature_maps(self, frames: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        """The feature maps of both streams behind the connection; as the `feature_map` of `TSN`, `TRN` or `I3D`."""
        spatial, temporal = self.spatial.feature_map(frames), self.temporal.feature_map(flow)
        if spatial.shape != temporal.shape:
            raise ValueError(
                f"{self._name}: frames and flow must give feature maps of one shape; "
                f"got {list(spatial.shape)} and {list(temporal.shape)}"
            )
        if self.connection is None:
            return spatial, temporal
        if isinstance(self.spatial, I3D):
            return self.connection(spatial, temporal)
        segments = spatial.shape[:2]  # each is connected with its own counterpart
        connected = self.connection(spatial.flatten(0, 1), temporal.flatten(0, 1))
        return connected[0].unflatten(0, segments), connected[1].unflatten(0, segments)

    def classify(
        self, stream: Stream, feature_map: Tensor, tuples: Sequence[Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Logits `(N, classes)` and embeddings `(N, D)` of one stream, from what `feature_maps` gives of it."""
        network = self.spatial if stream == "spatial" else self.temporal
        vectors = network.to_vectors(feature_map)  # (N, S, D)
        if self.shared is None:
            embeddings = _mean_over_segments(vectors)
        else:
            vectors, embeddings = self.shared(vectors)
        if isinstance(network, TRN):
            return network.classify(vectors, tuples), embeddings
        if tuples is not None:
            raise ValueError(f"{self._name}: tuples are for streams of TRN; these are {type(network).__name__}")
        return network.classify(vectors), embeddings

    @property
    def _name(self) -> str:
        return f"models.{type(self).__name__}"


def _check_streams(caller: str, spatial: TSN | TRN | I3D, temporal: TSN | TRN | I3D) -> None:
    kinds = type(spatial), type(temporal)
    if kinds not in ((TSN, TSN), (TRN, TRN), (I3D, I3D)):
        names = " and ".join(kind.__name__ for kind in kinds)
        raise TypeError(f"{caller}: spatial and temporal must both be TSN, both TRN or both I3D; got {names}")
    if spatial is temporal:
        raise ValueError(f"{caller}: spatial and temporal must be two networks; got one twice")
    others = _traits(temporal)
    for trait, value in _traits(spatial).items():
        if value != others.get(trait, value):
            raise ValueError(
                f"{caller}: spatial and temporal must have the same {trait}; got {value} and {others[trait]}"
            )


def _traits(stream: TSN | TRN | I3D) -> dict[str, object]:
    """What both streams must have in common; of what one of them alone has, nothing."""
    traits: dict[str, object] = {"sizes of feature map and vector": _sizes(stream), "classes": stream.classes}
    if not isinstance(stream, I3D) and stream.fixed_segments:
        traits["segments"] = stream.segments
    if isinstance(stream, TRN):
        traits["scales"] = list(stream.scales)
    return traits


def _sizes(stream: TSN | TRN | I3D) -> tuple[int, int]:
    """Channels of the feature map, length of the vectors."""
    if isinstance(stream, I3D):
        return (stream.logits.conv3d.in_channels,) * 2
    return stream.backbone.map_channels, stream.backbone.vector_size


def _mean_over_segments(vectors: Tensor) -> Tensor:
    """`(N, S, D)` -> `(N, D)`, at least float32, which distances between embeddings need."""
    return vectors.to(torch.promote_types(vectors.dtype, torch.float32)).mean(1)
