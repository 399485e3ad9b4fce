"""Folders that pass: removed at the end of their block, and those of killed processes by the next."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mmsent.system.files import passing_folder

KILLED = """
import os, signal, sys
from pathlib import Path
from mmsent.system.files import passing_folder
with passing_folder(Path(sys.argv[1]), "mmsent-") as made:
    (made / "much").write_text("much")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_it_is_gone_after_its_block_also_after_an_error(tmp_path: Path) -> None:
    with passing_folder(tmp_path, "mmsent-") as made:
        (made / "inner").mkdir()
        assert made.parent == tmp_path
    assert not list(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt), passing_folder(tmp_path, "mmsent-"):
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="only there it is known which processes live")
def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "mmsent-other").mkdir()
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2
    with passing_folder(tmp_path, "mmsent-") as ours, passing_folder(tmp_path, "mmsent-") as more:
        assert set(tmp_path.iterdir()) == {tmp_path / "mmsent-other", ours, more}


def test_what_another_container_uses_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the machine's name and shares the folder, and no process here has its number."""
    monkeypatch.setattr("os.readlink", lambda _: "pid:[4026532999]")
    monkeypatch.setattr("os.getpid", lambda: 2**22 + 1)
    with passing_folder(tmp_path, "mmsent-") as theirs:
        monkeypatch.undo()
        with passing_folder(tmp_path, "mmsent-") as ours:
            assert set(tmp_path.iterdir()) == {theirs, ours}
