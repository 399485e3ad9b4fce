"""open_clip models: any architecture, with a pretrained tag, a hub cache, or a local checkpoint."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmsent.data.images import Pixels, Preprocess
from mmsent.encoders.base import Embeddings, ImageCard, TextCard
from mmsent.encoders.common import (
    WAYS_OUT,
    FittingBatches,
    existing_file,
    normalized,
    refuse_code,
    require_hub,
    versions,
    weights_sha256,
)
from mmsent.encoders.specs import Spec
from mmsent.errors import EncoderError, UsageError, first_line
from mmsent.system.devices import half_precision_for, pick_device, torch_dtype

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mmsent.encoders.explainable import Layer, Tokens

MLP, QUICKGELU = ["c_fc", "gelu", "c_proj"], 1.702  # open_clip's names, and OpenAI's constant
MAX_WORD, MAX_CHARACTERS = 1_000, 20_000  # far beyond the 77 tokens that are kept

_PROBES = ["a happy day", "the longest of these probes, so that the shorter one is padded: #clouds over the sea"]


class ClipModel:
    """One open_clip model shared by its image and text side; loaded at first use."""

    def __init__(self, spec: Spec, *, weights: Path | None, device: str, precision: str) -> None:
        import open_clip

        self.arch = spec.name
        config = open_clip.get_model_config(spec.name)
        if config is None:
            raise UsageError(f"open_clip has no architecture {spec.name!r}; `open_clip.list_models()` names them")
        self.tag = spec.tag
        tag_config = self._tag_config(open_clip, config)
        self.path = existing_file(weights) if weights else self._weights_of_tag(open_clip, tag_config)
        self.sha256 = weights_sha256(self.path)
        self.device = pick_device(device)
        self.precision = half_precision_for(self.device) if precision == "auto" else precision
        self.width = int(config["embed_dim"])
        self.max_tokens = int(config["text_cfg"].get("context_length", 77))
        base = open_clip.transform.PreprocessCfg(size=config["vision_cfg"]["image_size"])
        known = open_clip.transform.merge_preprocess_dict(base, config.get("preprocess_cfg", {}))
        known = open_clip.transform.merge_preprocess_dict(known, tag_config)
        size = known["size"] if isinstance(known["size"], int) else known["size"][0]
        self.preprocess = Preprocess(
            size=size,
            resize_to=size,
            resize=known["resize_mode"],
            interpolation="bilinear" if known["interpolation"] == "bilinear" else "bicubic",
            mean=tuple(known["mean"]),
            std=tuple(known["std"]),
            fill=known["fill_color"],
        )

    def _tag_config(self, open_clip: Any, config: dict[str, Any]) -> dict[str, Any]:
        if self.tag is None:
            return {}
        tag_config: dict[str, Any] | None = open_clip.get_pretrained_cfg(self.arch, self.tag)
        if not tag_config:
            tags = ", ".join(open_clip.list_pretrained_tags_by_model(self.arch)) or "none"
            raise UsageError(f"open_clip has no weights {self.tag!r} for {self.arch}; its tags: {tags}")
        if bool(tag_config.get("quick_gelu")) != bool(config.get("quick_gelu")):
            # open_clip only warns here, and the wrong GELU gives plausible, worse numbers.
            right = f"{self.arch}-quickgelu" if tag_config.get("quick_gelu") else self.arch.replace("-quickgelu", "")
            raise EncoderError(
                f"weights {self.tag!r} were trained with the other GELU; use open_clip:{right}:{self.tag}"
            )
        return tag_config

    def _weights_of_tag(self, open_clip: Any, tag_config: dict[str, Any]) -> Path:
        if not tag_config:
            raise UsageError(f"{self.arch}: name a pretrained tag (open_clip:{self.arch}:TAG) or give --weights FILE")
        if local := _in_local_cache(tag_config):
            return local
        require_hub(f"{self.arch} {self.tag}")
        try:
            return Path(open_clip.pretrained.download_pretrained(tag_config))
        except Exception as error:  # hub, proxy and file errors have no common parent; the way out is the same
            reason = first_line(error)
            raise EncoderError(f"no weights for {self.arch} {self.tag}: {reason}; {WAYS_OUT}") from error

    @functools.cached_property
    def model(self) -> Any:
        """The frozen model in eval mode, on its device and in its precision."""
        import open_clip
        import torch

        refuse_code(self.path, self.arch)
        # Out of inference mode, whoever asks first: weights made inside could have no gradient pass through them.
        with torch.inference_mode(False), warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*QuickGELU.*")
            try:
                model = open_clip.create_model(
                    self.arch, pretrained=str(self.path), precision="fp32", device="cpu", require_pretrained=True
                )
            except (RuntimeError, KeyError, ValueError, AssertionError, OSError, EOFError, UserWarning) as error:
                reason = f"{type(error).__name__}: {error}".splitlines()[0]
                raise EncoderError(f"{self.path} does not load as {self.arch}: {reason}") from error
            except Exception as error:  # pickle.UnpicklingError and what a damaged archive raises
                raise EncoderError(
                    f"{self.path} is no checkpoint that loads without running code ({type(error).__name__}); "
                    "save the state dict as safetensors or with torch.save"
                ) from error
        with torch.inference_mode(False):
            model = model.eval().requires_grad_(False)
            if self.precision != "fp32":
                fold_quickgelu(model)
            return model.to(self.device, torch_dtype(self.precision)).to(memory_format=torch.channels_last)

    @functools.cached_property
    def encode_image(self) -> Callable[[Tensor], Tensor]:
        """(B, 3, size, size) to (B, D), in the model's precision."""
        from mmsent.encoders.cpu_tower import quick_tower

        quick = quick_tower(self.model) if self.device == "cpu" and self.precision == "bf16" else None
        return quick if quick is not None else self.model.encode_image

    @functools.cached_property
    def fp32_model(self) -> Any:
        """The model for gradients; an fp32 copy where it runs in a shorter precision."""
        from mmsent.encoders.explainable import in_fp32

        return in_fp32(self.model)

    @functools.cached_property
    def tokenizer(self) -> Any:
        import open_clip

        try:
            return open_clip.get_tokenizer(self.arch)
        except Exception as error:
            raise EncoderError(f"the tokenizer of {self.arch} cannot be had: {error}; {WAYS_OUT}") from error

    @functools.cached_property
    def shortens(self) -> bool:
        """Whether padding to the longest text of a batch gives what full padding gives; measured."""
        import torch

        tokens = self.tokenizer(_PROBES)
        used = int((tokens != 0).sum(dim=1).max())
        if used >= tokens.shape[1]:
            return False
        with torch.inference_mode():
            full = self.model.encode_text(tokens.to(self.device)).float()
            try:
                with _context_length(self.model, used):
                    short = self.model.encode_text(tokens[:, :used].to(self.device)).float()
            except RuntimeError:
                return False
        return bool(torch.nn.functional.cosine_similarity(full, short).min() > 0.9999)


def fold_quickgelu(model: Any) -> None:
    """Compute QuickGELU as SiLU, in place: x sigmoid(a x) = silu(a x) / a, with a moved into the weights on both sides.

    One pass over the widest activations of the model instead of three: some hundredths of a picture's time.
    For weights that are about to be rounded to 16 bits; in fp32 the model stays as open_clip has it.
    """
    import torch
    from open_clip.transformer import QuickGELU

    for block in model.modules():
        mlp = getattr(block, "mlp", None)
        if not isinstance(mlp, torch.nn.Sequential) or [name for name, _ in mlp.named_children()] != MLP:
            continue
        before, activation, after = mlp
        if type(activation) is QuickGELU:
            with torch.no_grad():
                for name in ("weight", "bias"):
                    getattr(before, name).mul_(QUICKGELU)
                after.get_parameter("weight").div_(QUICKGELU)
            mlp[1] = torch.nn.SiLU()


@contextmanager
def _context_length(model: Any, length: int) -> Iterator[None]:
    """Let open_clip's CLIP take `length` tokens: its causal mask and positions are cut for the time of a call."""
    import torch

    if not (hasattr(model, "positional_embedding") and hasattr(model, "attn_mask")):
        yield  # CustomTextCLIP's towers cut their own
        return
    position, mask = model.positional_embedding, model.attn_mask
    try:
        model.positional_embedding = torch.nn.Parameter(position[:length], requires_grad=False)
        if mask is not None:
            model.attn_mask = mask[:length, :length]
        yield
    finally:
        model.positional_embedding, model.attn_mask = position, mask


def _in_local_cache(tag_config: dict[str, Any]) -> Path | None:
    """The weights file of a tag if it is already on this machine; asks no network."""
    if file := tag_config.get("file"):
        return existing_file(Path(str(file)))
    repository, _, name = (tag_config.get("hf_hub") or "").rpartition("/")
    if repository:
        from huggingface_hub import try_to_load_from_cache

        stems = ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]
        if name:
            stems = list(dict.fromkeys([name.replace(".bin", ".safetensors"), name]))
        for stem in stems:
            found = try_to_load_from_cache(repository, stem)
            if isinstance(found, str):
                return Path(str(found))
    if url := tag_config.get("url"):
        downloaded = Path("~/.cache/clip").expanduser() / Path(str(url)).name
        if downloaded.is_file() and not repository:
            return downloaded
    return None


class ClipImageEncoder:
    """The image tower: (B, size, size, 3) bytes to (B, D) embeddings."""

    def __init__(self, clip: ClipModel) -> None:
        self._clip, self._fitting = clip, FittingBatches()
        # On a CPU few at a time: what 16 pictures pass from layer to layer is beyond its cache.
        self.batch_size = 4 if clip.device == "cpu" else 256
        self.card = ImageCard(
            library="open_clip",
            name=clip.arch,
            tag=clip.tag,
            weights_sha256=clip.sha256,
            width=clip.width,
            precision=clip.precision,
            libraries=versions("open_clip_torch"),
            preprocess=clip.preprocess,
        )

    def encode(self, pixels: Pixels) -> Embeddings:
        return self._fitting(self._encode, pixels)

    def _encode(self, pixels: Pixels) -> Embeddings:
        import torch

        with torch.inference_mode():
            x = normalized(pixels, self._clip.preprocess, self._clip.device, torch_dtype(self._clip.precision))
            out: Embeddings = self._clip.encode_image(x).float().cpu().numpy()
        return out

    def prepared(self, pixels: Pixels) -> Tensor:
        return normalized(pixels, self._clip.preprocess, self._clip.device, torch_dtype("fp32"))

    def features(self, x: Tensor) -> Tensor:
        found: Tensor = self._clip.fp32_model.encode_image(x)
        return found

    def layers(self) -> list[Layer]:
        import torch

        from mmsent.encoders.explainable import find_layers

        size = self._clip.preprocess.size
        probe = torch.zeros(1, 3, size, size, device=self._clip.device)
        return find_layers(self._clip.fp32_model.visual, lambda: self.features(probe))


def bounded(text: str) -> str:
    """A text whose tokenizing ends: byte pairs take a time that grows with the square of a word's length, hours for a
    word of a megabyte. Up to MAX_WORD characters nothing is changed; the tokens that are kept never are."""
    if len(text) <= MAX_WORD:
        return text
    return " ".join(word[:MAX_WORD] for word in text.split())[:MAX_CHARACTERS]


class ClipTextEncoder:
    """The text tower. It is causal and pooled at the end token, so a batch is padded to its own longest text only."""

    def __init__(self, clip: ClipModel) -> None:
        self._clip = clip
        self.card = TextCard(
            library="open_clip",
            name=clip.arch,
            tag=clip.tag,
            weights_sha256=clip.sha256,
            width=clip.width,
            precision=clip.precision,
            libraries=versions("open_clip_torch"),
            max_tokens=clip.max_tokens,
        )

    def lengths(self, texts: list[str]) -> list[int]:
        tokenizer = self._clip.tokenizer
        texts = list(map(bounded, texts))
        if hasattr(tokenizer, "encode"):  # open_clip's own byte-pair tokenizer; start and end are added later
            return [len(tokenizer.encode(text)) + 2 for text in texts]
        return [len(ids) for ids in tokenizer.tokenizer(list(map(tokenizer.clean_fn, texts))).input_ids]

    def encode(self, texts: list[str]) -> Embeddings:
        import torch

        texts = list(map(bounded, texts))
        tokens = self._clip.tokenizer(texts, context_length=self._clip.max_tokens)
        model = self._clip.model
        with torch.inference_mode():
            if self._clip.shortens:
                used = min(tokens.shape[1], max(2, *self.lengths(texts)))
                with _context_length(model, used):
                    features = model.encode_text(tokens[:, :used].to(self._clip.device))
            else:
                features = model.encode_text(tokens.to(self._clip.device))
            out: Embeddings = features.float().cpu().numpy()
        return out

    def tokenize(self, text: str) -> Tokens:
        from mmsent.encoders.tokens import byte_pair_tokens, fast_tokens

        tokenizer, text = self._clip.tokenizer, bounded(text)
        if mode := getattr(tokenizer, "tokenizer_mode", ""):  # its class token stands behind the padding
            raise EncoderError(f"texts of {self.card.name} cannot be explained: its tokenizer works in mode {mode!r}")
        row = tokenizer([text], context_length=self._clip.max_tokens)[0].tolist()
        cut = self.lengths([text])[0] > self._clip.max_tokens
        if hasattr(tokenizer, "encode"):
            return byte_pair_tokens(row, tokenizer, tokenizer.clean_fn(text), cut)
        return fast_tokens(row, tokenizer.tokenizer, tokenizer.clean_fn(text), cut)

    def batch(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        from mmsent.encoders.tokens import padded

        tokenizer = self._clip.tokenizer
        pad = 0 if hasattr(tokenizer, "encode") else tokenizer.tokenizer.pad_token_id
        length = max(map(len, rows)) if self._clip.shortens else self._clip.max_tokens
        return padded(rows, pad, length, self._clip.device)

    def features_of(self, ids: Tensor, mask: Tensor) -> Tensor:
        # The mask goes unused: the towers are causal or read it off the padding themselves.
        model = self._clip.fp32_model
        with _context_length(model, ids.shape[1]):
            found: Tensor = model.encode_text(ids)
        return found

    def embedding(self) -> nn.Module:
        from mmsent.encoders.tokens import token_embedding

        model = self._clip.fp32_model
        return token_embedding(getattr(model, "text", model))


def open_pair(
    spec: Spec, *, weights: Path | None, device: str, precision: str
) -> tuple[ClipImageEncoder, ClipTextEncoder]:
    """Both sides of one open_clip model, sharing its weights."""
    clip = ClipModel(spec, weights=weights, device=device, precision=precision)
    return ClipImageEncoder(clip), ClipTextEncoder(clip)
