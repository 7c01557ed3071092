"""The wiring: what the commands do, as functions."""

from pyaction.engine.flow_files import find_videos, write_flow
from pyaction.engine.flow_folder import FlowFolder
from pyaction.engine.flow_sinks import FlowJob

__all__ = ["FlowFolder", "FlowJob", "find_videos", "write_flow"]
