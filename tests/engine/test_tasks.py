"""One video's share of a run: what comes out of it where it goes wrong."""

from pathlib import Path

import pytest
import torch

from pyaction import ops
from pyaction.engine import Job
from pyaction.engine.tasks import Failure, Outcome, Stop, Task


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ImportError("DALI is not there"), Stop),
        (NotImplementedError("compiled without CUDA"), Stop),
        (torch.OutOfMemoryError("a large video"), Failure),
        (RuntimeError("an odd video"), Failure),
    ],
)
def test_what_ends_a_run(
    error: Exception, outcome: type[Outcome], clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is wrong with the set-up does, what is wrong with a video does not."""

    def fail(stream: ops.TVL1Stream, frame: torch.Tensor) -> None:
        raise error

    monkeypatch.setattr(ops.TVL1Stream, "push", fail)
    made = Task(clip, Path("moving"), Job(), tmp_path, "cpu", "raise").run()
    assert type(made) is outcome
    if isinstance(made, Stop):
        assert type(made.error) is type(error) and str(made.error) == str(error)
    else:
        assert made == Failure(f"{clip}: {error}")
