"""The wiring: what the commands do, as functions."""

from pyaction.engine.flow_files import FlowJob, find_videos, write_flow

__all__ = ["FlowJob", "find_videos", "write_flow"]
