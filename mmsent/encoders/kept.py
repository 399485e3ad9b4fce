"""Files of encoders that are made once per machine: in the folder mmsent/ of the user's cache folder (XDG_CACHE_HOME,
else ~/.cache), or for this process alone where that cannot be written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from mmsent.system.files import BUILDING, clear_unfinished, folder_of_this_process, passing_folder, put_folder


def kept_folder(name: str, whole: Callable[[Path], bool], fill: Callable[[Path], None]) -> Path:
    """The folder of this name; `fill` writes its files where there is none yet, or it is not `whole`. Raises OSError
    where it can be written nowhere."""
    try:
        home = _home()
        folder = home / name
        if folder.is_dir():
            if whole(folder):
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
        return folder
    except OSError:  # a home that cannot be written, or has no room
        folder = folder_of_this_process("mmsent-encoder-")
        fill(folder)
        return folder


def _home() -> Path:
    """Raises OSError where there is no home."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mmsent"
    except RuntimeError as error:
        raise OSError("no home folder") from error
