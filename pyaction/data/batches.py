"""Batches with several videos of each of several classes, as losses on pairs and triplets need them."""

import math
from collections.abc import Iterator, Sequence
from numbers import Integral

import torch
import torch.distributed
from torch import Tensor
from torch.utils.data import Sampler

from pyaction.data.transforms.draws import generator_of


class BalancedBatchSampler(Sampler[list[int]]):
    """Batches of `classes` classes with `videos` videos of each; for `DataLoader(batch_sampler=...)`.

    Paper 001 (Zhang et al., CCS, 2019), 4.1: N random classes, then M random videos of each; with both modalities
    of every video a batch holds 2 · N · M instances. A batch is a list of N · M indices, class by class.

    An epoch draws about as many videos as the set has: ceil(set / (N · M · ranks)) batches on each rank. Classes
    come in turn: all of them in random order, then all again. So do the videos of a class. A class of mean size is
    thus seen about once as a whole, of a larger one a random part, and a smaller one more than once. A class occurs
    once in a batch at most, and so does a video, unless its class has fewer than M: such a class is drawn with
    repetition, its videos equally often but for one.

    With several processes all ranks deal from one shuffle, given by seed and epoch: together they see what one
    process would, and each gets its own batches, as many as every other. Call `set_epoch` before each epoch, or
    every epoch has the same batches.

    Args:
        labels: the class of each video, whole numbers, (set,) as a sequence or a tensor.
        classes: N, at least 1, at most the number of different labels.
        videos: M, at least 1; 2 or more give triplets a positive.
        seed: at least 0. Must be the same on all ranks.
        rank: this process, 0..world_size - 1; None asks torch.distributed when an epoch begins, and is 0 where
            that is not initialised.
        world_size: the number of processes; given exactly where rank is.

    Raises:
        ValueError: an argument is not as above.

    Example:
        >>> from pyaction.data.batches import BalancedBatchSampler
        >>> labels = [7, 7, 3, 3, 3, 5, 5]
        >>> sampler = BalancedBatchSampler(labels, classes=3, videos=2)
        >>> [sorted(labels[i] for i in batch) for batch in sampler]
        [[3, 3, 5, 5, 7, 7], [3, 3, 5, 5, 7, 7]]
    """

    def __init__(
        self,
        labels: Sequence[int] | Tensor,
        classes: int,
        videos: int,
        *,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        who = "BalancedBatchSampler"
        for name, count, least in (("classes", classes, 1), ("videos", videos, 1), ("seed", seed, 0)):
            if not isinstance(count, Integral) or count < least:
                raise ValueError(f"{who}: {name} must be a whole number of at least {least}; got {count!r}")
        if (rank is None) != (world_size is None):
            raise ValueError(f"{who}: rank and world_size must be given together; got {rank} and {world_size}")
        if rank is not None and world_size is not None and not 0 <= rank < world_size:
            raise ValueError(f"{who}: rank must be in 0..world_size - 1; got {rank} of {world_size}")
        label = _whole_numbers(f"{who}: labels must be whole numbers (set,), at least one", labels)
        numbers = label.unique()
        if len(numbers) < classes:
            raise ValueError(
                f"{who}: classes must be at most the number of different labels, {len(numbers)}; got {classes}"
            )
        self.classes, self.videos, self.seed, self.epoch = classes, videos, seed, 0
        self._members = [(label == number).nonzero().flatten().tolist() for number in numbers]
        self._given = None if rank is None or world_size is None else (rank, world_size)

    def set_epoch(self, epoch: int) -> None:
        """Makes the next iteration give the batches of that epoch, 0 or more; call it on every rank."""
        self.epoch = epoch

    def __len__(self) -> int:
        _, world_size = self._place()
        return math.ceil(sum(map(len, self._members)) / (self.classes * self.videos * world_size))

    def __iter__(self) -> Iterator[list[int]]:
        rank, world_size = self._place()
        generator = generator_of(self.seed, self.epoch)
        all_classes = _Deck(list(range(len(self._members))), generator)
        decks = [_Deck(members, generator) for members in self._members]
        for number in range(len(self) * world_size):
            batch = [video for one in all_classes.draw(self.classes) for video in decks[one].draw(self.videos)]
            if number % world_size == rank:
                yield batch

    def _place(self) -> tuple[int, int]:
        return self._given or place_of_process()


def place_of_process() -> tuple[int, int]:
    """Rank of this process among those that torch.distributed runs, and how many there are; 0 and 1 without it."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def _whole_numbers(expected: str, labels: Sequence[int] | Tensor) -> Tensor:
    try:
        label = torch.as_tensor(labels).cpu()
    except (TypeError, ValueError) as error:  # texts, or rows of different lengths
        raise ValueError(f"{expected}; got {error}") from error
    if label.ndim != 1 or len(label) == 0 or label.is_floating_point():
        raise ValueError(f"{expected}; got {label.dtype} {[*label.shape]}")
    return label


class _Deck:
    """Cards that are dealt in random order, and shuffled again when too few are left."""

    def __init__(self, cards: list[int], generator: torch.Generator) -> None:
        self._cards = cards
        self._left: list[int] = []
        self._generator = generator

    def draw(self, count: int) -> list[int]:
        """Deals `count` cards, different ones as far as there are as many."""
        rounds, count = divmod(count, len(self._cards))
        if count > len(self._left):
            order = torch.randperm(len(self._cards), generator=self._generator).tolist()
            held = set(self._left)
            fresh = [self._cards[i] for i in order if self._cards[i] not in held]
            # Those left over come first, and again a whole round later: never twice in one hand.
            self._left = self._left + fresh + self._left
        hand, self._left = self._left[:count], self._left[count:]
        return self._cards * rounds + hand
