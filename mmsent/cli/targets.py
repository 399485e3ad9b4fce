"""Where a command may write: never over the files of a data set."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmsent.errors import UsageError

if TYPE_CHECKING:
    from mmsent.data.dataset import Dataset


def require_target(command: str, values: dict[str, Any]) -> None:
    """Raise UsageError where a command's --out, a file or a folder, would write into a data set, or names no file."""
    if str(values.get("manifest")) == "-":
        raise UsageError(
            "--manifest -: the ending of a manifest's name tells its form; write it to a file, such as posts.csv"
        )
    out = values.get("out")
    if out is None or (command == "predict" and str(out) == "-"):
        return
    if str(out) == "-":
        raise UsageError(f"--out -: mmsent {command} writes no file to standard output; name a file or folder")
    refuse_overwriting("--out", out, [out, out / "any file in it"])


def refuse_overwriting(option: str, named: Path, targets: Iterable[Path], *datasets: Dataset) -> None:
    """Raise UsageError where one of the targets is, or would become, a file of a data set: of one of these, or of any
    that is told by the files beside it. option, named: what was typed."""
    from mmsent.data.dataset import belongs_to

    for target in targets:
        if owner := belongs_to(target, *datasets):
            what = "" if target == named else f" {target},"
            raise UsageError(f"{option} {named} would replace{what} a file of the data set {owner}; name another place")
