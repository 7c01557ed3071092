"""Tells from a container's own sizes whether the end of a video file is missing.

Decoding does not tell: FFmpeg takes a WebM or AVI file that was cut in two for a shorter video, without an
error. The number of frames in the header does not tell either: it is one too many in every HMDB51 file, and 0 in
WebM. But these containers are boxes that begin with their length, so the outermost boxes say where the file
must end.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO

_EBML = b"\x1a\x45\xdf\xa3"
_MATROSKA_SEGMENT = b"\x18\x53\x80\x67"
# Some writers of AVI count the 8 bytes of the header itself.
_RIFF_SLACK = 8


def announced_size(path: Path) -> int:
    """Return the size in bytes that the file must have to hold all that its headers announce.

    Args:
        path: an AVI, MP4/MOV or Matroska/WebM file; for any other, and where the writer left the length
            open, as a live stream does, the answer is 0: nothing is announced. Bytes after the video, which
            are harmless, do not count.

    Returns:
        The size, which is greater than the file's own where its end is missing.
    """
    actual = os.path.getsize(path)
    with path.open("rb") as file:
        start = file.read(12)
        if start[:4] == b"RIFF" and start[8:] == b"AVI ":
            return max(_riff_end(file, actual) - _RIFF_SLACK, 0)
        if start[:4] == _EBML:
            return _matroska_end(file)
        if start[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
            return _iso_end(file, actual)
    return 0


def _riff_end(file: BinaryIO, actual: int) -> int:
    """End of the last RIFF chunk; files above 1 GB are several in a row."""
    end = 0
    while end < actual:
        file.seek(end)
        header = file.read(8)
        if len(header) < 8 or header[:4] != b"RIFF":
            break
        length = struct.unpack("<I", header[4:])[0]
        if length in (0, 0xFFFFFFFF):  # written to a pipe: the length was never filled in
            return 0
        end += 8 + length
    return end


def _iso_end(file: BinaryIO, actual: int) -> int:
    """End of the last box that holds pictures or their index; after those, anything may follow."""
    position = end = 0
    while position < actual:
        file.seek(position)
        header = file.read(16)
        if len(header) < 8:
            break
        length, kind = struct.unpack(">I4s", header[:8])
        if length == 1 and len(header) == 16:  # a 64-bit length follows
            length = struct.unpack(">Q", header[8:])[0]
        if length < 8:  # 0 is "to the end of the file"; less than its own header is no box
            break
        position += length
        if kind in (b"mdat", b"moov", b"moof"):
            end = position
    return end


def _matroska_end(file: BinaryIO) -> int:
    """End of the first segment, which is the whole video."""
    file.seek(4)
    header_length = _matroska_number(file)
    if header_length is None:
        return 0
    file.seek(header_length, os.SEEK_CUR)
    if file.read(4) != _MATROSKA_SEGMENT:
        return 0
    length = _matroska_number(file)
    return 0 if length is None else file.tell() + length


def _matroska_number(file: BinaryIO) -> int | None:
    """A number whose leading zero bits say how many bytes it has; all ones, or no number, is unknown."""
    first = file.read(1)
    if not first or first == b"\x00":
        return None
    following = 8 - first[0].bit_length()
    data = bytes([first[0] & ((1 << (7 - following)) - 1)]) + file.read(following)
    number = int.from_bytes(data, "big")
    return None if number == (1 << (7 * (following + 1))) - 1 else number
