"""A text encoder in a folder of one's own: known by its name and its weights' hash, wherever it lies."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mmsent.cli.main import main
from mmsent.config import EncoderSettings
from mmsent.encoders.factory import open_encoders
from mmsent.encoders.sentences import minilm_folder
from mmsent.encoders.specs import encoder_label, moved, named_apart, own_folders
from mmsent.errors import EncoderError, UsageError
from tests.helpers.made import make_guid


def test_a_folder_goes_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "own"
    shutil.copytree(minilm_folder(), folder)
    typed = EncoderSettings(image_encoder="efficientnet-lite2", text_encoder=f"sentence-transformers:{folder}")
    apart = named_apart(typed)
    assert (apart.text_encoder, apart.text_folder) == ("sentence-transformers:own", str(folder))
    assert encoder_label(apart) == "timm:efficientnet-lite2+sentence-transformers:own"
    assert named_apart(EncoderSettings(text_encoder="minilm-l6")).text_folder is None
    assert named_apart(EncoderSettings(text_encoder=str(folder))).text_encoder == "sentence-transformers:own"
    Path("minilm-l6").mkdir()  # the name of an installed encoder stays that
    for spec in ("minilm-l6", str(tmp_path / "minilm-l6")):
        assert named_apart(EncoderSettings(text_encoder=spec)).text_folder is None
    card = open_encoders(apart).text.card
    assert card.name == "own"
    folder.rename(tmp_path / "moved")
    assert open_encoders(apart.model_copy(update={"text_folder": str(tmp_path / "moved")})).text.card == card
    with pytest.raises(EncoderError, match=r"no longer at .*own; name it with --text-encoder"):
        open_encoders(apart)


def test_no_home_is_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(*_: object) -> None:
        raise KeyError("uid not found: 12345")

    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", nobody)
    monkeypatch.setattr("pwd.getpwnam", nobody)
    for typed in ("~/own", "sentence-transformers:~other/own"):
        assert named_apart(EncoderSettings(text_encoder=typed)).text_folder is None


def test_each_part_of_a_joined_encoder_goes_by_its_name(tmp_path: Path) -> None:
    places = [tmp_path / "a" / "one", tmp_path / "b" / "two"]
    for place in places:
        place.mkdir(parents=True)
    typed = f"st:{places[0]}+lexicon:vader+sentence-transformers:{places[1]}"
    apart = named_apart(EncoderSettings(image_encoder="efficientnet-lite2", text_encoder=typed))
    assert apart.text_encoder == "sentence-transformers:one+lexicon:vader+sentence-transformers:two"
    assert own_folders(apart) == [places[0], None, places[1]]
    assert own_folders(EncoderSettings(encoder="offline-plus")) == [None, None]
    (tmp_path / "c").mkdir()
    places[0].rename(tmp_path / "c" / "one")
    places[1].rename(tmp_path / "c" / "other")
    one = moved(apart, str(tmp_path / "c" / "one"))  # by its name
    assert own_folders(one) == [tmp_path / "c" / "one", None, places[1]]
    both = f"{tmp_path / 'c' / 'one'}+lexicon:vader+sentence-transformers:{tmp_path / 'c' / 'other'}"  # by its place
    assert own_folders(moved(apart, both)) == [tmp_path / "c" / "one", None, tmp_path / "c" / "other"]
    with pytest.raises(UsageError, match="give its text encoder with each folder where it lies now"):
        moved(apart, str(tmp_path / "c" / "other"))
    with pytest.raises(UsageError, match=r"nowhere: there is no such folder"):
        moved(apart, "nowhere")
    with pytest.raises(UsageError, match="the features are of offline"):
        moved(EncoderSettings(encoder="offline"), str(tmp_path))


def test_a_joined_encoder_opens_where_its_parts_lie(tmp_path: Path) -> None:
    shutil.copytree(minilm_folder(), tmp_path / "own")
    typed = f"lexicon:vader+minilm-l6+sentence-transformers:{tmp_path / 'own'}"
    apart = named_apart(EncoderSettings(image_encoder="efficientnet-lite2", text_encoder=typed))
    card = open_encoders(apart).text.card
    assert card.name == "lexicon:vader+sentence-transformers:minilm-l6+sentence-transformers:own"
    (tmp_path / "own").rename(tmp_path / "moved")
    with pytest.raises(EncoderError, match=r"no longer at .*own; name it with --text-encoder"):
        open_encoders(apart)
    assert open_encoders(moved(apart, str(tmp_path / "moved"))).text.card == card


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(list(words))
    return int(stopped.value.code or 0)


@pytest.mark.parametrize("spec", ["own", "lexicon:vader+sentence-transformers:own"])
def test_commands_are_told_where_it_lies_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], spec: str
) -> None:
    monkeypatch.chdir(tmp_path)
    make_guid(tmp_path / "data", n_train=24, n_test=4, size=32)
    shutil.copytree(minilm_folder(), "own")
    pair = ["--image-encoder", "efficientnet-lite2", "--text-encoder", spec]
    assert run("extract", *pair, "--views", "0", "--split", "train") == 0
    assert run("fit", "--fusion", "text", "--epochs", "1", "--val-size", "6") == 0
    assert "recipe offline: it scales each half" in capsys.readouterr().err
    Path("own").rename("moved")
    (name,) = (path.name for path in Path("runs").iterdir())
    text = ["predict", name, "--text", "what a day"]
    assert run(*text) == 1
    assert "name it with --text-encoder" in capsys.readouterr().err
    assert run(*text, "--text-encoder", "moved") == 0
    assert run("vote", name, "--text-encoder", "moved") == 0
    assert run(*text, "--text-encoder", "nowhere") == 2
    weights = next(Path("moved").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")  # another model in a folder of that name
    capsys.readouterr()
    assert run(*text, "--text-encoder", "moved") == 1
    assert "contract" in capsys.readouterr().err
