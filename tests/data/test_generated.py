"""pyaction.data.generated: the videos show what their flow and labels say."""

from pathlib import Path

import pytest
import torch

from pyaction import video
from pyaction.data.generated import ACTIONS, ActionScene, write_actions
from pyaction.ops import warp


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.name)
def test_true_flow_explains_the_frames(action) -> None:  # type: ignore[no-untyped-def]
    """Off occlusions to 2 grey levels; nothing moving does not."""
    scene = ActionScene(action, group=4, clip=1, frames=9, seed=3)
    frames, (flow, visible) = scene.frames().float(), scene.flow()
    assert flow.shape == (8, 2, 120, 160) and visible.shape == (8, 120, 160)
    assert visible.float().mean() > 0.8
    shown = visible[:, None].expand(-1, 3, -1, -1)
    difference = (warp(frames[1:], flow, padding="border") - frames[:-1]).abs()[shown]
    still = (frames[1:] - frames[:-1]).abs()[shown]
    assert difference.mean() < 1 and difference.quantile(0.999) < 2 < still.quantile(0.999)
    assert flow.abs().amax() < 12


def test_same_arguments_same_pixels() -> None:
    action = ACTIONS[3]
    scene = ActionScene(action, group=1, clip=2, frames=2, seed=5)
    again = ActionScene(action, group=1, clip=2, frames=2, seed=5)
    assert torch.equal(scene.frames(), again.frames())
    for other in (
        {"group": 2, "clip": 2, "seed": 5},
        {"group": 1, "clip": 1, "seed": 5},
        {"group": 1, "clip": 2, "seed": 6},
    ):
        assert not torch.equal(scene.frames(), ActionScene(action, frames=2, **other).frames())


def test_backgrounds_do_not_give_the_class_away() -> None:
    corners = [ActionScene(action, group=2, clip=0, frames=1).frames()[0, :, :12, :12] for action in ACTIONS]
    assert all(torch.equal(corner, corners[0]) for corner in corners)


def test_looks_and_motions_are_shared() -> None:
    for action in ACTIONS[:9]:
        assert sum(other.shape == action.shape for other in ACTIONS) == 3
        assert sum(other.motion == action.motion for other in ACTIONS) == 3


def test_write_actions(tmp_path: Path) -> None:
    options = {"groups": 3, "clips": 1, "size": (32, 48), "frames": 3, "seed": 2}
    lines: list[str] = []
    write_actions(tmp_path, **options, say=lines.append)  # type: ignore[arg-type]
    assert lines[0] == "BallSlide: 3 videos" and len(lines) == len(ACTIONS)
    names = (tmp_path / "annotations" / "classInd.txt").read_text().splitlines()
    assert names[0] == "1 BallSlide" and names[-1] == f"{len(ACTIONS)} Eat"
    for split in (1, 2, 3):
        train = (tmp_path / "annotations" / f"trainlist0{split}.txt").read_text().splitlines()
        test = (tmp_path / "annotations" / f"testlist0{split}.txt").read_text().splitlines()
        assert len(train) == 2 * len(ACTIONS) and len(test) == len(ACTIONS)
        paths = [line.split()[0] for line in (*train, *test)]
        assert len(set(paths)) == 3 * len(ACTIONS)
        assert all((tmp_path / "videos" / path).exists() for path in paths)
        groups = [{path[-10:-8] for path in part} for part in (paths[: len(train)], paths[len(train) :])]
        assert not groups[0] & groups[1]
    path = tmp_path / "videos" / "Eat" / "v_Eat_g02_c01.mp4"
    with video.open(path) as reader:
        shown = reader.frames().float()
    made = ActionScene(ACTIONS[-1], group=1, clip=0, size=(32, 48), frames=3, seed=2).frames()
    assert (shown - made).abs().mean() < 4
    # Begun again it makes what is missing, and nothing else.
    kept = tmp_path / "videos" / "Drink" / "v_Drink_g01_c01.mp4"
    before, content = kept.stat().st_mtime_ns, path.read_bytes()
    path.unlink()
    write_actions(tmp_path, **options)  # type: ignore[arg-type]
    assert path.read_bytes() == content and kept.stat().st_mtime_ns == before


def test_rejects() -> None:
    with pytest.raises(ValueError, match="at least 1 frame of 16 x 16 pixels; got 0 of 120 x 160"):
        ActionScene(ACTIONS[0], group=0, clip=0, frames=0)
    with pytest.raises(ValueError, match="at least 3 groups of 1 clip; got 2 of 1"):
        write_actions("nowhere", groups=2, clips=1)
