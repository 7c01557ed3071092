"""Files to frames and frames to files."""

from pyaction.video.reader import Reader, VideoError, open
from pyaction.video.writer import Writer, write

__all__ = ["Reader", "VideoError", "Writer", "open", "write"]
