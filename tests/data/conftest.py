"""Videos of generated actions, written once for all tests of data sets."""

from pathlib import Path

import pytest

from pyaction.data import write_actions

SIZE, FRAMES = (48, 64), 14


@pytest.fixture(scope="session")
def actions_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """33 videos, 14 frames of 48 x 64, in the shape of UCF101. Not to be changed."""
    root = tmp_path_factory.mktemp("actions")
    write_actions(root, groups=3, clips=1, size=SIZE, frames=FRAMES, seed=4)
    return root
