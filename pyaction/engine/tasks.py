"""A video's share of the work on a data set, as it is sent to another process and comes back."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from pathlib import Path

import torch

from pyaction.engine.jobs import Job, OnError
from pyaction.engine.video_results import Made, OnProgress, make_results, no_progress
from pyaction.video import VideoError


@dataclass(frozen=True)
class Task:
    """One video to do. The paths are absolute: a worker is elsewhere."""

    source: Path
    name: Path
    job: Job
    workplace: Path
    """See `ResultFolder.workplace`."""
    device: str
    on_error: OnError

    def run(self, on_progress: OnProgress = no_progress) -> Outcome:
        """Does it. No exception comes out."""
        try:
            return make_results(
                self.source, self.job, self.name, self.workplace, self.device, self.on_error, on_progress
            )
        except VideoError as error:
            return Failure(str(error))
        except (ImportError, NotImplementedError) as error:  # what the method or the device needs is not installed
            return Stop(type(error)(str(error)), traceback.format_exc())
        except (ValueError, RuntimeError, MemoryError) as error:  # it is large, or odd: no reason to leave the others
            return Failure(f"{self.source}: {str(error) or type(error).__name__}")
        except OSError as error:  # of our own making, so that it can be sent
            facts = (error.errno, error.strerror, error.filename) if error.errno else (str(error),)
            return Stop(OSError(*facts), traceback.format_exc())
        except Exception as error:
            return Stop(RuntimeError(f"{self.source}: {error!r}"), traceback.format_exc())


@dataclass(frozen=True)
class Failure:
    """What is wrong with one video, in a sentence; the others can still be done."""

    reason: str


@dataclass(frozen=True)
class Stop:
    """What is wrong with all of them: a full disk, say."""

    error: Exception
    trace: str


Outcome = Made | Failure | Stop


def prepare_worker() -> None:
    """Sets up a process that runs tasks: videos are done side by side, so that each needs one thread."""
    torch.set_num_threads(1)
