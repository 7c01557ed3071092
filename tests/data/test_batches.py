import re
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset

from pyaction.data.batches import BalancedBatchSampler

# 30 videos of 5 classes: 6 each, of labels that are no row of numbers, in mixed order.
LABELS = [(7 * i % 5) * 3 - 4 for i in range(30)]
SIZES = st.lists(st.integers(1, 15), min_size=2, max_size=8)


def labels_of(sizes):
    return [10 + label for label, size in enumerate(sizes) for _ in range(size)]


@given(sizes=SIZES, data=st.data())
def test_batches_are_balanced(sizes, data):
    classes, videos = data.draw(st.integers(1, len(sizes))), data.draw(st.integers(1, 6))
    labels = labels_of(sizes)
    sampler = BalancedBatchSampler(labels, classes, videos, seed=data.draw(st.integers(0, 99)))
    batches = list(sampler)
    assert len(batches) == len(sampler) == -(-len(labels) // (classes * videos))
    for batch in batches:
        assert all(0 <= index < len(labels) for index in batch)
        groups = [batch[at : at + videos] for at in range(0, classes * videos, videos)]
        assert len(batch) == classes * videos and len({labels[group[0]] for group in groups}) == classes
        for group in groups:
            (label,) = {labels[index] for index in group}  # class by class
            times = Counter(group).values()
            size = labels.count(label)
            assert len(times) == min(videos, size) and max(times) - min(times) <= 1
    drawn = Counter(labels[index] for batch in batches for index in batch)
    per_class = [drawn[label] // videos for label in set(labels)]
    assert max(per_class) - min(per_class) <= 1  # classes come in turn


@given(sizes=SIZES, videos=st.integers(1, 6))
def test_videos_of_a_class_come_in_turn(sizes, videos):
    # One class after the other, so that every count is known: as often as each other, give or take one.
    labels = labels_of(sizes)
    drawn = Counter(index for batch in BalancedBatchSampler(labels, len(sizes), videos) for index in batch)
    for label in set(labels):
        times = [drawn[index] for index, one in enumerate(labels) if one == label]
        assert max(times) - min(times) <= 1


def test_an_epoch_covers_the_set():
    # 5 classes of 6 videos in 5 batches of 3 x 2: each class thrice, its 6 videos once each.
    for seed in range(20):
        assert sorted(index for batch in BalancedBatchSampler(LABELS, 3, 2, seed=seed) for index in batch) == list(
            range(30)
        )


def test_a_small_class_repeats_and_a_large_one_is_seen_in_part():
    labels = labels_of([1, 2, 9])  # 12 videos in 2 batches of 2 x 3
    batches = list(BalancedBatchSampler(labels, 3, 3))  # 9 in a batch
    assert len(batches) == 2
    for batch in batches:
        times = Counter(batch)
        assert times[0] == 3 and {times[1], times[2]} == {1, 2}
    assert len({index for batch in batches for index in batch if index > 2}) == 6


def test_same_seed_and_epoch_same_batches():
    sampler, twin = BalancedBatchSampler(LABELS, 3, 2, seed=7), BalancedBatchSampler(torch.tensor(LABELS), 3, 2, seed=7)
    first = list(sampler)
    assert list(sampler) == first == list(twin)
    sampler.set_epoch(4)
    assert list(sampler) != first
    twin.set_epoch(4)
    assert list(sampler) == list(twin)
    assert list(BalancedBatchSampler(LABELS, 3, 2, seed=8)) != first


def test_own_generator():
    before = torch.get_rng_state()
    list(BalancedBatchSampler(LABELS, 3, 2))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_ranks_share_one_shuffle(world_size):
    samplers = [BalancedBatchSampler(LABELS, 3, 2, seed=5, rank=r, world_size=world_size) for r in range(world_size)]
    for sampler in samplers:
        sampler.set_epoch(2)
    whole = BalancedBatchSampler(LABELS, 3, 2, seed=5)
    whole.set_epoch(2)
    ranks = [list(sampler) for sampler in samplers]
    per_rank = {2: 3, 3: 2, 4: 2}[world_size]  # 5 batches for one process, rounded up
    assert [len(batches) for batches in ranks] == [len(sampler) for sampler in samplers] == [per_rank] * world_size
    dealt = [batch for step in zip(*ranks, strict=True) for batch in step]
    assert dealt[:5] == list(whole)
    assert len({tuple(batch) for batch in dealt}) == len(dealt)


def test_asks_torch_distributed(monkeypatch):
    sampler = BalancedBatchSampler(LABELS, 3, 2, seed=5)  # made before the processes know each other
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 3)
    assert list(sampler) == list(BalancedBatchSampler(LABELS, 3, 2, seed=5, rank=1, world_size=3))
    assert len(sampler) == 2
    # What is given holds.
    assert list(BalancedBatchSampler(LABELS, 3, 2, seed=5, rank=0, world_size=2)) != list(sampler)


class Numbers(Dataset):
    def __len__(self):
        return len(LABELS)

    def __getitem__(self, index):
        return index, LABELS[index]


def test_in_a_data_loader():
    sampler = BalancedBatchSampler(LABELS, 3, 2, seed=3)
    loader = DataLoader(Numbers(), batch_sampler=sampler)
    assert len(loader) == 5
    assert [indices.tolist() for indices, _ in loader] == list(sampler)
    for _, labels in loader:
        assert labels.unique(return_counts=True)[1].tolist() == [2, 2, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": 0}, "classes must be a whole number of at least 1; got 0"),
        ({"videos": -1}, "videos must be a whole number of at least 1; got -1"),
        ({"seed": -3}, "seed must be a whole number of at least 0; got -3"),
        ({"classes": 6}, "classes must be at most the number of different labels, 5; got 6"),
        ({"labels": []}, "labels must be whole numbers (set,), at least one; got torch.float32 [0]"),
        ({"labels": [0.5, 1.5]}, "labels must be whole numbers (set,), at least one; got torch.float32 [2]"),
        ({"labels": torch.zeros(2, 3).long()}, "at least one; got torch.int64 [2, 3]"),
        ({"labels": ["run", "jump"]}, "labels must be whole numbers (set,), at least one; got"),
        ({"rank": 1}, "rank and world_size must be given together; got 1 and None"),
        ({"rank": 3, "world_size": 3}, "rank must be in 0..world_size - 1; got 3 of 3"),
    ],
)
def test_rejects(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        BalancedBatchSampler(**({"labels": LABELS, "classes": 3, "videos": 2} | arguments))
