import torch

from pyaction import flow as pf
from pyaction.data import transforms as tr

# Three fields of 2 × 3 pixels, x and y. Small enough to follow each point with a pencil.
FIELDS = torch.tensor(
    [
        [[[1, 0.5, -1], [0, 2, 0]], [[1, 0, 0], [-1, 0, 0.5]]],
        [[[0, 1, 0], [1, 0, -1]], [[0, 1, 0], [-1, -0.5, 0]]],
        [[[1, 2, 3], [4, 5, 6]], [[10, 20, 30], [40, 50, 60]]],
    ]
)
# Where the points of the first frame are in the second (x, y), and so the motion there:
#   (1, 1)   (1.5, 0)  (1, 0)        (0, -0.5)  (0.5, 0.5)  (1, 1)
#   (0, 0)   (3, 1)    (2, 1.5)      (0, 0)     (-1, 0)     (-1, 0)      (3, 1) and (2, 1.5) are out: edge (2, 1)
# and in the third:
#   (1, 0.5) (2, 0.5)  (2, 1)        (3.5, 35)  (4.5, 45)   (6, 60)
#   (0, 0)   (2, 1)    (1, 1.5)      (1, 10)    (6, 60)     (5, 50)      (1, 1.5) is out: edge (1, 1)
FOLLOWED = torch.tensor(
    [
        [[1, 0.5, -1], [0, 2, 0]],
        [[1, 0, 0], [-1, 0, 0.5]],
        [[0, 0.5, 1], [0, -1, -1]],
        [[-0.5, 0.5, 1], [0, 0, 0]],
        [[3.5, 4.5, 6], [1, 6, 5]],
        [[35, 45, 60], [10, 60, 50]],
    ]
)


def test_stack_trajectories_known_value():
    assert torch.equal(tr.stack_trajectories(FIELDS), FOLLOWED)
    assert torch.equal(tr.stack_trajectories(FIELDS[:1]), FIELDS[0])


def test_stack_trajectories_in_batches():
    other = torch.randn(3, 2, 2, 3, generator=torch.Generator().manual_seed(2)) * 3
    batch = torch.stack([FIELDS, other, FIELDS, -FIELDS]).unflatten(0, (2, 2))
    stacked = tr.stack_trajectories(batch)
    assert stacked.shape == (2, 2, 6, 2, 3)
    assert torch.equal(stacked[0, 0], FOLLOWED) and torch.equal(stacked[1, 0], FOLLOWED)
    assert torch.equal(stacked[0, 1], tr.stack_trajectories(other))
    assert tr.stack_trajectories(batch[:0]).shape == (0, 2, 6, 2, 3)


def test_stack_trajectories_gradcheck():
    flow = (
        torch.rand(3, 2, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 0.3 + 0.1
    ).requires_grad_()
    assert torch.autograd.gradcheck(tr.stack_trajectories, flow)


def test_what_stands_still_is_stacked_alike():
    first_still = torch.cat([torch.zeros(1, 2, 2, 3), FIELDS[1:2]])
    assert torch.equal(tr.stack_trajectories(first_still), tr.stack_flow(first_still))


def test_stack_flow_known_value():
    stacked = tr.stack_flow(FIELDS)
    assert stacked.shape == (6, 2, 3)
    assert stacked[:, 1, 2].tolist() == [0, 0.5, -1, 0, 6, 60]  # x, y, x, y, x, y
    encoded = pf.encode(FIELDS)
    assert torch.equal(tr.stack_flow(encoded), pf.encode(stacked))
    assert tr.stack_flow(torch.zeros(4, 0, 10, 2, 7, 8)).shape == (4, 0, 20, 7, 8)


def test_stack_bidirectional_known_value():
    # Frames ... τ-2, τ-1, τ, τ+1, τ+2 ...; 1 × 2 pixels; a thing that speeds up to the right and sinks.
    forward = torch.tensor([[[[3.0, 3.5]], [[1.0, 1.5]]], [[[4.0, 4.5]], [[2.0, 2.5]]]])  # τ -> τ+1, τ+1 -> τ+2
    reverse = torch.tensor([[[[-2.0, -2.5]], [[-0.5, -0.75]]], [[[-1.0, -1.5]], [[-0.25, 0]]]])  # τ -> τ-1 -> τ-2
    expected = [[3, 3.5], [1, 1.5], [4, 4.5], [2, 2.5], [-2, -2.5], [-0.5, -0.75], [-1, -1.5], [-0.25, 0]]
    assert tr.stack_bidirectional(forward, reverse).squeeze(1).tolist() == expected
    batch = tr.stack_bidirectional(torch.stack([forward, reverse]), torch.stack([reverse, forward]))
    assert batch.shape == (2, 8, 1, 2)
    assert batch[0].squeeze(1).tolist() == expected and batch[1, :4].squeeze(1).tolist() == expected[4:]


def test_subtract_mean_flow_known_value():
    # Means: 0.5, 0; then 1, 10.
    stacked = torch.tensor([[[1.0, 0], [2, -1]], [[3, -3], [0.5, -0.5]], [[1, 1], [1, 1]], [[0, 40], [0, 0]]])
    expected = [[[0.5, -0.5], [1.5, -1.5]], [[3, -3], [0.5, -0.5]], [[0, 0], [0, 0]], [[-10, 30], [-10, -10]]]
    assert tr.subtract_mean_flow(stacked).tolist() == expected
    fields = tr.subtract_mean_flow(stacked.unflatten(0, (2, 2)))  # one mean per field
    assert fields.flatten(0, 1).tolist() == expected
