"""Writing files so that a reader never meets half of one: beside the target first, then in place by renaming."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from mmsent.errors import DataError


def write_bytes(path: Path, data: bytes) -> Path:
    """Write a file whole or not at all, making its folder. Raises DataError where it cannot be written."""
    write_together({path: data})
    return path


def write_together(files: Mapping[Path, bytes]) -> None:
    """Write several files that belong together: none is put in place before all of them are on disk.

    Raises DataError where one cannot be written; then all are as they were.
    """
    temporaries = {path: path.with_name(path.name + ".tmp") for path in files}
    path = Path()
    try:
        for path, data in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporaries[path].open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        for path, temporary in temporaries.items():
            os.replace(temporary, path)
    except OSError as error:
        _remove(temporaries)
        raise DataError(f"cannot write {path}: {error.strerror or error}") from error
    except BaseException:
        _remove(temporaries)
        raise


def _remove(temporaries: Mapping[Path, Path]) -> None:
    for temporary in temporaries.values():
        try:
            temporary.unlink(missing_ok=True)
        except OSError:  # a folder that cannot be written, or that is none
            continue


def sync_folder(folder: Path) -> None:
    """Make renames within a folder durable, where the system lets folders be synced."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)
