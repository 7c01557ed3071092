"""What lies in a folder of results, for comparing two."""

import hashlib
import json
from pathlib import Path


def tree_of(folder: Path) -> dict[str, str]:
    """Every file's sha256, but for the record, whose order is that in which videos were finished; and every folder."""
    paths = [path for path in folder.rglob("*") if path.name != "finished.jsonl"]
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in paths
    }


def record_of(folder: Path) -> list[str]:
    """Its last word on every video."""
    entries = map(json.loads, (folder / "finished.jsonl").read_text().splitlines())
    return sorted(json.dumps(entry) for entry in {entry["targets"][0]: entry for entry in entries}.values())
