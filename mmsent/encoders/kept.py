"""Files of encoders that are made once per machine: in the folder mmsent/ of the user's cache folder (XDG_CACHE_HOME,
else ~/.cache), or for this process alone where that cannot be written."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from mmsent.system.files import clear_unfinished, folder_of_this_process, put_folder


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
        made = put_folder(home, name, fill)
        clear_unfinished(home)
        if made != folder:  # another process was faster, or what is damaged belongs to somebody else
            shutil.rmtree(made)
            if not whole(folder):
                raise PermissionError(errno.EPERM, "it is damaged and cannot be replaced", str(folder))
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
