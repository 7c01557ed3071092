"""The wiring: what the commands do, as functions."""

from pyaction.engine.extraction import ExtractReport, extract
from pyaction.engine.jobs import Job
from pyaction.engine.result_folder import ResultFolder
from pyaction.engine.sources import find_videos
from pyaction.engine.video_results import write_results

__all__ = ["ExtractReport", "Job", "ResultFolder", "extract", "find_videos", "write_results"]
