"""What the adapters share: weight files and their hashes, device and precision, pixels to tensors."""

from __future__ import annotations

import functools
import re
import socket
import warnings
import zipfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies

from mmsent.errors import EncoderError
from mmsent.system.hashing import file_sha256

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from mmsent.data.images import Pixels, Preprocess
    from mmsent.encoders.base import Embeddings

_WAYS = (
    "three ways out: give a local {what}; fill the hub cache (HF_HOME) where there is a network "
    "and copy it here; or use --encoder offline, whose weights are installed"
)

WAYS_OUT = _WAYS.format(what="file with --weights FILE")
TEXT_WAYS_OUT = _WAYS.format(what="folder with --text-encoder sentence-transformers:FOLDER")


@functools.lru_cache(maxsize=32)
def _sha256(path: str, size: int, mtime_ns: int) -> str:
    return file_sha256(Path(path))


def weights_sha256(path: Path) -> str:
    """SHA-256 of a weights file, in hexadecimal; computed once per file. Raises EncoderError if it cannot be read."""
    try:
        stat = path.stat()
        return _sha256(str(path), stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise EncoderError(f"weights {path} cannot be read: {error.strerror or error}") from error


def existing_file(path: Path) -> Path:
    """The path itself where it is a file; else an EncoderError that names the ways out."""
    if not path.is_file():
        raise EncoderError(f"no weights at {path}; {WAYS_OUT}")
    return path


def refuse_code(path: Path, name: str) -> None:
    """Raise EncoderError where a checkpoint could be loaded only by running what is in it.

    The libraries ask torch for weights only, but some fall back to its default where that ends in a TypeError, which a
    made-up file can bring about; that default is an unrestricted pickle in older versions of torch and wherever
    TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD is set. A file that has passed here cannot get so far.
    """
    if path.suffix == ".safetensors" or path.suffix.lower() in {".npz", ".npy"}:
        return  # no pickle: safetensors holds none, and NumPy refuses them by default
    import torch

    zipped = zipfile.is_zipfile(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of TorchScript archives, which are refused here
            torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)  # mapped: no weight is read
    except Exception as error:  # UnpicklingError, and all that a damaged or made-up file raises
        text = str(error)
        if "TorchScript" in text:
            reason = "it is a TorchScript archive, a program and not only weights"
        elif asked := re.search(r"GLOBAL (\S+) was not|whose module (\S+) is blocked|class (\S+) ", text):
            reason = f"it would run code ({next(filter(None, asked.groups()))})"
        else:
            reason = f"it is no checkpoint of weights alone ({type(error).__name__})"
        raise EncoderError(
            f"{path} does not load as {name}: {reason}; mmsent opens weights only: give them as safetensors, or a "
            "state dict saved with torch.save"
        ) from error


def require_hub(what: str, ways: str = WAYS_OUT) -> None:
    """Raise EncoderError at once where the model hub cannot be reached, rather than after a minute of retries."""
    from huggingface_hub import constants

    host = urlsplit(constants.ENDPOINT).hostname
    reason = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else ""
    if not reason and not getproxies():
        try:
            socket.getaddrinfo(host, 443)
        except OSError:
            reason = f"{host} cannot be reached"
    if reason:
        raise EncoderError(f"no weights for {what} on this machine, and {reason}; {ways}")


def versions(*packages: str) -> dict[str, str]:
    """Installed versions of the packages that determine an encoder's numbers; Pillow and torch always count."""
    return {name: metadata.version(name) for name in sorted({"torch", "pillow", *packages})}


class FittingBatches:
    """Forward passes as large as the device's memory takes: a batch that does not fit goes in halves, as do all after
    it."""

    def __init__(self) -> None:
        self.most: int | None = None  # pictures a pass, once a larger one has failed

    def __call__(self, encode: Callable[[Pixels], Embeddings], pixels: Pixels) -> Embeddings:
        """Embeddings (B, D) of pixels (B, H, W, 3). Raises EncoderError where not even one picture fits."""
        import numpy as np
        import torch

        n = len(pixels)
        if self.most is None or n <= self.most:
            try:
                return encode(pixels)
            except torch.cuda.OutOfMemoryError as error:
                if n == 1:
                    raise EncoderError(
                        "the device's memory does not take one picture; free some, or take --device cpu"
                    ) from error
                self.most = n // 2
            torch.cuda.empty_cache()
        return np.concatenate([self(encode, part) for part in np.split(pixels, range(self.most, n, self.most))])


def normalized(pixels: Pixels, how: Preprocess, device: str, dtype: torch.dtype) -> torch.Tensor:
    """(B, H, W, 3) bytes to a normalised (B, 3, H, W) channels-last tensor, in torchvision's order of operations."""
    import torch

    raw = torch.from_numpy(pixels)
    if device.startswith("cuda"):
        raw = raw.pin_memory()  # so that the copy need not wait for the device
    x = raw.to(device, non_blocking=True).permute(0, 3, 1, 2).to(torch.float32).div_(255)
    mean = torch.tensor(how.mean, device=device).view(1, 3, 1, 1)
    std = torch.tensor(how.std, device=device).view(1, 3, 1, 1)
    return x.sub_(mean).div_(std).to(dtype).contiguous(memory_format=torch.channels_last)
