import pytest
import torch

from pyaction import models


@pytest.mark.parametrize("hidden", [7, None])
def test_matches_reference(hidden: int | None) -> None:
    network = models.FuseNet(classes=5, hidden=hidden)
    spatial, temporal = torch.randn(3, 5), torch.randn(3, 5)
    x = torch.cat([scores.exp() / scores.exp().sum(1, keepdim=True) for scores in (spatial, temporal)], dim=1)
    if network.hidden is not None:
        x = (x @ network.hidden.weight.T + network.hidden.bias).clamp(min=0)
    expected = x @ network.fc.weight.T + network.fc.bias
    torch.testing.assert_close(network(spatial, temporal), expected)
    # Logarithms of probabilities are as good as logits.
    torch.testing.assert_close(network(spatial.log_softmax(1), temporal.softmax(1).log()), expected)


@pytest.mark.parametrize(("hidden", "count"), [(256, 103 * 256 + 257 * 51), (None, 103 * 51)])
def test_parameter_count(hidden: int | None, count: int) -> None:
    assert sum(parameter.numel() for parameter in models.FuseNet(hidden=hidden).parameters()) == count


def test_learns_whom_to_trust() -> None:
    """The spatial stream guesses and sounds sure; the temporal stream knows and sounds doubtful."""
    labels = torch.arange(600) % 6
    spatial, temporal = 20 * torch.eye(6)[torch.randint(6, (600,))], 2 * torch.eye(6)[labels]
    network = models.FuseNet(classes=6, hidden=None)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(spatial, temporal), labels).backward()
        optimizer.step()

    def accuracy(scores: torch.Tensor) -> float:
        return (scores.argmax(1) == labels).float().mean().item()

    assert accuracy(spatial.softmax(1) + temporal.softmax(1)) < 0.3
    assert accuracy(network(spatial, temporal)) > 0.9


def test_rejects_the_second_stream() -> None:
    message = r"^models.FuseNet: temporal must be \[N, 5\]; got shape \[2, 6\]$"
    with pytest.raises(ValueError, match=message):
        models.FuseNet(classes=5)(torch.rand(2, 5), torch.rand(2, 6))
