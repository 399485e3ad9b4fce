"""Several encoders of one half together, and lexicons as text encoders."""

from __future__ import annotations

import numpy as np
import pytest

from mmsent.config import PRESETS, EncoderSettings
from mmsent.encoders.availability import presence
from mmsent.encoders.base import Encoders
from mmsent.encoders.factory import open_encoders
from mmsent.encoders.joined import JoinedImageEncoder, JoinedTextEncoder, scaled_for_joining
from mmsent.encoders.lexicon import SCALES, LexiconEncoder
from mmsent.encoders.specs import Spec, encoder_label, parse_spec, parts_of, specs
from mmsent.errors import EncoderError, UsageError
from tests.helpers.fake import PREPROCESS, SIZE, FakeImageEncoder, FakeTextEncoder

VADER = Spec("lexicon", "vader")


def test_plus_joins_specs() -> None:
    spec = parse_spec("minilm-l6+lexicon:vader")
    assert parts_of(spec) == [parse_spec("minilm-l6"), VADER]
    assert str(spec) == "minilm-l6+lexicon:vader"
    assert parse_spec(str(spec)) == spec
    assert parts_of(parse_spec("timm:a")) == [Spec("timm", "a")]
    folder = parse_spec("sentence-transformers:/models/a+b")  # no spec begins behind this plus
    assert folder == Spec("sentence-transformers", "/models/a+b")
    joined = parse_spec("st:/models/a+b+open_clip:A:c")
    assert parts_of(joined) == [Spec("sentence-transformers", "/models/a+b"), Spec("open_clip", "A", "c")]


def test_each_part_must_encode_its_half() -> None:
    with pytest.raises(UsageError, match="timm:resnet50 does not encode texts"):
        specs(EncoderSettings(encoder="offline", text_encoder="minilm-l6+timm:resnet50"))
    with pytest.raises(UsageError, match="lexicon:vader does not encode images"):
        specs(EncoderSettings(encoder="offline", image_encoder="efficientnet-lite2+lexicon:vader"))
    with pytest.raises(UsageError, match="unknown lexicon 'emolex'; choose from vader"):
        LexiconEncoder(Spec("lexicon", "emolex"))


def test_vader_tells_moods_apart() -> None:
    encoder = LexiconEncoder(VADER)
    found = encoder.encode(["I love it, wonderful!", "awful, I hate it", "the bus to town", "not good"])
    assert found.shape == (4, encoder.card.width)
    assert found.dtype == np.float32
    compound, pos, neg, strongest, weakest, up, down = (np.arctanh(found.astype(np.float64)) * list(SCALES.values())).T
    assert compound[0] > 0 > compound[1]
    assert compound[3] < 0
    assert strongest[3] > 0
    assert weakest[1] < 0
    assert up[0] > strongest[0]
    assert down[1] < weakest[1]
    assert not found[2].any()
    assert np.abs(encoder.encode(["love " * 50, "hate " * 50])).max() <= 1
    assert pos[0] > 0
    assert neg[1] > 0
    assert encoder.encode([]).shape == (0, encoder.card.width)
    assert encoder.lengths(["two words", ""]) == [2, 0]


def test_vader_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EncoderError, match="pip install vaderSentiment"):
        LexiconEncoder(VADER)


def test_joined_texts_stand_side_by_side() -> None:
    bag, vader = FakeTextEncoder(), LexiconEncoder(VADER)
    joined = JoinedTextEncoder([bag, vader])
    texts = ["happy happy day", "sad news", "bus"]
    found = joined.encode(texts)
    assert found.shape == (3, 32 + 7) == (3, joined.card.width)
    counts = bag.encode(texts)
    np.testing.assert_allclose(found[:, :32], counts / np.linalg.norm(counts, axis=1, keepdims=True), rtol=1e-6)
    np.testing.assert_allclose(found[:, 32:] * np.sqrt(7), vader.encode(texts), rtol=1e-6)
    assert joined.card.max_tokens == 12
    assert joined.lengths(texts) == bag.lengths(texts)
    assert joined.card.libraries == {**bag.card.libraries, **vader.card.libraries}
    assert not scaled_for_joining(np.zeros((1, 32), np.float32), bag.card).any()  # nothing stays nothing


def test_a_joined_card_tells_its_parts_apart() -> None:
    one, other = FakeImageEncoder(0), FakeImageEncoder(1)
    cards = [JoinedImageEncoder(parts).card for parts in ([one, other], [other, one], [one, one])]
    assert len({card.weights_sha256 for card in cards}) == 3
    assert cards[0].width == 96
    assert cards[0].name == "fake:grid+fake:grid"
    assert cards[0].preprocess == PREPROCESS
    moved = FakeImageEncoder(1)  # precision and versions are no part of what a head relies on
    moved.card = moved.card.model_copy(update={"precision": "bf16", "libraries": {"fake": "2"}})
    again = JoinedImageEncoder([one, moved]).card
    assert again.weights_sha256 == cards[0].weights_sha256
    assert again.precision == "fp32+bf16"


def test_joined_pictures_need_one_preprocessing() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), np.uint8)
    joined = JoinedImageEncoder([FakeImageEncoder(0), FakeImageEncoder(1)])
    assert joined.encode(pixels).shape == (2, 96)
    assert joined.batch_size == 8
    wide = FakeImageEncoder()
    wide.card = wide.card.model_copy(update={"preprocess": PREPROCESS.model_copy(update={"size": 32, "resize_to": 32})})
    with pytest.raises(UsageError, match="preprocess images differently"):
        JoinedImageEncoder([FakeImageEncoder(), wide])


def test_the_preset_offline_plus(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = EncoderSettings(encoder="offline-plus")
    assert encoder_label(settings) == "offline-plus"
    plain, plus = open_encoders(EncoderSettings(encoder="offline")), open_encoders(settings)
    assert isinstance(plus, Encoders)
    assert plus.image.card == plain.image.card
    assert plus.text.card.width == plain.text.card.width + 7
    assert plus.text.card.weights_sha256 != plain.text.card.weights_sha256
    parts = {own for half in (PRESETS["offline-plus"].image, PRESETS["offline-plus"].text) for own in half.split("+")}
    assert presence("offline-plus") == dict.fromkeys(parts, "found")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install vaderSentiment" in presence("offline-plus")["lexicon:vader"]
