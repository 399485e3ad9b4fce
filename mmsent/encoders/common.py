"""What the adapters share: weight files and their hashes, batches that fit into memory, pixels as tensors."""

from __future__ import annotations

import functools
import re
import warnings
import zipfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmsent.errors import EncoderError
from mmsent.system.hashing import file_sha256
from mmsent.system.memory import Halving
from mmsent.system.network import unreached

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from mmsent.data.images import Pixels
    from mmsent.data.preprocess import Preprocess
    from mmsent.encoders.base import Embeddings

_WAYS = (
    "pass a local {what}; or fill the hub cache (HF_HOME) on a machine with a network "
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
    """The path if it is a file. Raises EncoderError with the alternatives if it is not."""
    if not path.is_file():
        raise EncoderError(f"no weights at {path}; {WAYS_OUT}")
    return path


def refuse_code(path: Path, name: str) -> None:
    """Raise EncoderError if loading a checkpoint would run code that it contains.

    The libraries ask torch for weights only, but some fall back to its default after a TypeError, which a crafted file
    can cause; that default is an unrestricted pickle in older versions of torch and if TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD
    is set. A file that passes this check cannot cause such a TypeError.
    """
    if path.suffix == ".safetensors" or path.suffix.lower() in {".npz", ".npy"}:
        return  # no pickle: safetensors has none, and NumPy refuses them by default
    import torch

    zipped = zipfile.is_zipfile(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about TorchScript archives, which are refused here
            torch.load(
                path, map_location="cpu", weights_only=True, mmap=zipped
            )  # mapped into memory: no weight is read
    except Exception as error:  # UnpicklingError, and whatever a damaged or crafted file raises
        text = str(error)
        if "TorchScript" in text:
            reason = "it is a TorchScript archive, which holds code beside the weights"
        elif asked := re.search(r"GLOBAL (\S+) was not|whose module (\S+) is blocked|class (\S+) ", text):
            reason = f"it would run code ({next(filter(None, asked.groups()))})"
        else:
            reason = f"it does not hold only weights ({type(error).__name__})"
        raise EncoderError(
            f"{path} does not load as {name}: {reason}; mmsent loads only weights: save them as safetensors, or save "
            "the state dict with torch.save"
        ) from error


def require_hub(what: str, ways: str = WAYS_OUT) -> None:
    """Raise EncoderError at once if the model hub cannot be reached, instead of after a minute of retries."""
    from huggingface_hub import constants

    reason = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else unreached(constants.ENDPOINT)
    if reason:
        raise EncoderError(f"no weights for {what} on this machine, and {reason}; {ways}")


def versions(*packages: str) -> dict[str, str]:
    """Installed versions of the packages that determine an encoder's embeddings; Pillow and torch always do."""
    return {name: metadata.version(name) for name in sorted({"torch", "pillow", *packages})}


class FittingBatches:
    """Forward passes that fit into the device's memory (see mmsent.system.memory.Halving)."""

    def __init__(self) -> None:
        self.fit = Halving(
            lambda: EncoderError("the device's memory cannot hold even one image; free some, or use --device cpu")
        )

    def __call__(self, encode: Callable[[Pixels], Embeddings], pixels: Pixels) -> Embeddings:
        """Embeddings (B, D) of pixels (B, H, W, 3). Raises EncoderError if not even one image fits."""
        import numpy as np

        found: list[Embeddings] = []

        def rest(size: int) -> Embeddings:
            while (done := sum(map(len, found))) < len(pixels):
                found.append(encode(pixels[done : done + size]))
            return found[0] if len(found) == 1 else np.concatenate(found)

        return self.fit(rest, len(pixels)) if len(pixels) else encode(pixels)


def read_as_text(tokenizer: Any) -> Any:
    """A tokenizer, of open_clip or of Hugging Face, that reads its special tokens in a text as text: whoever writes a
    post must not choose where it ends. It is changed in place."""
    if inner := getattr(tokenizer, "tokenizer", None):  # open_clip's wrapper
        read_as_text(inner)
    elif hasattr(tokenizer, "bpe_ranks"):  # open_clip's own
        import open_clip

        special = [tokenizer.decoder[i] for i in tokenizer.all_special_ids]
        pattern = tokenizer.pat.pattern.removeprefix("|".join(special) + "|")
        tokenizer.pat = open_clip.tokenizer.re.compile(pattern, tokenizer.pat.flags)
        tokenizer.cache = {}
    else:
        tokenizer.split_special_tokens = True
    return tokenizer


def normalized(pixels: Pixels, how: Preprocess, device: str, dtype: torch.dtype) -> torch.Tensor:
    """(B, H, W, 3) bytes to a normalised (B, 3, H, W) channels-last tensor, in torchvision's order of operations."""
    import torch

    raw = torch.from_numpy(pixels)
    if device.startswith("cuda"):
        raw = raw.pin_memory()  # so that the copy does not wait for the device
    x = raw.to(device, non_blocking=True).permute(0, 3, 1, 2).to(torch.float32).div_(255)
    mean = torch.tensor(how.mean, dtype=torch.float32, device=device).view(1, 3, 1, 1)
    std = torch.tensor(how.std, dtype=torch.float32, device=device).view(1, 3, 1, 1)
    return x.sub_(mean).div_(std).to(dtype).contiguous(memory_format=torch.channels_last)


def scaled(vectors: torch.Tensor, normalize: bool) -> torch.Tensor:
    """Embeddings (B, D) as they are, or scaled to length 1; mmsent.data.vectors with a graph to differentiate."""
    return vectors / vectors.norm(dim=-1, keepdim=True).clamp(min=1e-12) if normalize else vectors
