"""ClipDataModule: Lightning trains on it, epoch by epoch, alone and in two processes."""

import subprocess
import sys
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer

from pyaction import data, video
from pyaction.data import sampling
from pyaction.data import transforms as tr
from pyaction.data.data_module import ClipDataModule

SPEC = data.ClipSpec(
    partial(sampling.clip_indices, length=4), (tr.TrainingCrop(32),), on_device=(tr.Normalize(tr.TORCHVISION_RGB),)
)


class Recorder(LightningModule):
    """Notes what it is given, learns nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: dict[str, list[dict[str, Any]]] = {"train": [], "validation": [], "test": []}

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
        self.seen["train"].append(batch | {"epoch": self.current_epoch})
        return (self.weight * batch["frames"].mean()).sum()

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self.seen["validation"].append(batch)

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self.seen["test"].append(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def sets_of(root: Path, spec: data.ClipSpec = SPEC) -> tuple[data.VideoDataSet, data.VideoDataSet]:
    train, test = (data.read_ucf101(root / "annotations", 2, subset) for subset in ("train", "test"))  # type: ignore[arg-type]
    return data.VideoDataSet(train, root / "videos", spec), data.VideoDataSet(test, root / "videos", spec)


def trained(module: ClipDataModule, **options: Any) -> Recorder:
    recorder = Recorder()
    trainer = Trainer(max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False,
                      enable_progress_bar=False, enable_model_summary=False, **options)  # fmt: skip
    trainer.fit(recorder, module)
    if module.test is not None:
        trainer.test(recorder, module, verbose=False)
    return recorder


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.filterwarnings("ignore")  # Lightning's advice
def test_fit_and_test(actions_root: Path, workers: int) -> None:
    train, test = sets_of(actions_root)
    module = ClipDataModule(train=train, validation=test, test=test, batch_size=5, workers=workers, seed=3)
    seen = trained(module).seen
    epochs = [[batch for batch in seen["train"] if batch["epoch"] == epoch] for epoch in range(3)]
    orders = [torch.cat([batch["index"] for batch in epoch]).tolist() for epoch in epochs]
    assert all(len(order) == len(set(order)) == 20 for order in orders)  # 4 batches of 5; the last 2 of 22 wait
    assert orders[0] != orders[1] != orders[2]
    frames = epochs[0][0]["frames"]
    assert frames.shape == (5, 1, 4, 3, 32, 32) and frames.dtype == torch.float32  # finished by the data set
    # Another epoch shows other frames of a video.
    indices: list[dict[int, Any]] = [{}, {}, {}]
    for chosen, epoch in zip(indices, epochs, strict=True):
        for batch in epoch:
            chosen.update(zip(batch["index"].tolist(), batch["frame_indices"].tolist(), strict=True))
    assert any(indices[0][i] != indices[1][i] for i in set(indices[0]) & set(indices[1]))
    assert torch.cat([batch["index"] for batch in seen["test"]]).tolist() == list(range(11))
    first, last = (
        torch.cat([b["frame_indices"] for b in part]) for part in (seen["validation"][2:5], seen["validation"][-3:])
    )
    assert torch.equal(first, last)  # no other draw in another epoch
    sanity_check_and_epochs = torch.cat([batch["index"] for batch in seen["validation"]]).tolist()
    assert sanity_check_and_epochs == list(range(10)) + list(range(11)) * 3


@pytest.mark.parametrize("balanced", [None, (3, 2)])
@pytest.mark.filterwarnings("ignore")
def test_taken_up_again(actions_root: Path, tmp_path: Path, balanced: tuple[int, int] | None) -> None:
    """As if it had not been interrupted, though workers are started before Lightning sets the epoch."""
    options = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}

    def run(epochs: int, checkpoint: Path | None) -> Recorder:
        recorder, trainer = Recorder(), Trainer(max_epochs=epochs, enable_checkpointing=False, **options)  # type: ignore[arg-type]
        module = ClipDataModule(train=sets_of(actions_root)[0], batch_size=6, workers=2, balanced=balanced)
        trainer.fit(recorder, module, ckpt_path=checkpoint)
        trainer.save_checkpoint(tmp_path / "last.ckpt")
        return recorder

    whole = run(2, None).seen["train"]
    run(1, None)
    rest = run(2, tmp_path / "last.ckpt").seen["train"]
    assert len(rest) * 2 == len(whole)
    for one, other in zip(rest, whole[len(rest) :], strict=True):
        assert torch.equal(one["index"], other["index"]) and torch.equal(one["frame_indices"], other["frame_indices"])


@pytest.mark.filterwarnings("ignore")
def test_balanced(actions_root: Path) -> None:
    train, _ = sets_of(actions_root)
    seen = trained(ClipDataModule(train=train, batch_size=1, workers=0, balanced=(3, 2), seed=2)).seen["train"]
    epochs = [[batch for batch in seen if batch["epoch"] == epoch] for epoch in range(3)]
    for epoch in epochs:
        assert len(epoch) == 4  # ceil(22 / 6)
        assert all(sorted(Counter(batch["label"].tolist()).values()) == [2, 2, 2] for batch in epoch)
    orders = [[batch["index"].tolist() for batch in epoch] for epoch in epochs]
    assert orders[0] != orders[1] != orders[2]
    assert train.epoch == 2


@pytest.mark.filterwarnings("ignore")
def test_dali(actions_root: Path, tmp_path: Path) -> None:
    """The same clips as PyAV gives, in the same epochs."""
    pytest.importorskip("nvidia.dali")
    annotations = data.read_ucf101(actions_root / "annotations", 2, "test")
    for item in annotations.items[:6]:  # as Motion JPEG, which DALI decodes without a GPU
        with video.open(actions_root / "videos" / item.path) as reader:
            video.write(tmp_path / Path(item.path).with_suffix(".avi").name, reader.frames(), reader.fps)
    some = replace(annotations, items=annotations.items[:6])
    runs = []
    for backend in ("pyav", "dali"):
        train = data.VideoDataSet(some, tmp_path, SPEC)
        runs.append(trained(ClipDataModule(train=train, batch_size=3, workers=0, backend=backend)).seen["train"])  # type: ignore[arg-type]
    assert len(runs[0]) == 6
    for one, other in zip(*runs, strict=True):
        assert torch.equal(one["frame_indices"], other["frame_indices"]) and torch.equal(one["label"], other["label"])
        assert (one["frames"] - other["frames"]).abs().mean() * 0.226 * 255 < 3  # grey levels


def test_two_processes_share_the_work(actions_root: Path, tmp_path: Path) -> None:
    """What torch.distributed's two ranks see in an epoch is disjoint, and together everything."""
    script = tmp_path / "rank.py"
    script.write_text(f"""
import sys, torch, torch.distributed as dist
from pathlib import Path
from pyaction import data
from pyaction.data.data_module import ClipDataModule
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method="file://{tmp_path}/store", rank=rank, world_size=2)
root = Path("{actions_root}")
spec = data.ClipSpec(lambda frames, generator: data.sampling.clip_indices(frames, 2))
train = data.VideoDataSet(data.read_ucf101(root / "annotations", 2, "train"), root / "videos", spec)
for balanced in (None, (2, 1)):
    loader = ClipDataModule(train=train, batch_size=2, workers=0, balanced=balanced).train_dataloader()
    Path("{tmp_path}", f"{{balanced is None}}_{{rank}}").write_text(
        " ".join(str(int(index)) for batch in loader for index in batch["index"]))
""")
    processes = [subprocess.Popen([sys.executable, script, str(rank)]) for rank in range(2)]
    assert [process.wait(120) for process in processes] == [0, 0]
    # 11 each, of which one does not fill a batch; and 6 batches of 2 each.
    for balanced, count, most in (("True", 20, 1), ("False", 24, 2)):
        shares = [list(map(int, (tmp_path / f"{balanced}_{rank}").read_text().split())) for rank in range(2)]
        assert len(shares[0]) == len(shares[1])
        seen = Counter(shares[0] + shares[1])
        assert sum(seen.values()) == count and len(seen) >= 20 and max(seen.values()) <= most


def test_rejects(actions_root: Path) -> None:
    train, _ = sets_of(actions_root, replace(SPEC, on_device=()))
    with pytest.raises(ValueError, match="batch_size must be at least 1 and workers 0; got 0 and None"):
        ClipDataModule(train=train, batch_size=0)
    with pytest.raises(ValueError, match="backend must be 'pyav' or 'dali'; got 'decord'"):
        ClipDataModule(train=train, batch_size=2, backend="decord")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least one of train, validation and test"):
        ClipDataModule(batch_size=2)
    with pytest.raises(ValueError, match="a data set that was not given: test"):
        ClipDataModule(train=train, batch_size=2).test_dataloader()
