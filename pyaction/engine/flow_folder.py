"""The folder that the flow of many videos goes to: one job, one run at a time, and a record of what is finished."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import IO

from pyaction.engine.flow_sinks import FlowJob
from pyaction.video import VideoError

_SETTINGS = "flow.json"
_RECORD = "finished.jsonl"
_LOCK = ".lock"
_VERSION = 2  # raised where the same job would make other flow than before


def read_record(folder: Path) -> dict[str, tuple[str, int]]:
    """What a folder says is finished: result, relative to it -> path and bytes of its video. Empty for a new folder."""
    record = folder / _RECORD
    sources = {}
    for line in record.read_text().splitlines() if record.exists() else ():
        try:
            entry = json.loads(line)
            sources[entry["target"]] = (entry["source"], entry["bytes"])
        except (ValueError, KeyError, TypeError):
            continue  # the last line of a run that was killed: its result counts as in the way
    return sources


class FlowFolder:
    """A folder of flow, locked while it is open. All flow in it is of one job.

    Args:
        path: The folder; made if need be.
        job: What its flow is, or will be.

    Raises (when entered):
        ValueError: The folder holds flow made with other settings, or another run is writing to it.
        OSError: The folder cannot be made or written to.
    """

    def __init__(self, path: Path, job: FlowJob) -> None:
        self.path = path
        self.job = job
        self._lock: IO[str] | None = None
        self._sources: dict[str, tuple[str, int]] = {}  # see read_record

    def __enter__(self) -> FlowFolder:
        """Locks the folder, notes the job in it or checks that it is the one noted, and reads the record."""
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = (self.path / _LOCK).open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise ValueError(f"another run is writing to {self.path}; wait for it, or choose another -o") from None
        try:
            self._settle_job()
            self._sources = read_record(self.path)
        except BaseException:
            self._lock.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        """Lets go of the folder."""
        assert self._lock is not None
        self._lock.close()

    def is_finished(self, target: Path, source: Path) -> bool:
        """Whether `target`, a path within the folder, is the flow of `source`.

        Raises:
            video.VideoError: It is something else.
        """
        if not target.exists():
            return False
        noted = self._sources.get(str(target.relative_to(self.path)))
        if noted is None:
            raise VideoError(f"{target} is in the way of the flow of {source}; remove it, or choose another -o")
        if noted[1] != source.stat().st_size:
            raise VideoError(f"{target} is the flow of {noted[0]}, not of {source}; choose another -o")
        return True

    def note_finished(self, target: Path, source: Path) -> None:
        """Adds a result to the record."""
        name, size = str(target.relative_to(self.path)), source.stat().st_size
        self._sources[name] = (str(source), size)
        with (self.path / _RECORD).open("a") as record:
            record.write(json.dumps({"target": name, "source": str(source), "bytes": size}) + "\n")

    def _settle_job(self) -> None:
        note = self.path / _SETTINGS
        settings = {"version": _VERSION, **asdict(self.job)}
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
            raise ValueError(f"{self.path} holds flow made with {', '.join(wrong)}; choose another -o")
