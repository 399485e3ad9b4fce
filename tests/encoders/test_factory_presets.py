"""The presets: what is said of them is true of their architectures, and each works with weights in the hub's cache.

No real weights are needed: architectures are the real ones, weights are drawn. Tokenizers, whose files only the hub
has, are small ones of words; text towers that have their own large vocabulary get as many rows as that tokenizer has
words. In the slow tests all else is the real size.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmsent.cli.main import main
from mmsent.config import PRESETS, EncoderSettings, Preset
from mmsent.encoders import availability
from mmsent.encoders.aligned import aligned
from mmsent.encoders.availability import FOUND, presence, repository, sources
from mmsent.encoders.base import Encoders
from mmsent.encoders.factory import open_encoders
from mmsent.encoders.sentences import SentenceEncoder
from mmsent.encoders.specs import Spec, parse_spec, parts_of
from mmsent.errors import UsageError
from tests.encoders.test_clip import CONFIG, cosines, make_tiny, pictures, pixels_of

TEXTS = ["a lovely day", "sad and broken", "lost", "un día feliz"]
WORDS = sorted({word for text in TEXTS for word in text.split()})
SENTENCES: dict[str, dict[str, Any]] = {  # what differs from the defaults of the configuration, as on the hub
    "cardiffnlp/twitter-roberta-base-sentiment-latest": {"model_type": "roberta", "vocab_size": 50265},
    "sentence-transformers/paraphrase-multilingual-mpnet-base-v2": {"model_type": "xlm-roberta", "vocab_size": 250002},
}
ONLINE = [name for name, preset in PRESETS.items() if "efficientnet-lite2" not in preset.image]
POSITIONS = 514  # of both sentence models; two of them stand for padding


def encoders_of(preset: Preset) -> list[Spec]:
    return list(dict.fromkeys(part for half in (preset.image, preset.text) for part in parts_of(parse_spec(half))))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def snapshot(hub: Path, name: str) -> Path:
    """Where a repository's files lie in the cache."""
    commit, at = "0" * 40, hub / f"models--{name.replace('/', '--')}"
    (at / "refs").mkdir(parents=True)
    (at / "refs" / "main").write_text(commit)
    (at / "snapshots" / commit).mkdir(parents=True)
    return at / "snapshots" / commit


def words_tokenizer() -> Any:
    """A tokenizer of whole words, with the special tokens where RoBERTa has them; it names no limit."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["<s>", "<pad>", "</s>", "<unk>"]
    words: Any = Tokenizer(models.WordLevel({word: i for i, word in enumerate([*special, *WORDS])}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    names = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=words, **names)


def put_sentences(hub: Path, name: str, **smaller: Any) -> None:
    """A sentence model with drawn weights, as the hub's cache would hold it."""
    from transformers import AutoConfig, AutoModel

    at, tokenizer = snapshot(hub, name), words_tokenizer()
    about = {
        **SENTENCES[name],
        "max_position_embeddings": POSITIONS,
        "type_vocab_size": 1,
        "vocab_size": len(tokenizer),
    }
    torch.manual_seed(0)
    AutoModel.from_config(AutoConfig.for_model(**about, **smaller)).save_pretrained(at)
    tokenizer.save_pretrained(at)
    if name.startswith("sentence-transformers/"):  # such a repository lists its modules; others get mean pooling
        from sentence_transformers import SentenceTransformer

        SentenceTransformer(str(at), device="cpu").save(str(at))


def put_clip(hub: Path, spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    """An open_clip model with drawn weights, as the hub's cache would hold it."""
    import open_clip
    from safetensors.torch import save_file

    at, config = snapshot(hub, str(repository(spec))), open_clip.get_model_config(spec.name)
    if "hf_tokenizer_name" in config["text_cfg"]:
        config = copy.deepcopy(config)
        tokenizer = words_tokenizer()
        config["text_cfg"]["vocab_size"] = len(tokenizer)
        tokenizer.save_pretrained(at)
        (at / "config.json").write_text('{"model_type": "roberta"}')  # transformers wants one for a general tokenizer
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, spec.name, config)
    torch.manual_seed(0)
    model = open_clip.create_model(spec.name, device="cpu")
    save_file(model.state_dict(), at / "open_clip_model.safetensors")


def put_timm(hub: Path, spec: Spec) -> None:
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = timm.create_model(spec.name, pretrained=False)
    save_file(model.state_dict(), snapshot(hub, str(repository(spec))) / "model.safetensors")


# --- what is said of them


def test_repositories_are_the_libraries_own() -> None:
    import open_clip
    import timm

    for name in ONLINE:
        for spec in encoders_of(PRESETS[name]):
            if spec.library == "open_clip":
                known = open_clip.get_pretrained_cfg(spec.name, spec.tag)["hf_hub"]
                assert known.rstrip("/") == repository(spec)
            elif spec.library == "timm":
                known = timm.get_pretrained_cfg(spec.name)
                assert known.hf_hub_id == repository(spec)
                assert known.license == PRESETS[name].licence.lower()
    assert {f"open_clip:{name}" for name in availability.OPEN_CLIP} == {
        str(spec) for name in ONLINE for spec in encoders_of(PRESETS[name]) if spec.library == "open_clip"
    }


@pytest.mark.parametrize("name", ONLINE)
def test_widths_and_sizes_are_the_architectures(name: str) -> None:
    import open_clip
    import timm
    from transformers import AutoConfig, AutoModel

    weights, widths = 0, {}
    with torch.device("meta"):
        for spec in encoders_of(PRESETS[name]):
            if spec.library == "open_clip":
                model: Any = open_clip.create_model(spec.name, device="meta")
                widths[spec] = open_clip.get_model_config(spec.name)["embed_dim"]
            elif spec.library == "timm":
                model = timm.create_model(spec.name, pretrained=False, num_classes=0)
                widths[spec] = model.num_features
            else:
                about = {**SENTENCES[str(repository(spec))], "max_position_embeddings": POSITIONS, "type_vocab_size": 1}
                model = AutoModel.from_config(AutoConfig.for_model(**about))
                widths[spec] = model.config.hidden_size
            weights += 4 * sum(values.numel() for values in model.parameters())
    assert PRESETS[name].gigabytes == pytest.approx(weights / 1e9, rel=0.06, abs=0.05)
    halves = (PRESETS[name].image, PRESETS[name].text)
    assert PRESETS[name].widths == tuple(sum(widths[spec] for spec in parts_of(parse_spec(half))) for half in halves)


def test_the_command_lists_them_all(hub: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at = snapshot(hub, "timm/MobileCLIP2-S2-OpenCLIP")
    (at / "open_clip_model.safetensors").write_bytes(b"here")
    snapshot(hub, "cardiffnlp/twitter-roberta-base-sentiment-latest").joinpath("pytorch_model.bin").write_bytes(b"")
    with pytest.raises(SystemExit) as stopped:
        main(["encoders", "--wide"])
    assert not stopped.value.code
    shown = capsys.readouterr().out
    lines = {line.split()[0]: line for line in shown.splitlines()[1 : 1 + len(PRESETS)]}
    assert lines.keys() == PRESETS.keys()
    for name, preset in PRESETS.items():
        for said in (
            *map(str, preset.widths),
            f"{preset.gigabytes:g}",
            preset.languages,
            preset.licence,
            preset.summary,
        ):
            assert said in lines[name]
        assert all(source in lines[name] for source in sources(name).values())
    assert "  yes  " in lines["small"]
    assert "  yes  " in lines["offline"]
    assert "  1 of 2  " in lines["clip-l14-336+twitter"]
    assert "  no  " in lines["siglip2"]
    assert f"No result measured yet with {', '.join(n for n, p in PRESETS.items() if not p.measured)}." in shown
    with pytest.raises(SystemExit):
        main(["encoders", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["siglip2"]["here"] == {"open_clip:ViT-L-16-SigLIP2-384:webli": "not on this machine"}
    assert found["siglip2"]["from"] == {"open_clip:ViT-L-16-SigLIP2-384:webli": "timm/ViT-L-16-SigLIP2-384"}
    assert found["multilingual"]["languages"] == "more than 50"


def test_the_guide_has_a_row_for_each() -> None:
    guide = Path(__file__).parents[2].joinpath("docs", "how-to", "encoders.md").read_text(encoding="utf-8")
    rows = {line.split("|")[1].strip(" `"): line for line in guide.splitlines() if line.startswith("| `")}
    for name, preset in PRESETS.items():
        for said in (" + ".join(map(str, preset.widths)), f"{preset.gigabytes:g} GB", preset.languages, preset.licence):
            assert said in rows[name]
        assert ("no result measured yet" in rows[name]) != preset.measured


# --- how they work


def check(encoders: Encoders, preset: Preset) -> None:
    """Both halves give different finite rows of the widths that are said."""
    image, text = encoders.image.encode(pixels_of(encoders, pictures()[:2])), encoders.text.encode(TEXTS)
    assert (image.shape, text.shape) == ((2, preset.widths[0]), (4, preset.widths[1]))
    for values in (image, text):
        assert np.isfinite(values).all()
        assert np.abs(np.diff(values, axis=0)).max() > 0
    np.testing.assert_allclose(encoders.text.encode(TEXTS[:1]), text[:1], atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ONLINE)
def test_each_with_weights_in_the_hubs_cache(name: str, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preset = PRESETS[name]
    assert set(presence(name).values()) == {"not on this machine"}
    for spec in encoders_of(preset):
        if spec.library == "open_clip":
            put_clip(hub, spec, monkeypatch)
        elif spec.library == "timm":
            put_timm(hub, spec)
        else:
            put_sentences(hub, str(repository(spec)))
    assert set(presence(name).values()) == {FOUND}
    encoders = open_encoders(EncoderSettings(encoder=name, device="cpu", precision="fp32", runtime="torch"))
    check(encoders, preset)
    if name == "multilingual":
        with pytest.raises(UsageError, match="trained together"):
            aligned(encoders)
    else:
        pair = aligned(encoders)
        assert pair.text_columns == (0, encoders.image.card.width)
        assert pair.scale > 1


def test_clip_and_a_sentence_model_small(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The pair of `clip-l14-336+twitter` with two layers each: mean pooling, and texts longer than the positions."""
    name = "cardiffnlp/twitter-roberta-base-sentiment-latest"
    put_sentences(hub, name, num_hidden_layers=2)
    tiny = make_tiny(tmp_path, "mmsent-preset-clip", CONFIG)
    image = f"open_clip:{tiny.arch}"
    small = PRESETS["clip-l14-336+twitter"].model_copy(
        update={"image": image, "text": f"{image}+sentence-transformers:{name}", "widths": (32, 800)}
    )
    monkeypatch.setitem(PRESETS, "clip-l14-336+twitter", small)
    capfd.readouterr()
    encoders = open_encoders(
        EncoderSettings(encoder="clip-l14-336+twitter", weights=str(tiny.file), device="cpu", precision="fp32")
    )
    check(encoders, small)
    assert capfd.readouterr().err == ""
    text = SentenceEncoder(Spec("sentence-transformers", name), device="cpu", precision="fp32")
    assert text.card.max_tokens == POSITIONS - 2
    long = [" ".join(["happy lost"] * 400), " ".join(["lost"] * 510)]
    np.testing.assert_allclose(text.encode(long)[1:], text.encode([long[1] + " day"]), atol=1e-5)
    from transformers import AutoModel

    (folder,) = (hub / f"models--{name.replace('/', '--')}" / "snapshots").iterdir()
    rows = words_tokenizer()(TEXTS[:1], return_tensors="pt")
    rows.pop("token_type_ids", None)
    with torch.no_grad():
        states = AutoModel.from_pretrained(folder).eval()(**rows).last_hidden_state
    np.testing.assert_allclose(text.encode(TEXTS[:1]), states.mean(dim=1).numpy(), atol=1e-5)
    joined = encoders.text.encode(TEXTS[:1])
    assert cosines(joined[:, 32:], states.mean(dim=1).numpy()).min() > 0.9999
    np.testing.assert_allclose(np.linalg.norm(joined[:, :32], axis=1), 1, atol=1e-5)
