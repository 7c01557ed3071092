"""The folder that the results of many videos go to: one job, one run at a time, a record of whose results lie there.

A video's results are made in a hidden folder of this one, and moved to their names when they are whole. The process
that has locked the folder does all the moving, so that those who make results may be killed at any moment, or go on
for a while on another machine, and harm nothing. Before it moves anything it notes in the record what it is and whose:
a video is finished if all that is noted is there, and otherwise what is there is known to be a leftover.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from pyaction.engine.jobs import Job
from pyaction.video import VideoError

_SETTINGS = "pyaction.json"
_RECORD = "finished.jsonl"
_LOCK = ".lock"
_PARTIAL = ".partial-"
_VERSION = 3  # raised where the same job would have other results than before
# The workers of a run that was killed hold its lock until they have noticed, which takes milliseconds.
_SECONDS_FOR_LOCK = 2.0


@dataclass(frozen=True)
class _Entry:
    """A line of the record."""

    targets: tuple[str, ...]
    source: str
    bytes: int


def read_record(folder: Path) -> dict[str, _Entry]:
    """What a folder says of its results, by the first target of each. Empty for a new folder."""
    record = folder / _RECORD
    entries = {}
    for line in record.read_text().splitlines() if record.exists() else ():
        try:
            found = json.loads(line)
            entry = _Entry(tuple(map(str, found["targets"])), str(found["source"]), int(found["bytes"]))
            entries[entry.targets[0]] = entry
        except (ValueError, LookupError, TypeError):
            continue  # half a line, the last one of a full disk: what it tells of was not moved
    return entries


def results_of(folder: Path) -> set[Path]:
    """Resolved paths of all that the record of a folder knows."""
    return {(folder / target).resolve() for entry in read_record(folder).values() for target in entry.targets}


class ResultFolder:
    """A folder of results, locked while it is open. All in it is of one job.

    Args:
        path: The folder; made if need be.
        job: What the results are, or will be.

    Raises (when entered):
        ValueError: The folder holds results of other settings, or another run is writing to it.
        OSError: The folder cannot be made or written to.
    """

    workplace: Path
    """A hidden folder, for folders in which results are made."""

    def __init__(self, path: Path, job: Job) -> None:
        self.path = path
        self.job = job
        self._lock: BinaryIO | None = None
        self._record: BinaryIO | None = None
        self._entries: dict[str, _Entry] = {}

    def __enter__(self) -> ResultFolder:
        """Locks the folder, notes the job in it or checks that it is the one noted, and reads the record."""
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = (self.path / _LOCK).open("wb")
        try:
            self._take_lock()
            self._settle_job()
            self._entries = read_record(self.path)
            self._remove_partial()
            self._record = (self.path / _RECORD).open("a+b", buffering=0)
            self._end_last_line()
            self.workplace = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=self.path))
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        """Removes what is not finished, and lets go of the folder."""
        try:
            self._remove_partial()
        finally:
            self._close()

    @property
    def lock(self) -> int:
        """A file descriptor. The folder stays locked while any process has it open."""
        assert self._lock is not None
        return self._lock.fileno()

    def is_finished(self, name: Path, source: Path) -> bool:
        """Whether the results of that name are there, and are those of `source`.

        Raises:
            video.VideoError: Something else is there.
        """
        targets = self._targets(name)
        found = [target for target in targets if os.path.lexists(self.path / target)]
        if not found:
            return False
        entry = self._entries.get(targets[0])
        if entry is None or entry.targets != targets:
            raise VideoError(
                f"{self.path / found[0]} is in the way of the results of {source}; remove it, or choose another -o"
            )
        if source.exists() and entry.bytes != source.stat().st_size:
            raise VideoError(f"{self.path / found[0]} is of {entry.source}, not of {source}; choose another -o")
        return found == list(targets)

    def place(self, name: Path, source: Path, made: Path) -> None:
        """Moves what was made in a folder in the workplace to where it belongs, and removes that folder.

        Raises:
            video.VideoError: Something else is there.
            OSError: The record cannot be written.
        """
        if self.is_finished(name, source):
            raise VideoError(f"{self.path / name} was made by somebody else meanwhile; run the command again")
        targets = self._targets(name)
        self._note(_Entry(targets, str(source), source.stat().st_size))
        for target in targets:
            (self.path / target).parent.mkdir(parents=True, exist_ok=True)
            remove(self.path / target)  # of a run that was killed between two of them
            os.rename(made / target, self.path / target)
        remove(made)

    def _targets(self, name: Path) -> tuple[str, ...]:
        return tuple(map(str, self.job.targets(name)))

    def _note(self, entry: _Entry) -> None:
        assert self._record is not None
        line = (json.dumps(asdict(entry)) + "\n").encode()
        if self._record.write(line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path / _RECORD))
        self._entries[entry.targets[0]] = entry

    def _end_last_line(self) -> None:
        """What a full disk has cut off must not take the next line with it."""
        assert self._record is not None
        if self._record.seek(0, os.SEEK_END):
            self._record.seek(-1, os.SEEK_END)
            if self._record.read(1) != b"\n":
                self._record.write(b"\n")

    def _take_lock(self) -> None:
        deadline = time.monotonic() + _SECONDS_FOR_LOCK
        while True:
            try:
                return fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    text = f"another run is writing to {self.path}; wait for it, or choose another -o"
                    raise ValueError(text) from None
                time.sleep(0.05)

    def _remove_partial(self) -> None:
        for partial in self.path.glob(f"{_PARTIAL}*"):
            # A worker on another machine may add a file meanwhile, and then ends because the next one has no folder.
            for _ in range(5):
                shutil.rmtree(partial, ignore_errors=True)
                if not partial.exists():
                    break
                time.sleep(0.1)

    def _close(self) -> None:
        for file in (self._record, self._lock):
            if file is not None:
                file.close()

    def _settle_job(self) -> None:
        note = self.path / _SETTINGS
        settings = json.loads(json.dumps({"version": _VERSION, **asdict(self.job)}))
        if not note.exists():
            partial = note.with_name(f".{note.name}.partial")
            partial.write_text(json.dumps(settings, indent=1))
            os.replace(partial, note)
            return
        try:
            found = json.loads(note.read_text())
        except ValueError:
            found = None
        if not isinstance(found, dict) or "version" not in found:
            raise ValueError(f"{note} is not pyaction's; choose another -o")
        wrong = [
            f"{key} {found.get(key)!r}, not {value!r}" for key, value in settings.items() if found.get(key) != value
        ]
        if wrong:
            raise ValueError(f"{self.path} holds results made with {', '.join(wrong)}; choose another -o")


def remove(path: Path) -> None:
    """Removes a file, or a folder and what is in it, or nothing."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
