"""The last blocks of text encoders: states through untouched blocks are the encoder's own embedding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mmsent.config import EncoderSettings
from mmsent.encoders.base import Encoders, TextEncoder
from mmsent.encoders.blocks import states_of, text_blocks, with_blocks
from mmsent.encoders.factory import open_encoders
from mmsent.errors import EncoderError, UsageError
from mmsent.features.cache.states import ragged
from mmsent.training.tuning import padded
from tests.encoders.test_clip import CONFIG, make_tiny
from tests.helpers.fake import FakeTextEncoder

TEXTS = ["What a day!", "a sad, sad day for all of us, really", "ok", "word " * 400, "情感 😀 RT @someone: #tag"]
COSINE = 0.999  # least, of an embedding from float16 states


def offline(name: str = "offline") -> Encoders:
    return open_encoders(EncoderSettings(encoder=name, device="cpu", precision="fp32"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    tiny = make_tiny(tmp_path_factory.mktemp("blocks"), "mmsent-blocks", CONFIG)
    return tiny.open().text


def rebuilt(encoder: TextEncoder, count: int, *, normalize: bool = False, whole: bool = False) -> torch.Tensor:
    """Embeddings of TEXTS by states and blocks; whole: from states that were not cut to float16."""
    blocks = text_blocks(encoder, count, normalize=normalize)
    states = ragged(states_of(encoder, count, TEXTS))
    given, mask = padded(states, np.arange(len(TEXTS)), "cpu")
    own = torch.from_numpy(encoder.encode(TEXTS))
    with torch.no_grad():
        return blocks.module()(given, mask, own)


@pytest.mark.parametrize("count", [1, 2, 6])
def test_minilm(count: int) -> None:
    encoder = offline().text
    own = torch.from_numpy(encoder.encode(TEXTS))
    assert torch.cosine_similarity(rebuilt(encoder, count), own).min() > 0.9999


@pytest.mark.parametrize("count", [1, 2])
def test_open_clip(clip: TextEncoder, count: int) -> None:
    own = torch.from_numpy(clip.encode(TEXTS))
    assert torch.cosine_similarity(rebuilt(clip, count), own).min() > 0.9999
    torch.testing.assert_close(rebuilt(clip, count, normalize=True).norm(dim=1), torch.ones(len(TEXTS)))


def test_of_joined_encoders_the_one_with_blocks() -> None:
    encoder = offline("offline-plus").text
    own = torch.from_numpy(encoder.encode(TEXTS))
    found = rebuilt(encoder, 2)
    assert torch.cosine_similarity(found, own).min() > COSINE
    torch.testing.assert_close(found[:, 384:], own[:, 384:], rtol=0, atol=0)  # the lexicon's columns as they are


def test_states_are_those_of_each_text_alone() -> None:
    """What else is in a batch changes no more than the last bits, and padding is not stored."""
    encoder = offline().text
    together = states_of(encoder, 2, TEXTS)
    for text, found in zip(TEXTS, together, strict=True):
        (alone,) = states_of(encoder, 2, [text])
        assert alone.shape == found.shape
        assert alone.dtype == np.float16
        np.testing.assert_allclose(alone.astype(np.float32), found.astype(np.float32), rtol=0.01, atol=0.01)
    assert [len(one) for one in together] == [min(256, n) for n in encoder.lengths(TEXTS)]


@pytest.mark.parametrize("kind", ["sentences", "clip"])
def test_one_pass_gives_the_embedding_and_the_states_of_several_counts(kind: str, clip: TextEncoder) -> None:
    encoder = clip if kind == "clip" else offline().text
    with text_blocks(encoder, 1).caught() as one, text_blocks(encoder, 2).caught() as two:
        found = encoder.encode(TEXTS)
    np.testing.assert_array_equal(found, encoder.encode(TEXTS))  # which is no longer watched
    for count, states in ((1, one), (2, two)):
        for row, wanted in zip(states, states_of(encoder, count, TEXTS), strict=True):
            np.testing.assert_array_equal(row, wanted)


def test_only_the_blocks_train_and_each_module_is_its_own() -> None:
    blocks = text_blocks(offline().text, 2)
    one, other = blocks.module(), blocks.module()
    assert sum(p.numel() for p in one.parameters() if p.requires_grad) == sum(p.numel() for p in one.trained)
    with torch.no_grad():
        for parameter in one.trained:
            parameter.zero_()
    assert all(bool(p.any()) for p in other.trained if p.ndim > 1)
    other.load(one.weights())
    assert not any(bool(p.any()) for p in other.trained)


@pytest.mark.parametrize("kind", ["sentences", "clip"])
def test_an_encoder_with_tuned_blocks(kind: str, clip: TextEncoder) -> None:
    encoder = clip if kind == "clip" else offline().text
    module = text_blocks(encoder, 1).module()
    before = encoder.encode(TEXTS)
    with torch.no_grad():
        for parameter in module.trained:
            parameter.mul_(1.1)
        given, mask = padded(ragged(states_of(encoder, 1, TEXTS)), np.arange(len(TEXTS)), "cpu")
        wanted = module(given, mask, torch.from_numpy(before))
    tuned = with_blocks(encoder, 1, module.weights(), "0" * 64)
    assert tuned.card.weights_sha256 != encoder.card.weights_sha256
    found = torch.from_numpy(tuned.encode(TEXTS))
    assert torch.cosine_similarity(found, wanted).min() > COSINE
    assert torch.cosine_similarity(found, torch.from_numpy(before)).min() < COSINE  # it is another encoder now
    np.testing.assert_array_equal(encoder.encode(TEXTS), before)  # and the first is as it was


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has 6 blocks; got 7"):
        text_blocks(offline().text, 7)
    with pytest.raises(EncoderError, match="bag has no blocks"):
        text_blocks(FakeTextEncoder(), 1)
    with pytest.raises(UsageError, match="without --normalize"):
        text_blocks(offline("offline-plus").text, 2, normalize=True)
