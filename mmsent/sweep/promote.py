"""Promoting a sweep: its winners become the newest runs, which commands take by themselves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path

from mmsent.config import Fusion
from mmsent.errors import RunError
from mmsent.sweep.results import Sweep
from mmsent.system.files import put_folder, write_bytes
from mmsent.training.runs import Run, list_runs, open_run

RECORD = "run.json"


def promote(done: Sweep, fusions: Collection[Fusion] = ()) -> list[Run]:
    """Copy a sweep's winners, or those with these fusions, to the runs beside the sweep and say in each when that was;
    the best becomes the newest. Raises RunError where a winner is gone, or the copy cannot be written."""
    folder, promoted = done.path.parent, []
    there = {(run.info["finished"], run.info["head_sha256"]): run for run in list_runs(folder)}
    for one in reversed(done.winners):
        if fusions and one["fit"]["fusion"] not in fusions:
            continue
        run = open_run(done.run_path(one["run"]))
        facts = {"sweep": {"name": done.name, "trial": one["number"]}, "promoted": datetime.now(UTC).isoformat()}
        text = json.dumps(run.info | facts, indent=1, ensure_ascii=False).encode("utf-8", "backslashreplace")
        beside = there.get((run.info["finished"], run.info["head_sha256"]))
        if beside is not None:  # promoted before, or kept there by a version before
            write_bytes(beside.path / RECORD, text)
            promoted.append(open_run(beside.path))
            continue

        def fill(building: Path, source: Path = run.path, text: bytes = text) -> None:
            shutil.copytree(source, building, dirs_exist_ok=True)
            (building / RECORD).write_bytes(text)

        try:
            promoted.append(open_run(put_folder(folder, run.name, fill)))
        except OSError as error:
            raise RunError(f"cannot write a run in {folder}: {error.strerror or error}") from error
    return promoted[::-1]
