"""pyaction.models.CooperativeCrossStream and its blocks, against equations 1 to 3 of paper 001 written out."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch.utils._pytree import tree_leaves

from pyaction import models
from pyaction.models.cooperative_cross_stream import Exchange


def drawn(block: models.ConnectionBlock) -> models.ConnectionBlock:
    """As if trained: the outer convolutions start at zero."""
    nn.init.normal_(block.spatial.weight, std=0.3)
    nn.init.normal_(block.temporal.weight, std=0.3)
    return block


def tsn_streams(**options: Any) -> dict[str, models.TSN]:
    return {
        name: models.TSN(models.ResNet(classes=None, depth=18, in_channels=channels), **{"classes": 5, **options})
        for name, channels in (("spatial", 3), ("temporal", 10))
    }


def trn_streams(**options: Any) -> dict[str, models.TRN]:
    streams = {
        name: models.TRN(
            models.ResNet(classes=None, depth=18, in_channels=channels),
            **{"classes": 5, "segments": 3, "features": 12, "hidden": 9, **options},
        )
        for name, channels in (("spatial", 3), ("temporal", 10))
    }
    for stream in streams.values():
        nn.init.normal_(stream.reduction.weight, std=0.1)  # as if trained
    return streams


DRAWN = (torch.tensor([[0, 1, 2]]), torch.tensor([[0, 1], [1, 2]]))  # tuples, as `TRN.draw_tuples` gives them
STREAMS = {"tsn": (tsn_streams, ()), "trn": (trn_streams, (DRAWN,))}  # and what training takes beside the videos


def videos(batch: int = 2) -> tuple[Tensor, Tensor]:
    return torch.randn(batch, 3, 3, 32, 64), torch.randn(batch, 3, 10, 32, 64)


@pytest.mark.parametrize("size", [(2, 3), (2, 1, 3)], ids=str)
@pytest.mark.parametrize("exchange", ["own", "cross"])
def test_connection_matches_reference(exchange: Exchange, size: tuple[int, ...]) -> None:
    """Position by position."""
    block = drawn(models.ConnectionBlock(channels=4, embedding_channels=3, exchange=exchange)).double()
    maps = torch.randn(2, 2, 4, *size, dtype=torch.float64)
    actual = block(*maps)
    phi, kappa, w_f, w_o = (layer.weight[:, :, 0] for layer in (block.phi, block.kappa, block.spatial, block.temporal))
    for clip in range(2):
        f, o = (list(maps[stream, clip].flatten(1).T) for stream in range(2))  # positions
        affinity = [[((phi @ a) @ (kappa @ b)).exp() for b in o] for a in f]
        affinity = [[value / sum(row) for value in row] for row in affinity]
        positions = range(len(f))
        seen_f, seen_o = (f, o) if exchange == "own" else (o, f)
        new_f = [f[i] + w_f @ sum(affinity[i][j] * seen_f[j] for j in positions) for i in positions]
        new_o = [o[j] + w_o @ sum(affinity[i][j] * seen_o[i] for i in positions) for j in positions]
        for stream, expected in enumerate((new_f, new_o)):
            torch.testing.assert_close(actual[stream][clip], torch.stack(expected, dim=1).view(4, *size))


@pytest.mark.parametrize("exchange", ["own", "cross"])
def test_connection_starts_as_identity(exchange: Exchange) -> None:
    maps = torch.randn(2, 3, 6, 2, 4)
    connected = models.ConnectionBlock(channels=6, exchange=exchange)(*maps)
    assert all(torch.equal(*pair) for pair in zip(connected, maps, strict=True))


@pytest.mark.parametrize("exchange", ["own", "cross"])
@pytest.mark.parametrize("end", [0, 1])
def test_connection_gradient_reaches_both_streams(end: int, exchange: Exchange) -> None:
    """From either end."""
    block = drawn(models.ConnectionBlock(channels=6, exchange=exchange))
    maps = [torch.randn(3, 6, 2, 4, requires_grad=True) for _ in range(2)]
    block(*maps)[end].square().sum().backward()
    assert all(value.grad is not None and value.grad.abs().max() > 1e-3 for value in maps)


def test_connection_gradcheck() -> None:
    block = drawn(models.ConnectionBlock(channels=3)).double()
    maps = tuple(torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(block, maps)


def test_connection_learns_from_the_start() -> None:
    """At zero, the outer convolutions have a gradient; with them the inner ones get theirs."""
    block = models.ConnectionBlock(channels=6)
    maps = torch.randn(2, 3, 6, 2, 4)
    for wanted in (("spatial", "temporal"), ("phi", "kappa", "spatial", "temporal")):
        sum(x.square().sum() for x in block(*maps)).backward()
        for name in wanted:
            weight = block.get_submodule(name).weight
            assert weight.grad.abs().max() > 0, name
            weight.data -= 0.01 * weight.grad
        block.zero_grad()


def test_segments_are_connected_one_by_one() -> None:
    """Another flow in one segment changes what the frames' stream sees in that segment alone."""
    network = models.CooperativeCrossStream(**tsn_streams()).eval()
    assert network.connection is not None
    drawn(network.connection)
    frames, flow = videos()
    other = flow.clone()
    other[:, 1] = torch.randn(2, 10, 32, 64)
    with torch.no_grad():
        before, after = network.feature_maps(frames, flow)[0], network.feature_maps(frames, other)[0]
    changed = (before - after).abs().amax((2, 3, 4)) > 1e-4
    assert changed.tolist() == [[False, True, False]] * 2


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", STREAMS)
def test_baseline_is_two_networks(kind: str, training: bool) -> None:
    make, tuples = STREAMS[kind]
    streams, given = make(dropout=0.3), tuples if training else ()
    network = models.CooperativeCrossStream(**streams, connection=False, shared=False).train(training)
    frames, flow = videos()
    torch.manual_seed(3)
    output = network(frames, flow, *given)
    assert len(list(network.parameters())) == sum(len(list(stream.parameters())) for stream in streams.values())
    torch.manual_seed(3)
    assert torch.equal(output.spatial_logits, streams["spatial"](frames, *given))
    assert torch.equal(output.temporal_logits, streams["temporal"](flow, *given))
    if not training:
        vectors = streams["temporal"].segment_vectors(flow)
        torch.testing.assert_close(output.temporal_embeddings, vectors.sum(1) / 3)


@pytest.mark.parametrize(("connection", "shared"), list(itertools.product([False, True], repeat=2)))
@pytest.mark.parametrize("kind", STREAMS)
def test_ablations(kind: str, connection: bool, shared: bool) -> None:
    """Each part is there or not; at the start all give the streams' own scores; later, what they are for."""
    streams = {name: stream.eval() for name, stream in STREAMS[kind][0]().items()}
    network = models.CooperativeCrossStream(**streams, connection=connection, shared=shared).eval()
    parts = {name.split(".")[0] for name, _ in network.named_parameters()} - {"spatial", "temporal"}
    assert ("connection" in parts, "shared" in parts) == (connection, shared)
    frames, flow = videos()
    with torch.no_grad():
        output = network(frames, flow)
        torch.testing.assert_close(output.spatial_logits, streams["spatial"](frames))
        torch.testing.assert_close(output.temporal_logits, streams["temporal"](flow))
        lengths = output.spatial_embeddings.norm(dim=1)
        assert (lengths - 1).abs().max() < 1e-5 if shared else (lengths - 1).abs().min() > 0.1
        if connection:
            drawn(network.connection)
        other = network(frames, torch.randn_like(flow))
        moved = (output.spatial_embeddings - other.spatial_embeddings).abs().max()
        assert (moved > 1e-3) == connection


def test_shared_block_is_one_for_both_streams() -> None:
    network = models.CooperativeCrossStream(**tsn_streams(), connection=False, normalize=False).eval()
    frames, flow = videos()
    assert network.shared is not None
    nn.init.normal_(network.shared.projection.weight, std=0.1)
    nn.init.normal_(network.shared.projection.bias)
    weight, bias = network.shared.projection.weight, network.shared.projection.bias
    with torch.no_grad():
        output = network(frames, flow)
        for stream, clips, embeddings, logits in (
            (network.spatial, frames, output.spatial_embeddings, output.spatial_logits),
            (network.temporal, flow, output.temporal_embeddings, output.temporal_logits),
        ):
            projected = stream.segment_vectors(clips) @ weight.T + bias
            torch.testing.assert_close(embeddings, projected.mean(1))
            torch.testing.assert_close(logits, (projected @ stream.fc.weight.T + stream.fc.bias).mean(1))


@torch.no_grad()
def test_over_i3d() -> None:
    streams = {name: models.I3D(classes=5, in_channels=c).eval() for name, c in (("spatial", 3), ("temporal", 2))}
    network = models.CooperativeCrossStream(**streams).eval()
    clips = torch.randn(1, 16, 3, 64, 32), torch.randn(1, 16, 2, 64, 32)
    output = network(*clips)
    torch.testing.assert_close(output.spatial_logits, streams["spatial"](clips[0]))
    torch.testing.assert_close(output.temporal_logits, streams["temporal"](clips[1]))
    assert output.spatial_embeddings.shape == (1, 1024)
    assert [tuple(x.shape) for x in network.feature_maps(*clips)] == [(1, 1024, 2, 2, 1)] * 2
    drawn(network.connection)
    assert not torch.equal(network(*clips).spatial_logits, output.spatial_logits)


@pytest.mark.parametrize("kind", STREAMS)
def test_training_reaches_everything(kind: str) -> None:
    """Scores of one stream alone teach the other."""
    make, tuples = STREAMS[kind]
    network = models.CooperativeCrossStream(**make(dropout=0.3, partial_batch_norm=False))
    drawn(network.connection)
    network(*videos(), *tuples).spatial_logits.square().sum().backward()
    names = {name for name, parameter in network.named_parameters() if parameter.grad is None}
    heads = {
        name for name, _ in network.named_parameters() if name.startswith("temporal.") and ".backbone." not in name
    }
    assert names == {*heads, "connection.temporal.weight"}
    assert network.temporal.backbone.conv1.weight.grad.abs().max() > 0


def over_trn() -> models.CooperativeCrossStream:
    network = models.CooperativeCrossStream(**trn_streams(), exchange="cross")
    assert network.connection is not None
    nn.init.normal_(network.connection.spatial.weight, std=0.05)
    nn.init.normal_(network.connection.temporal.weight, std=0.05)
    return network


@torch.no_grad()
def test_relations_see_the_given_tuples() -> None:
    """In both streams the same; else those of evaluation, which are of three segments all pairs."""
    network, clips = over_trn().eval(), videos()
    everything = (DRAWN[0], torch.tensor([[0, 1], [0, 2], [1, 2]]))
    torch.testing.assert_close(network(*clips), network(*clips, everything))
    output = network(*clips, DRAWN)
    maps = network.feature_maps(*clips)
    for name, feature_map, logits in (
        ("spatial", maps[0], output.spatial_logits),
        ("temporal", maps[1], output.temporal_logits),
    ):
        stream = network.get_submodule(name)
        projected, _ = network.shared(stream.to_vectors(feature_map))
        torch.testing.assert_close(logits, stream.classify(projected, DRAWN))
        assert not torch.allclose(logits, stream.classify(projected))
    assert torch.equal(output.spatial_embeddings, network(*clips).spatial_embeddings)


def test_trn_in_training() -> None:
    """Tuples are asked for; whatever is drawn runs through one graph, and everything learns."""
    network, clips = over_trn(), videos()
    with pytest.raises(ValueError, match=r"^models\.TRN: in training give tuples, by draw_tuples\(generator\)$"):
        network(*clips)
    torch._dynamo.reset()
    counter = CompileCounter()
    compiled = torch.compile(network, fullgraph=True, backend=counter)
    generator = torch.Generator().manual_seed(8)
    for _ in range(2):
        output = compiled(*clips, network.spatial.draw_tuples(generator))
        sum(value.square().sum() for value in output).backward()
    assert counter.frame_count == 1
    learns = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert learns == {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert {"connection.phi.weight", "shared.projection.bias", "temporal.relations.1.3.bias"} <= learns


@torch.no_grad()
def test_trn_compiled_exported_and_loaded() -> None:
    network, clips = over_trn().eval(), videos()
    expected = network(*clips)
    torch._dynamo.reset()
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(*clips), expected, rtol=1e-4, atol=1e-5)
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(network, clips, dynamic_shapes=({0: batch}, {0: batch}))
    for number in (1, 3):
        others = videos(number)
        torch.testing.assert_close(tree_leaves(program.module()(*others)), list(network(*others)), rtol=1e-4, atol=1e-5)
    loaded = models.CooperativeCrossStream(**trn_streams(seed=4), exchange="cross").eval()
    loaded.load_state_dict(network.state_dict())
    assert all(map(torch.equal, loaded(*clips), expected))


def test_grad_cam_over_trn() -> None:
    """Segment by segment."""
    network, clips = over_trn().eval(), videos()
    activation = models.grad_cam(network, *clips, stream="temporal")
    feature_map = network.feature_maps(*clips)[1].detach().requires_grad_()
    scores, _ = network.classify("temporal", feature_map)
    (slope,) = torch.autograd.grad(scores.gather(1, activation.classes[:, None]).sum(), feature_map)
    coarse = (slope.mean((3, 4), keepdim=True) * feature_map.detach()).sum(2).relu()
    torch.testing.assert_close(activation.maps, nn.functional.interpolate(coarse, (32, 64), mode="bilinear"))
    with pytest.raises(ValueError, match="which TRN does not; take grad_cam$"):
        models.class_activation_map(network, *clips)


def test_trn_autocast() -> None:
    network, clips = over_trn().eval(), videos()
    with torch.autocast("cpu", torch.bfloat16):
        output = network(*clips)
    with torch.no_grad():
        exact = network(*clips)
    for value, expected in zip(output, exact, strict=True):
        assert (value.float() - expected).abs().max() < 0.1 * expected.abs().max()
    assert output.spatial_embeddings.dtype == torch.float32
    sum(value.float().square().sum() for value in output).backward()
    for name, parameter in network.named_parameters():
        assert not parameter.requires_grad or math.isfinite(float(parameter.grad.sum())), name


def meta_i3d(**options: Any) -> models.I3D:
    with torch.device("meta"):
        return models.I3D(**{"classes": 5, **options})


def ccs(spatial: Any, temporal: Any) -> nn.Module:
    return models.CooperativeCrossStream(spatial=spatial, temporal=temporal)


with torch.device("meta"):
    ONE = tsn_streams()["spatial"]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: models.ConnectionBlock(channels=0), ValueError,
         "ConnectionBlock: channels must be at least 1; got 0"),
        (lambda: models.ConnectionBlock(channels=4, embedding_channels=0), ValueError,
         "ConnectionBlock: embedding_channels must be at least 1; got 0"),
        (lambda: models.ConnectionBlock(channels=4, exchange="both"), ValueError,
         r"ConnectionBlock: exchange must be one of \('own', 'cross'\); got 'both'"),
        (lambda: models.CooperativeCrossStream(spatial=meta_i3d(), temporal=tsn_streams()["temporal"]), TypeError,
         "CooperativeCrossStream: spatial and temporal must both be TSN, both TRN or both I3D; got I3D and TSN"),
        (lambda: models.CooperativeCrossStream(
            spatial=tsn_streams()["spatial"], temporal=trn_streams()["temporal"]), TypeError,
         "CooperativeCrossStream: .* both be TSN, both TRN or both I3D; got TSN and TRN"),
        (lambda: ccs(ONE, ONE), ValueError,
         "CooperativeCrossStream: spatial and temporal must be two networks; got one twice"),
        (lambda: ccs(ONE, tsn_streams(classes=7)["temporal"]), ValueError,
         "CooperativeCrossStream: spatial and temporal must have the same classes; got 5 and 7"),
        (lambda: ccs(meta_i3d(), meta_i3d(classes=7)), ValueError,
         "CooperativeCrossStream: spatial and temporal must have the same classes; got 5 and 7"),
        (lambda: ccs(trn_streams(segments=4)["spatial"], trn_streams()["temporal"]), ValueError,
         "CooperativeCrossStream: spatial and temporal must have the same segments; got 4 and 3"),
        (lambda: ccs(trn_streams(scales="single")["spatial"], trn_streams()["temporal"]), ValueError,
         r"CooperativeCrossStream: spatial and temporal must have the same scales; got \[3\] and \[3, 2\]"),
        (lambda: ccs(
            tsn_streams(segments=4, consensus="concatenation")["spatial"],
            tsn_streams(consensus="concatenation")["temporal"]), ValueError,
         "CooperativeCrossStream: spatial and temporal must have the same segments; got 4 and 3"),
        (lambda: models.CooperativeCrossStream(
            spatial=tsn_streams()["spatial"],
            temporal=models.TSN(models.BNInception(classes=None, in_channels=10), classes=5)), ValueError,
         r"CooperativeCrossStream: .* the same sizes of feature map and vector; got \(512, 512\) and \(1024, 1024\)"),
    ],
)  # fmt: skip
def test_rejects_arguments(make: Any, error: type[Exception], message: str) -> None:
    with torch.device("meta"), pytest.raises(error, match=rf"^models\.{message}$"):
        make()


def test_rejects_maps() -> None:
    block = models.ConnectionBlock(channels=4)
    x = torch.rand(2, 4, 3, 3)
    name = "^models.ConnectionBlock:"
    with pytest.raises(ValueError, match=rf"{name} spatial must be \[N, 4, h, w\]; got shape \[2, 3, 3\]$"):
        block(x[:, 0], x)
    with pytest.raises(ValueError, match=rf"{name} temporal must be \[2, 4, 3, 3\]; got shape \[2, 4, 3, 2\]$"):
        block(x, x[..., :2])
    with pytest.raises(TypeError, match=rf"{name} spatial must be a torch.Tensor \[N, 4, h, w\]; got list$"):
        block([1.0], x)


def test_rejects_streams_that_do_not_match() -> None:
    network = models.CooperativeCrossStream(**tsn_streams())
    frames, flow = videos()
    message = r"CooperativeCrossStream: frames and flow must give feature maps of one shape; got \[2, 3, .*\[2, 2, "
    with pytest.raises(ValueError, match=message):
        network(frames, flow[:, :2])
    message = r"^models\.CooperativeCrossStream: tuples are for streams of TRN; these are TSN$"
    with pytest.raises(ValueError, match=message):
        network(frames, flow, DRAWN)


def test_streams_without_fixed_segments_may_differ_in_training() -> None:
    with torch.device("meta"):
        ccs(tsn_streams(segments=4)["spatial"], tsn_streams(consensus="concatenation")["temporal"])
