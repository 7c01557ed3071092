"""The command as a whole; `pyaction flow` has its tests in engine/test_flow_files.py."""

import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from pyaction import _native, cli, ops, video
from pyaction.cli import main
from pyaction.engine import ExtractReport


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    lines = capsys.readouterr().out.splitlines()
    facts = _native.build_facts()
    assert lines[0].split() == ["pyaction", facts["version"]]
    (cpu,) = [line for line in lines if line.startswith("CPU kernels")]
    assert f"in use: {_native.simd_level()}" in cpu


def test_info_lists_every_op(capsys: pytest.CaptureFixture[str]) -> None:
    main(["info"])
    text = capsys.readouterr().out
    for op in ops.OPS:
        (line,) = [line for line in text.splitlines() if line.startswith(f"op {op} ")]
        assert "CPU" in line and "missing" not in line


def test_demo_finds_the_motion_it_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "-o", str(tmp_path / "demo")]) == 0
    text = capsys.readouterr().out
    error, still = re.search(r"error: ([\d.]+) pixels \(saying that nothing moves: ([\d.]+)\)", text).groups()
    assert float(error) < 0.25 * float(still)
    assert len(re.findall(r"^23 pairs of frames in \d+\.\d s on cpu: \d+\.\d fps$", text, re.MULTILINE)) == 2
    with video.open(tmp_path / "demo" / "flow_video" / "moving_box.mp4") as reader:
        assert len(reader) == 23


@pytest.mark.parametrize("command", [[], ["demo"], ["info"], ["flow"], ["extract"]])
def test_help_shows_an_example(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert f"example: pyaction {command[0]}" in text if command else "flow" in text and "info" in text


def test_log_has_a_line_a_minute(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no terminal, which pytest's stderr is not."""
    clock = SimpleNamespace(monotonic=lambda: 10.0 * report.seconds, perf_counter=time.perf_counter)
    report = ExtractReport(total=1000, skipped=400)
    monkeypatch.setattr(cli, "time", clock)
    with cli._Display() as display:
        for _ in range(14):
            display.show(report)
            report.written, report.frames, report.seconds = report.written + 3, report.frames + 60, report.seconds + 1
    text = capsys.readouterr().err.strip()
    lines = [
        "418/1000 videos, 3.00 videos/s, 60.0 fps, 0:03:14 left",
        "436/1000 videos, 3.00 videos/s, 60.0 fps, 0:03:08 left",
    ]
    assert text.splitlines() == lines


def test_unknown_command_is_refused() -> None:
    run = subprocess.run([sys.executable, "-m", "pyaction.cli", "flwo"], capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "invalid choice: 'flwo'" in run.stderr and "Traceback" not in run.stderr
