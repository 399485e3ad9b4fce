"""A tokenizer alone counts what the encoder counts, and the encoder is opened only where nothing else can tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mmsent.config import EncoderSettings
from mmsent.encoders import token_counts as module
from mmsent.encoders.factory import open_encoders
from mmsent.encoders.sentences import minilm_folder
from mmsent.encoders.token_counts import token_counts
from mmsent.errors import EncoderError
from tests.helpers.fake import fake_encoders

TEXTS = ["", "a lovely day", "so good " * 300, "今天天气很好", "très DÉÇU #tag @name 😀", "[SEP] [CLS] </s>", "a\n\tb"]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[EncoderSettings]:
    """What was opened; fakes take its place."""
    asked: list[EncoderSettings] = []

    def fakes(settings: EncoderSettings) -> Any:
        asked.append(settings)
        return fake_encoders()

    monkeypatch.setattr(module, "open_encoders", fakes)
    return asked


def test_it_counts_as_the_encoder_does(opened: list[EncoderSettings]) -> None:
    found = token_counts(EncoderSettings(encoder="offline"))
    text = open_encoders(EncoderSettings(encoder="offline")).text
    assert found.count(TEXTS) == text.lengths(TEXTS)
    assert found.max_tokens == text.card.max_tokens
    joined = token_counts(EncoderSettings(encoder="offline-plus"))
    assert (joined.count(TEXTS), joined.max_tokens) == (found.count(TEXTS), found.max_tokens)
    assert not opened


def test_a_folder_of_ones_own(tmp_path: Path, opened: list[EncoderSettings]) -> None:
    """Its limit is in its files; without it the model must be asked."""
    folder = tmp_path / "own"
    folder.mkdir()
    for path in minilm_folder().iterdir():
        (folder / path.name).symlink_to(path)
    settings = EncoderSettings(image_encoder="efficientnet-lite2", text_encoder=f"sentence-transformers:{folder}")
    minilm = token_counts(EncoderSettings(encoder="offline"))
    found = token_counts(settings)
    assert (found.count(TEXTS), found.max_tokens) == (minilm.count(TEXTS), 256)
    assert not opened
    (folder / "sentence_bert_config.json").unlink()
    assert (token_counts(settings).count(["two words"]), len(opened)) == ([2], 1)
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 512}')  # of 512 positions, were none padding
    token_counts(settings)
    assert len(opened) == 2


def test_weights_that_cannot_be_had_are_said(opened: list[EncoderSettings]) -> None:
    with pytest.raises(EncoderError, match="no weights for ViT-L-14-336-quickgelu openai on this machine, and HF_HUB"):
        token_counts(EncoderSettings(encoder="clip-l14-336"))
    assert not opened
    token_counts(EncoderSettings(encoder="clip-l14-336", weights="clip.safetensors"))
    assert len(opened) == 1
