"""The frames of a video file one after another, as FFmpeg decodes them through PyAV.

PyAV keeps FFmpeg's own messages off the terminal by default; nothing here touches that process-wide setting.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import av
from av.error import FFmpegError

from pyaction.video.reader import VideoError


class DamageError(Exception):
    """Data that decodes only in part."""


class DecodingPass:
    """The frames of a file one after another, as decoded, and a place to seek in them.

    Ends with an FFmpegError or a `DamageError` where the file is damaged.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._container = av.open(str(path))
        except (FFmpegError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise VideoError(
                f"{path} cannot be opened as a video ({reason}); "
                "play it to see whether it is one, and copy or download it again"
            ) from error
        stream = cast("av.VideoStream | None", self._container.streams.best("video"))
        if stream is None:
            kinds = {str(other.type) for other in self._container.streams}
            self._container.close()
            raise VideoError(f"{path} has no pictures, only {', '.join(kinds) or 'a header'}; name a video file")
        if stream.codec_context is None:
            self._container.close()
            raise VideoError(
                f"{path} is compressed by a codec that this FFmpeg cannot decode; "
                "re-encode it where it plays: ffmpeg -i INPUT OUTPUT.mp4"
            )
        # One thread. With more, FFmpeg conceals damage differently from run to run and does not always report it:
        # one file broke off after 20 frames in one run and 52 in the next. On 2 cores they gain 14 % for UCF101,
        # 17 % for VP9 at 1080x1920 (to RGB); whoever is in a hurry reads several files at once.
        stream.thread_type = "NONE"
        stream.thread_count = 1
        if stream.codec_context.name == "mjpeg":
            # Without it nothing tells that a part of a picture is missing, which shows what lay in memory instead.
            stream.codec_context.options = {"err_detect": "explode"}
        self.stream = stream
        self._wanted: set[int] = set()
        self._last_wanted: int | None = None
        self._frames = self._decode()

    def __iter__(self) -> Iterator[av.VideoFrame]:
        return self._frames

    def _decode(self) -> Iterator[av.VideoFrame]:
        decode = self.stream.decode
        for packet in self._container.demux(self.stream):
            if self._last_wanted is not None:
                self._choose(packet, self._last_wanted)
            # A packet with missing bytes is not decoded; what the decoder still holds comes before it.
            is_corrupt = packet.is_corrupt
            for frame in decode(None if is_corrupt else packet):
                if frame.is_corrupt:
                    raise DamageError("part of a picture does not decode")
                yield frame
            if is_corrupt:
                raise DamageError("the end of a picture is missing")

    def want(self, times: set[int]) -> None:
        """Until the last of these times, let the decoder leave out other frames to which none refers.

        Those are most B-frames of H.264: for 16 frames of a clip of Kinetics it takes three quarters of the time.
        """
        if times is not self._wanted and self.stream.codec_context.has_b_frames:
            self._wanted, self._last_wanted = times, max(times)

    def _choose(self, packet: av.Packet, last_wanted: int) -> None:
        is_spared = packet.pts is not None and packet.pts < last_wanted and packet.pts not in self._wanted
        self.stream.codec_context.skip_frame = "NONREF" if is_spared else "DEFAULT"

    def expected_length(self) -> int | None:
        """Return the number of frames by the header; by the length in seconds where it states no number."""
        rate, duration = self.stream.average_rate, self._container.duration
        estimated = round(rate * duration / av.time_base) if rate and duration else 0
        return self.stream.frames or estimated or None

    def packet_times(self) -> list[int]:
        """Read to the end without decoding: when each packet is shown, or decoded where that is all the file says.

        In ticks of the stream; a packet without any time is left out.
        """
        times = (packet.dts if packet.pts is None else packet.pts for packet in self._container.demux(self.stream))
        return [time for time in times if time is not None]

    def seek(self, pts: int | None) -> None:
        """Continue at the last keyframe at or before a time, in ticks of the stream, or near it."""
        assert pts is not None
        self._container.seek(pts, stream=self.stream)
        self._frames = self._decode()

    def close(self) -> None:
        """Close the file; closing twice is allowed."""
        self._container.close()
