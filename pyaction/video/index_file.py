"""Keeps the frame index of a video in a small file, from one visit to the next."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from pyaction.video.frame_index import FrameIndex

_MAGIC = b"pyaction frame index 2\n"
_NO_TIME = -(2**63)  # as FFmpeg writes it


class IndexFile:
    """The index of one video in a folder that many videos share, with any number of processes at work.

    Its name is made of the video's whole path, so that equal names in different folders do not meet. It holds the
    size and the modification time of the video and the name of the decoder: what was made for others is as good as
    none, and so is a damaged file.
    """

    def __init__(self, folder: Path, video: Path, decoder: str) -> None:
        place = os.fsencode(os.path.abspath(video))
        self.path = folder / f"{hashlib.sha256(place).hexdigest()[:32]}.index"
        self._video = video
        self._decoder = decoder
        self._made_for = self._video_now()

    def load(self) -> FrameIndex | None:
        """Return what an earlier visit saved of the video as it is; None where there is nothing."""
        try:
            content = self.path.read_bytes()
        except OSError:
            return None
        checksum, body = content[len(_MAGIC) : len(_MAGIC) + 4], content[len(_MAGIC) + 4 :]
        if not content.startswith(_MAGIC) or zlib.crc32(body).to_bytes(4, "little") != checksum:
            return None
        head, _, numbers = body.partition(b"\n")
        described = json.loads(head)
        if described["video"] != self._made_for:
            return None
        pts, fingerprints = np.frombuffer(numbers, "<i8").reshape(2, -1)
        return FrameIndex(
            pts=[None if time == _NO_TIME else time for time in pts.tolist()],
            keyframes=described["keyframes"],
            fingerprints=fingerprints.view("<u8").tolist(),
            upright_size=tuple(described["upright_size"]),
            quarter_turns=described["quarter_turns"],
            changes_size=described["changes_size"],
        )

    def save(self, index: FrameIndex) -> None:
        """Keep the index of a video that was read to its end without an error.

        Nothing is kept where the video has changed meanwhile; nor where the file cannot be written, because it only
        saves time. Whoever reads it at the same moment sees the old file or the new one.
        """
        described = {
            "video": self._made_for,
            "keyframes": index.keyframes,
            "upright_size": index.upright_size,
            "quarter_turns": index.quarter_turns,
            "changes_size": index.changes_size,
        }
        pts = np.array([_NO_TIME if time is None else time for time in index.pts], "<i8")
        fingerprints = np.array(index.fingerprints, "<u8")
        body = json.dumps(described).encode() + b"\n" + pts.tobytes() + fingerprints.tobytes()
        partial = self.path.with_name(f".{self.path.name}.{os.getpid()}.{os.urandom(4).hex()}")
        try:
            if self._video_now() == self._made_for:
                partial.write_bytes(_MAGIC + zlib.crc32(body).to_bytes(4, "little") + body)
                os.replace(partial, self.path)
        except OSError:
            with suppress(OSError):
                partial.unlink()

    def _video_now(self) -> dict[str, Any]:
        status = self._video.stat()
        return {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns, "decoder": self._decoder}
