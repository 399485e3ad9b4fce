"""An open_clip model: finding its weights, loading it, and what its text tower takes."""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmsent.data.preprocess import Preprocess
from mmsent.encoders.common import WAYS_OUT, existing_file, read_as_text, refuse_code, require_hub, weights_sha256
from mmsent.encoders.specs import Spec
from mmsent.errors import EncoderError, UsageError, first_line
from mmsent.system.devices import half_precision_for, pick_device, torch_dtype

MLP = ["c_fc", "gelu", "c_proj"]  # open_clip's names
QUICKGELU = 1.702  # OpenAI's constant


_PROBES = ["a happy day", "the longest of these probes, so that the shorter one is padded: #clouds over the sea"]


class ClipModel:
    """One open_clip model that the image and the text encoder share; loaded at first use."""

    def __init__(self, spec: Spec, *, weights: Path | None, device: str, precision: str) -> None:
        import open_clip

        self.arch = spec.name
        config = open_clip.get_model_config(spec.name)
        if config is None:
            raise UsageError(f"open_clip has no architecture {spec.name!r}; `open_clip.list_models()` lists them")
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
            raise UsageError(f"open_clip has no weights {self.tag!r} for {self.arch}; its tags are {tags}")
        if bool(tag_config.get("quick_gelu")) != bool(config.get("quick_gelu")):
            # open_clip only warns here, and the wrong GELU gives plausible, worse numbers.
            right = f"{self.arch}-quickgelu" if tag_config.get("quick_gelu") else self.arch.replace("-quickgelu", "")
            raise EncoderError(f"weights {self.tag!r} were trained with another GELU; use open_clip:{right}:{self.tag}")
        return tag_config

    def _weights_of_tag(self, open_clip: Any, tag_config: dict[str, Any]) -> Path:
        if not tag_config:
            raise UsageError(
                f"{self.arch} has no pretrained tag: use open_clip:{self.arch}:TAG, or pass --weights FILE"
            )
        if local := _in_local_cache(tag_config):
            return local
        require_hub(f"{self.arch} {self.tag}")
        try:
            return Path(open_clip.pretrained.download_pretrained(tag_config))
        except Exception as error:  # hub, proxy and file errors have no common parent class
            reason = first_line(error)
            raise EncoderError(f"no weights for {self.arch} {self.tag}: {reason}; {WAYS_OUT}") from error

    @functools.cached_property
    def model(self) -> Any:
        """The frozen model in eval mode, on its device and in its precision."""
        import open_clip
        import torch

        refuse_code(self.path, self.arch)
        # Not in inference mode, whoever calls first: gradients could not pass through weights that were created in it.
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
                    f"{self.path} cannot be loaded without running code ({type(error).__name__}); "
                    "save the state dict as safetensors or with torch.save"
                ) from error
        with torch.inference_mode(False):
            model = model.eval().requires_grad_(False)
            if self.precision != "fp32":
                fold_quickgelu(model)
            return model.to(self.device, torch_dtype(self.precision)).to(memory_format=torch.channels_last)

    @functools.cached_property
    def fp32_model(self) -> Any:
        """The model for gradients: an fp32 copy if it runs in a lower precision."""
        from mmsent.encoders.explainable import in_fp32

        return in_fp32(self.model)

    @functools.cached_property
    def scale(self) -> float:
        """What the model multiplies cosines of images and texts by before a softmax."""
        return float(self.model.logit_scale.float().exp())

    @functools.cached_property
    def tokenizer(self) -> Any:
        import open_clip

        try:
            found = read_as_text(open_clip.get_tokenizer(self.arch))
        except Exception as error:
            raise EncoderError(f"the tokenizer of {self.arch} cannot be loaded: {error}; {WAYS_OUT}") from error
        clean = found.clean_fn
        found.clean_fn = lambda text: bounded(clean(shortened(text)), self.max_tokens)
        return found

    @functools.cached_property
    def shortens(self) -> bool:
        """Whether padding to the longest text of a batch gives the same embeddings as full padding; it is measured."""
        import torch

        tokens = self.tokenizer(_PROBES)
        used = int((tokens != 0).sum(dim=1).max())
        if used >= tokens.shape[1]:
            return False
        with torch.inference_mode():
            full = self.model.encode_text(tokens.to(self.device)).float()
            try:
                with context_length(self.model, used):
                    short = self.model.encode_text(tokens[:, :used].to(self.device)).float()
            except RuntimeError:
                return False
        return bool(torch.nn.functional.cosine_similarity(full, short).min() > 0.9999)


TOKEN_CHARACTERS = 26  # more than any token of CLIP's vocabulary has
MAX_RAW, MAX_CHARACTERS = 100_000, 20_000  # far beyond what 77 tokens hold


def shortened(text: str) -> str:
    """A text as its cleaning takes it: MAX_RAW characters of a longer one, because cleaning takes seconds per MB."""
    return text if len(text) <= MAX_RAW else " ".join(text.split())[:MAX_RAW]


def bounded(text: str, max_tokens: int) -> str:
    """A cleaned text with very long words cut, because the time of byte-pair tokenizing grows with the square of a
    word's length: hours for a word of a megabyte. What is cut lies behind the tokens that are kept, which stay the
    same; short texts stay as they are."""
    most = TOKEN_CHARACTERS * max_tokens
    if len(text) <= most:
        return text
    words, work = [], 0
    for word in text.split():
        words.append(word[:most])
        work += len(words[-1]) ** 2
        if work > 2 * most**2:  # at least `most` characters, whatever the words' lengths
            break
    return " ".join(words)[:MAX_CHARACTERS]


def fold_quickgelu(model: Any) -> None:
    """Replace QuickGELU by SiLU, in place: x sigmoid(a x) = silu(a x) / a; the neighbouring weights absorb a.

    It takes one pass over the model's widest activations instead of three, and saves a few percent of the time per
    image. Only for weights that are then rounded to 16 bits; in fp32 the model stays as open_clip makes it.
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
def context_length(model: Any, length: int) -> Iterator[None]:
    """Let open_clip's CLIP take `length` tokens: inside the with block its causal mask and positions are cut."""
    import torch

    if not (hasattr(model, "positional_embedding") and hasattr(model, "attn_mask")):
        yield  # the towers of CustomTextCLIP cut theirs themselves
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
    """The weights file of a tag if it is on this machine; uses no network."""
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
        downloaded = Path(os.path.expanduser("~/.cache/clip")) / Path(str(url)).name
        if downloaded.is_file() and not repository:
            return downloaded
    return None
