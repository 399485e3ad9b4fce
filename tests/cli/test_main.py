"""The program as a process: its standard streams."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = f'"{sys.executable}" -m mmsent'


def shell(line: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["bash", "-c", line], cwd=folder, env=os.environ | environment, capture_output=True, timeout=100, check=False
    )


@pytest.mark.parametrize("streams", [">&-", "<&- >&- 2>&-"])
def test_closed_streams(tmp_path: Path, streams: str) -> None:
    assert shell(f"{PROGRAM} cache ls {streams}", tmp_path).returncode == 0


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "gbk"])
def test_streams_in_another_encoding(tmp_path: Path, encoding: str) -> None:
    for command in ("--help", "cache ls", "cache ls --cache 'Überprüfung 正'"):
        run = shell(f"{PROGRAM} {command}", tmp_path, PYTHONIOENCODING=encoding)
        assert (run.returncode, run.stderr) == (0, b"")
    assert b"no caches in " in run.stdout


@pytest.mark.parametrize("command", ["cache ls", "cache ls --json", "fit --help"])
def test_a_reader_that_leaves_and_a_disk_that_is_full(tmp_path: Path, command: str) -> None:
    run = shell(f"{PROGRAM} {command} | head -c 0; exit ${{PIPESTATUS[0]}}", tmp_path)
    assert (run.returncode, run.stderr) == (1, b"")
    if Path("/dev/full").exists():
        run = shell(f"{PROGRAM} {command} > /dev/full", tmp_path)
        assert run.returncode == 1
        assert run.stderr.startswith(b"mmsent: the system refuses: No space left on device; free some space")
