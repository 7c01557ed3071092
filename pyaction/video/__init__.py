"""Files to frames and frames to files."""

from pyaction.video.opening import open
from pyaction.video.reader import Reader, VideoError
from pyaction.video.writer import Writer, write

__all__ = ["Reader", "VideoError", "Writer", "open", "write"]
