"""Files of encoders that are made once per machine: in the folder mmsent/ of the user's cache folder (XDG_CACHE_HOME,
else ~/.cache), or for this process alone where that cannot be written. What no process took for half a year, as the
files of earlier versions of torch, is removed when something new is made; it can be made again."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from mmsent.system.files import BUILDING, clear_unfinished, folder_of_this_process, passing_folder, put_folder

_UNUSED = 180 * 24 * 3600  # seconds


def kept_folder(name: str, whole: Callable[[Path], bool], fill: Callable[[Path], None]) -> Path:
    """The folder of this name, which ends in a dash and 16 hexadecimal digits; `fill` writes its files where there is
    none yet, or it is not `whole`. Raises OSError where it can be written nowhere."""
    try:
        home = _home()
        folder = home / name
        if folder.is_dir():
            if whole(folder):
                with contextlib.suppress(OSError):  # it may be somebody else's
                    os.utime(folder)  # taken now
                return folder
            shutil.rmtree(folder, ignore_errors=True)
        home.mkdir(parents=True, exist_ok=True)
        with passing_folder(home, BUILDING) as apart:  # what a killed process leaves may be a gigabyte
            made = put_folder(apart, name, fill)
            try:
                os.rename(made, folder)
            except OSError:  # another process was faster, or what is damaged belongs to somebody else
                if not whole(folder):
                    raise
        clear_unfinished(home)
        _clear_unused(home)
        return folder
    except OSError:  # a home that cannot be written, or has no room
        folder = folder_of_this_process("mmsent-encoder-")
        fill(folder)
        return folder


def _clear_unused(home: Path) -> None:
    for folder in home.iterdir():
        if re.search("-[0-9a-f]{16}$", folder.name):
            with contextlib.suppress(OSError):  # another process was faster
                if time.time() - folder.stat().st_mtime > _UNUSED:
                    shutil.rmtree(folder, ignore_errors=True)


def _home() -> Path:
    """Raises OSError where there is no home."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mmsent"
    except RuntimeError as error:
        raise OSError("no home folder") from error
