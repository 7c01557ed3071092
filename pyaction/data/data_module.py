"""The data sets as Lightning wants them."""

from __future__ import annotations

import os
from typing import Any, Literal, cast

import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, DistributedSampler

from pyaction.data.batches import BalancedBatchSampler, place_of_process
from pyaction.data.dali_loader import DALILoader
from pyaction.data.data_sets import ClipDataSet, VideoDataSet
from pyaction.data.transforms.items import Item

Loader = DataLoader[Item] | DALILoader


class ClipDataModule(LightningDataModule):
    """Loaders of training, validation and test clips.

    Each process of a distributed run gets its share; what is drawn depends on seed, epoch and item alone, not on the
    number of workers. With `balanced` the Trainer needs `use_distributed_sampler=False`: the batches are dealt out to
    the processes already.

    Args:
        train: Shuffled, another order each epoch; None where nothing is trained.
        validation: In order.
        test: In order; for `trainer.predict` too. In a distributed run the processes' shares are made equal by some
            items twice, and a video that cannot be read is replaced by another: tell both by `"index"`.
        batch_size: Clips per batch and process. The last batch of an epoch is smaller, except in training, where it is
            left out unless it is the only one.
        workers: Processes that read and transform, per loader and training process; None: one for each core. 0 does
            it in the main process.
        backend: "pyav", or "dali": `DALILoader` decodes on the device that Lightning trains on.
        balanced: (N, M): training batches of M clips from each of N classes (`BalancedBatchSampler`) instead.
        seed: Of the order.

    Raises:
        ValueError: batch_size or workers is too small, there is no such backend, or no data set at all.
    """

    def __init__(
        self,
        *,
        train: ClipDataSet | None = None,
        validation: ClipDataSet | None = None,
        test: ClipDataSet | None = None,
        batch_size: int,
        workers: int | None = None,
        backend: Literal["pyav", "dali"] = "pyav",
        balanced: tuple[int, int] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if batch_size < 1 or (workers is not None and workers < 0):
            raise ValueError(
                f"ClipDataModule: batch_size must be at least 1 and workers 0; got {batch_size} and {workers}"
            )
        if train is None and validation is None and test is None:
            raise ValueError("ClipDataModule: give at least one of train, validation and test")
        if backend not in ("pyav", "dali"):
            raise ValueError(f"ClipDataModule: backend must be 'pyav' or 'dali'; got {backend!r}")
        self.train, self.validation, self.test = train, validation, test
        self.batch_size, self.backend, self.balanced, self.seed = batch_size, backend, balanced, seed
        self.workers = len(os.sched_getaffinity(0)) if workers is None else workers

    def train_dataloader(self) -> Loader:
        """Batches in random order."""
        data_set = _given("train", self.train)
        rank, processes = place_of_process()
        # Where training is taken up again, Lightning starts the workers before it sets the epoch.
        epoch = 0 if self.trainer is None else self.trainer.current_epoch
        if self.balanced is None:
            sampler = _EpochSampler(data_set, num_replicas=processes, rank=rank, seed=self.seed)
            sampler.set_epoch(epoch)
            drop_last = len(sampler) >= self.batch_size
            return self._loader(data_set, sampler=sampler, batch_size=self.batch_size, drop_last=drop_last)
        batches = BalancedBatchSampler(data_set.labels, *self.balanced, seed=self.seed)
        both = _EpochOfBoth(batches, data_set)
        both.set_epoch(epoch)
        batches.sampler = both  # type: ignore[attr-defined]  # where Lightning looks for something with an epoch
        return self._loader(data_set, batch_sampler=batches)

    def val_dataloader(self) -> Loader | list[Loader]:
        """Batches in order; none where there is no validation set."""
        return [] if self.validation is None else self._in_order(self.validation)

    def test_dataloader(self) -> Loader:
        """Batches in order."""
        return self._in_order(_given("test", self.test))

    def predict_dataloader(self) -> Loader:
        """As `test_dataloader`."""
        return self.test_dataloader()

    def on_after_batch_transfer(self, batch: Item, dataloader_idx: int) -> Item:
        """Does what the data set wants done on the device."""
        trainer = self.trainer
        assert trainer is not None  # who called
        if trainer.training:
            name, data_set = "train", self.train
        elif trainer.validating or trainer.sanity_checking:
            name, data_set = "validation", self.validation
        else:
            name, data_set = "test", self.test
        return _given(name, data_set).finish(batch)

    def _in_order(self, data_set: ClipDataSet) -> Loader:
        """The same in every epoch."""
        rank, processes = place_of_process()
        sampler: DistributedSampler[Item] = DistributedSampler(data_set, processes, rank, shuffle=False)
        return self._loader(data_set, sampler=sampler, batch_size=self.batch_size)

    def _loader(self, data_set: ClipDataSet, **order: Any) -> Loader:
        if self.backend == "dali":
            device = self.trainer.strategy.root_device if self.trainer is not None else "cpu"
            return DALILoader(cast("VideoDataSet", data_set), device=device, workers=self.workers, **order)
        return DataLoader(
            data_set,
            **order,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=torch.cuda.is_available(),
        )


class _EpochSampler(DistributedSampler[Item]):
    """Tells the data set the epoch that Lightning tells it. Works with one process too."""

    def set_epoch(self, epoch: int) -> None:
        super().set_epoch(epoch)
        cast("ClipDataSet", self.dataset).set_epoch(epoch)


class _EpochOfBoth:
    def __init__(self, batches: BalancedBatchSampler, data_set: ClipDataSet) -> None:
        self._parts = batches, data_set

    def set_epoch(self, epoch: int) -> None:
        for part in self._parts:
            part.set_epoch(epoch)


def _given(name: str, data_set: ClipDataSet | None) -> ClipDataSet:
    if data_set is None:
        raise ValueError(f"ClipDataModule: this needs a data set that was not given: {name}")
    return data_set
