"""A folder of heads to publish: safetensors, config.json and a model card; and reading it back.

    README.md                      model card (see mmsent.export.model_card)
    config.json                    labels, heads, and what features they take
    heads/<run>/head.safetensors   the run's own weights, byte for byte
    heads/<run>/run.json           the record of the run, without paths, commands and names of the machine

Each folder in heads/ is a run folder, so every command that takes runs also takes the whole folder, or one of these.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mmsent.encoders.converted import INT8
from mmsent.errors import RunError, UsageError
from mmsent.system.files import put_folder
from mmsent.system.records import require_format
from mmsent.training.runs import BLOCKS, Run, open_run
from mmsent.version import __version__

CONFIG, CARD, HEADS = "config.json", "README.md", "heads"
FORMAT_VERSION = 1
_HEAD = "head.safetensors"  # all that predicting needs beside run.json; other files may hold ids of the data
_PRIVATE = {"command", "machine", "memory", "device", "head_sha256", "format_version"}


def published(run: Run) -> dict[str, Any]:
    """The record of a run without what describes the machine that trained it."""
    info = {name: value for name, value in run.info.items() if name not in _PRIVATE}
    cache = dict(run.info["cache"])
    cache["path"] = Path(cache["path"]).name
    told = dict(cache["encoder_settings"])
    runtime = INT8 if told.get("runtime") == INT8 else "auto"  # its features are others
    cache["encoder_settings"] = told | {"weights": None, "text_folder": None, "device": "auto", "runtime": runtime}
    return {**info, "cache": cache}


def common_facts(runs: Sequence[Run]) -> dict[str, Any]:
    """What all heads of an export share: labels and features."""
    cache = runs[0].info["cache"]
    return {
        "library_name": "mmsent",
        "mmsent_version": __version__,
        "labels": runs[0].labels,
        "encoder": cache["encoder"],
        "fingerprint": cache["fingerprint"],
        "contract": runs[0].contract,
    }


def write_hub(runs: Sequence[Run], out: Path, card: str) -> Path:
    """Write the folder whole. card: the text of README.md. Raises UsageError where it exists already."""
    heads = [{"name": run.name, "fusion": run.info["fit"]["fusion"], "temperature": run.temperature} for run in runs]
    about = {"format_version": FORMAT_VERSION, **common_facts(runs), "heads": heads}

    def fill(building: Path) -> None:
        for run in runs:
            run.head()  # refuses a damaged file
            folder = building / HEADS / run.name
            folder.mkdir(parents=True)
            shutil.copyfile(run.path / _HEAD, folder / _HEAD)
            if run.tune:
                run.blocks()  # refuses a damaged file
                shutil.copyfile(run.path / BLOCKS, folder / BLOCKS)
            info = {"format_version": run.info["format_version"], **published(run)}
            text = json.dumps({**info, "head_sha256": run.info["head_sha256"]}, indent=1, ensure_ascii=False)
            (folder / "run.json").write_text(text, encoding="utf-8", errors="backslashreplace")
        text = json.dumps(about, indent=1, ensure_ascii=False)
        (building / CONFIG).write_text(text, encoding="utf-8")
        (building / CARD).write_text(card, encoding="utf-8")

    return write_folder(out, fill)


def write_folder(out: Path, fill: Callable[[Path], None]) -> Path:
    """Make a folder whole or not at all. Raises UsageError where it exists already, RunError where it cannot be
    written."""
    if out.exists():
        raise UsageError(f"{out} exists already; remove it, or name another folder with --out")
    try:
        return put_folder(out.parent, out.name, fill)
    except OSError as error:
        raise RunError(f"cannot write {out}: {error.strerror or error}") from error


def open_runs(path: Path) -> list[Run]:
    """The runs in a folder: a run folder's own, or all of an exported folder, in its order. Raises RunError where it is
    neither."""
    file = path / CONFIG
    if (path / "run.json").is_file() or not file.is_file():
        return [open_run(path)]
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
        if about.get("library_name") != "mmsent":
            raise RunError(f"{path} is a model of {about.get('library_name', 'another library')}, not of mmsent")
        require_format(about, FORMAT_VERSION, path)
        names = [str(head["name"]) for head in about["heads"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{file} cannot be read: {error}") from error
    if strange := [name for name in names if Path(name).name != name or name in {"", ".", ".."}]:
        raise RunError(f"{file} names a head {strange[0]!r}, which cannot be the name of a folder")
    return [open_run(path / HEADS / name) for name in names]
