"""How many tokens texts have, by an encoder's tokenizer alone where that can be had without the encoder."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmsent.config import EncoderSettings
from mmsent.encoders import mpnet
from mmsent.encoders.availability import FOUND, OPEN_CLIP, state
from mmsent.encoders.common import require_hub
from mmsent.encoders.factory import open_encoders
from mmsent.encoders.lexicon import LexiconEncoder
from mmsent.encoders.sentences import MINILM, MINILM_TOKENS, TOKENIZER, minilm_folder, repository_of, tokenizer_of
from mmsent.encoders.specs import Spec, own_folders, parts_of, specs


@dataclass(frozen=True)
class TokenCounts:
    """count: the numbers of tokens of texts before truncation, special ones included; max_tokens: where an encoder
    truncates."""

    count: Callable[[Sequence[str]], Sequence[int]]
    max_tokens: int


def token_counts(settings: EncoderSettings) -> TokenCounts:
    """The tokens of the text encoder that settings ask for; of several joined ones that with the smallest limit.

    Raises EncoderError where the encoder would have to be opened and its weights are missing, UsageError if the specs
    are invalid.
    """
    places = zip(parts_of(specs(settings)[1]), own_folders(settings), strict=True)
    found = [_alone(spec, folder, settings.weights) for spec, folder in places]
    known = [one for one in found if one is not None]
    if len(known) < len(found):
        text = open_encoders(settings).text
        return TokenCounts(lambda texts: text.lengths(list(texts)), text.card.max_tokens)
    return min(known, key=lambda one: one.max_tokens)


def _alone(spec: Spec, folder: Path | None, weights: str | None) -> TokenCounts | None:
    """A text encoder's tokens without its model; None where only the encoder can tell."""
    if spec.library == "lexicon":
        words = LexiconEncoder(spec)
        return TokenCounts(lambda texts: words.lengths(list(texts)), words.card.max_tokens)
    if spec.library == "sentence-transformers":
        return _of_folder(minilm_folder() if spec.name == MINILM else folder or _local(spec.name), spec)
    if weights is None and f"{spec.name}:{spec.tag}" in OPEN_CLIP and state(spec) != FOUND:
        require_hub(f"{spec.name} {spec.tag}")  # said without a second in which open_clip is imported
    return None


def _local(name: str) -> Path | None:
    """A model's folder, where it is on this machine."""
    if Path(name).is_dir():
        return Path(name)
    if repository_of(name) == mpnet.REPOSITORY and (folder := mpnet.mpnet_folder()) is not None:
        return folder
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository_of(name), TOKENIZER)
    return Path(found).parent if isinstance(found, str) else None


def _of_folder(folder: Path | None, spec: Spec) -> TokenCounts | None:
    if folder is None or not (folder / TOKENIZER).is_file():
        return None
    limit = MINILM_TOKENS if spec.name == MINILM else _limit(folder)
    if limit is None:
        return None
    try:
        tokenizer = tokenizer_of(folder)
    except Exception:  # tokenizers raises no class of its own; the encoder will say what is wrong
        return None
    return TokenCounts(lambda texts: [len(one.ids) for one in tokenizer.encode_batch(list(texts))], limit)


def _limit(folder: Path) -> int | None:
    """Where a sentence-transformers model truncates, if its files say so beyond doubt: a limit that its positions reach
    however they are numbered."""
    try:
        own, model = (
            json.loads((folder / name).read_text("utf-8")) for name in ("sentence_bert_config.json", "config.json")
        )
        limit, positions = (
            own["max_seq_length"],
            model["max_position_embeddings"] - (model.get("pad_token_id") or 0) - 1,
        )
        return int(limit) if 0 < limit <= positions else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
