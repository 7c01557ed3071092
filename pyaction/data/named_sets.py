"""The data sets by name: where their annotations are, and what is peculiar to each."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from pyaction.data.annotations import (
    Subset,
    read_hmdb51,
    read_kinetics,
    read_something_v2,
    read_ucf101,
)
from pyaction.data.data_sets import ClipSpec, VideoDataSet
from pyaction.data.generated import ACTIONS, ActionScene, write_actions


class UCF101(VideoDataSet):
    """UCF101: 13320 videos of 101 actions (Soomro et al., 2012).

    Args:
        root: Folder of the 101 folders of videos.
        lists: Folder of `classInd.txt`, `trainlist01.txt`, ...
        spec: What to make of each video.
        split: 1, 2 or 3.
        subset: "train" or "test".

    Raises:
        ValueError: As `read_ucf101` and `VideoDataSet`.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        lists: str | os.PathLike[str],
        spec: ClipSpec,
        *,
        split: int,
        subset: Subset,
    ) -> None:
        super().__init__(read_ucf101(lists, split, subset), root, spec)


class HMDB51(VideoDataSet):
    """HMDB51: 6766 videos of 51 actions (Kuehne et al., 2011).

    Args:
        root: Folder of the 51 folders of videos.
        lists: Folder of the files `<class>_test_split<N>.txt`.
        spec: What to make of each video.
        split: 1, 2 or 3.
        subset: "train" or "test".
        include_unused: Whether the videos that the split uses for neither are added, as paper 003 trains.

    Raises:
        ValueError: As `read_hmdb51` and `VideoDataSet`.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        lists: str | os.PathLike[str],
        spec: ClipSpec,
        *,
        split: int,
        subset: Subset,
        include_unused: bool = False,
    ) -> None:
        super().__init__(read_hmdb51(lists, split, subset, include_unused=include_unused), root, spec)


class Kinetics(VideoDataSet):
    """Kinetics-400, -600 or -700 (Kay et al., 2017): clips of ten seconds. Many are gone: `on_error="skip"`.

    Args:
        root: Folder of the folders of classes, `<class>/<youtube_id>_<start>_<end>.mp4`.
        csv: The annotation file.
        spec: What to make of each video.
        class_names: Classes in the order of the labels; None: the file's own, sorted.

    Raises:
        ValueError: As `read_kinetics` and `VideoDataSet`.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        csv: str | os.PathLike[str],
        spec: ClipSpec,
        *,
        class_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__(read_kinetics(csv, class_names=class_names), root, spec)


class SomethingSomethingV2(VideoDataSet):
    """Something-Something V2: 220847 videos of 174 actions with things (Goyal et al., 2017).

    Some of its classes tell left from right, so no transform mirrors its clips.

    Args:
        root: Folder of the videos, `<id>.webm`.
        annotations: `something-something-v2-train.json`, `-validation.json` or `-test.json`.
        labels: `something-something-v2-labels.json`.
        spec: What to make of each video.

    Raises:
        ValueError: As `read_something_v2` and `VideoDataSet`.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        annotations: str | os.PathLike[str],
        labels: str | os.PathLike[str],
        spec: ClipSpec,
    ) -> None:
        super().__init__(read_something_v2(annotations, labels), root, spec)


class GeneratedActions(VideoDataSet):
    """Videos of moving shapes that are made on first use, with exact optical flow: see `write_actions`.

    Made by one process: where several train, call `write_actions` in one of them first.

    Args:
        root: Where they are, or will be.
        spec: What to make of each video.
        split: 1, 2 or 3.
        subset: "train" or "test".
        groups: Of videos that share a scene.
        clips: Videos of each class in each group.
        size: (height, width) in pixels.
        frames: Of each video.
        seed: Of everything that is random in the videos.

    Raises:
        ValueError: As `write_actions`; root holds videos that were made with other arguments.

    Example:
        >>> import functools, tempfile
        >>> from pyaction import data
        >>> spec = data.ClipSpec(functools.partial(data.sampling.clip_indices, length=8))
        >>> options = {"groups": 3, "clips": 1, "size": (48, 64), "frames": 12}
        >>> actions = data.GeneratedActions(tempfile.mkdtemp(), spec, split=2, subset="train", **options)
        >>> len(actions), actions.class_names[:2], actions[7]["frames"].shape
        (22, ('BallSlide', 'BallBounce'), torch.Size([1, 8, 3, 48, 64]))
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        spec: ClipSpec,
        *,
        split: int,
        subset: Subset,
        groups: int = 9,
        clips: int = 2,
        size: tuple[int, int] = (120, 160),
        frames: int = 40,
        seed: int = 0,
    ) -> None:
        write_actions(root, groups=groups, clips=clips, size=size, frames=frames, seed=seed)
        super().__init__(read_ucf101(Path(root) / "annotations", split, subset), Path(root) / "videos", spec)
        self._scene = {"size": size, "frames": frames, "seed": seed}

    def true_flow(self, index: int) -> tuple[Tensor, Tensor]:
        """The flow between all neighbouring frames of an item's video, as `ActionScene.flow` gives it."""
        action, name = self.annotations[index].path.split("/")
        group, clip = (int(part[1:]) - 1 for part in Path(name).stem.split("_")[-2:])
        kind = next(one for one in ACTIONS if one.name == action)
        return ActionScene(kind, group=group, clip=clip, **self._scene).flow()  # type: ignore[arg-type]
