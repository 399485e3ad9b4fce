"""Token ids as whole words, for explanations: fast Hugging Face tokenizers, and open_clip's own byte pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmsent.encoders.explainable import Tokens, Word
from mmsent.errors import EncoderError


def byte_pair_tokens(row: Sequence[int], tokenizer: Any, text: str, cut: bool) -> Tokens:
    """A padded row of ids from open_clip's own tokenizer, of a text as it cleaned it: letters are lowered. `</w>` ends
    a word; its bytes are joined before they are decoded, because one character may span several tokens.

    The padding, id 0, is the token "!"; so the end-of-text token replaces words that are left out.
    """
    ids = list(row[: row.index(tokenizer.eot_token_id) + 1])
    special = [i in tokenizer.all_special_ids for i in ids]
    words: list[_Span] = []
    letters, positions, at = "", [], 0
    for place, (token, no_word) in enumerate(zip(ids, special, strict=True)):
        if not no_word:
            letters += tokenizer.decoder[token]
            positions.append(place)
        if positions and (no_word or letters.endswith("</w>")):  # truncation may leave a word without its end
            raw = bytes(tokenizer.byte_decoder[c] for c in letters.removesuffix("</w>"))
            word = raw.decode("utf-8", errors="replace")
            start = max(at, text.find(word, at))
            at = start + len(word)
            words.append(_Span(word, start, at, positions))
            letters, positions = "", []
    return Tokens(tuple(ids), tuple(special), _joined(words), tokenizer.eot_token_id, cut)


@dataclass
class _Span:
    """A word of the tokenizer, from start to end in the text."""

    text: str
    start: int
    end: int
    positions: list[int]


def _joined(spans: Sequence[_Span]) -> tuple[Word, ...]:
    """Words as a reader sees them: #tags, @names and contractions, which tokenizers split, are one word."""
    out: list[_Span] = []
    for span in spans:
        before = out[-1] if out else None
        if before and before.end == span.start and (before.text[-1:] in {*"#@_'’"} or span.text[:1] in {*"_'’"}):
            out[-1] = _Span(before.text + span.text, before.start, span.end, [*before.positions, *span.positions])
        else:
            out.append(span)
    return tuple(Word(span.text, tuple(span.positions)) for span in out)


def fast_tokens(row: Sequence[int], tokenizer: Any, text: str, cut: bool) -> Tokens:
    """A row of ids, padded or not, from a Hugging Face tokenizer. Words are spelled as in `text`, the very string that
    was tokenized. Raises EncoderError if the tokenizer has no offsets."""
    if not getattr(tokenizer, "is_fast", False):
        raise EncoderError(f"{type(tokenizer).__name__} has no offsets, so its tokens cannot be joined into words")
    known = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False, truncation=False, verbose=False)
    plain = known["input_ids"]

    def matched(first: int) -> int:
        pairs = zip(row[first:], plain, strict=False)
        return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(plain), len(row) - first))

    # The plain tokens follow the special tokens at the start; truncation may drop some.
    first = max(range(min(4, len(row))), key=matched)
    kept = matched(first)
    if kept < len(plain) and not cut:
        raise EncoderError(f"the tokens of {text[:40]!r} differ from those that the encoder reads")
    spans: dict[int, tuple[int, int]] = {}
    places: dict[int, list[int]] = {}
    for i, (word, (start, end)) in enumerate(zip(known.word_ids()[:kept], known["offset_mapping"][:kept], strict=True)):
        before = spans.get(word, (start, end))
        spans[word] = (min(before[0], start), max(before[1], end))
        places.setdefault(word, []).append(first + i)
    words = [_Span(text[start:end].strip(), start, end, places[w]) for w, (start, end) in spans.items()]
    length = len(row)
    while length > first + kept and row[length - 1] == tokenizer.pad_token_id:
        length -= 1  # `padded` adds the padding at the end again
    special = tuple(not first <= i < first + kept for i in range(length))
    shown = _joined([word for word in words if word.text])  # a space marker alone is not a word
    return Tokens(tuple(row[:length]), special, shown, tokenizer.pad_token_id or 0, cut)


def padded(rows: Sequence[Sequence[int]], pad: int, length: int, device: str) -> tuple[Tensor, Tensor]:
    """B rows of ids as (B, length) and the mask of where they stand, both int64."""
    ids = torch.full((len(rows), length), pad, dtype=torch.int64)
    mask = torch.zeros((len(rows), length), dtype=torch.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row, dtype=torch.int64)
        mask[i, : len(row)] = 1
    return ids.to(device), mask.to(device)


def token_embedding(model: nn.Module) -> nn.Module:
    """The token embedding of a text tower: what it names so itself, else its largest embedding table."""
    named: Any = getattr(model, "token_embedding", None)
    if isinstance(named, nn.Module):
        return named
    tables = [m for m in model.modules() if isinstance(m, nn.Embedding)]
    if not tables:
        raise EncoderError(f"{type(model).__name__} has no table of token embeddings, so words cannot be explained")
    return max(tables, key=lambda table: table.num_embeddings)
