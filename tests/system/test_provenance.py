"""Records of where numbers come from: what they hold, that they are stable, and how differences are named."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mmsent.config import EncoderSettings, ExtractSettings, FitSettings, SplitSettings, ViewSettings
from mmsent.data.dataset import Split, load_dataset
from mmsent.features import extraction_record
from mmsent.features.cache import Cache
from mmsent.features.cache.digests import array_digest, content
from mmsent.features.engine import LocalEngine
from mmsent.features.extract import ExtractResult, extract
from mmsent.system import provenance
from mmsent.system.provenance import NOT_RECORDED, Difference, differences, recorded
from mmsent.training.fit import Training, fit
from tests.helpers.fake import fake_encoders
from tests.helpers.fake_cache import fake_cache
from tests.helpers.made import make_guid

PAIR = EncoderSettings(encoder="offline")


def encode(root: Path, cache: Path, *splits: Split) -> ExtractResult:
    dataset = load_dataset(root)
    return extract(
        dataset,
        splits or dataset.splits,
        cache,
        encoder=PAIR,
        views=ViewSettings(count=1),
        options=ExtractSettings(),
        engine=LocalEngine(fake_encoders()),
        show=False,
    )


def test_versions_name_what_moves_numbers() -> None:
    found = provenance.versions()
    wanted = {"mmsent", "python", "torch", "numpy", "h5py", "pillow", "scikit-learn", "timm", "open_clip_torch"}
    assert wanted | {"sentence-transformers"} <= found.keys()
    assert found["numpy"] == np.__version__
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))


def test_libraries_that_are_not_installed_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "LIBRARIES", ("numpy", "no-such-library"))
    assert set(provenance.versions()) == {"mmsent", "python", "numpy"}


def test_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    found = provenance.machine("cpu")
    assert found["threads"] == torch.get_num_threads()
    assert found["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
    assert found["torch_build"].startswith(torch.__version__)
    assert found["device"] == "cpu"
    assert found["environment"] == {"MKL_CBWR": "COMPATIBLE"}
    assert found["cpu"]
    assert json.loads(json.dumps(found)) == found


def test_machine_without_torch_loads_none() -> None:
    asked = "'torch' in sys.modules, sorted(machine())"
    code = f"import sys; from mmsent.system.provenance import machine; machine(); print({asked})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("False ['cores', 'cpu', ")


def test_a_cpu_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: (_ for _ in ()).throw(OSError()))
    assert provenance.machine()["cpu"]


def test_blas_is_read_off_torchs_own_words() -> None:
    mkl = "built with:\n  - Intel(R) oneAPI Math Kernel Library Version 2024.2-Product Build 2\n  - BLAS_INFO=mkl, X"
    assert provenance._blas(mkl) == "mkl 2024.2"
    assert provenance._blas("- Build settings: BLAS_INFO=open, BUILD_TYPE=Release") == "open"
    assert provenance._blas("nothing") == "unknown"
    assert provenance._named("- Intel(R) MKL-DNN v3.7.1 (Git Hash 8d)", "MKL-DNN") == "v3.7.1"


def copied_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small package that stands in for mmsent's."""
    package = folder / "package"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("a = 1\n")
    (package / "inner" / "b.py").write_text("b = 2\n")
    monkeypatch.setattr(provenance, "PACKAGE", package)
    provenance.code.cache_clear()
    return package


def digest() -> str:
    provenance.code.cache_clear()
    return str(provenance.code()["sha256"])


def test_the_code_digest_follows_names_and_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = copied_package(tmp_path, monkeypatch)
    first = digest()
    assert digest() == first
    (package / "data.txt").write_text("no code")
    assert digest() == first
    (package / "inner" / "b.py").write_text("b = 3\n")
    changed = digest()
    (package / "inner" / "b.py").write_text("b = 2\n")
    assert digest() == first != changed
    (package / "inner" / "b.py").rename(package / "inner" / "c.py")
    assert digest() not in (first, changed)
    # Bytes that move from one file to the next are another code, too.
    (package / "__init__.py").write_text("")
    (package / "inner" / "c.py").write_text("a = 1\nb = 2\n")
    assert digest() not in (first, changed)
    provenance.code.cache_clear()


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_commit_is_gits_where_git_knows_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = copied_package(tmp_path, monkeypatch)
    assert set(provenance.code()) == {"sha256"}

    def git(*arguments: str) -> str:
        who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        return subprocess.run(
            ["git", *who, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout.strip()

    git("init", "-q")
    (tmp_path / "other.txt").write_text("x")
    git("add", "other.txt")
    git("commit", "-q", "-m", "one")
    provenance.code.cache_clear()
    assert set(provenance.code()) == {"sha256"}, "the package lies in a repository that does not hold it"
    git("add", "package")
    git("commit", "-q", "-m", "two")
    provenance.code.cache_clear()
    found = provenance.code()
    assert found["commit"] == git("rev-parse", "HEAD")
    assert found["modified"] is False
    (package / "__init__.py").write_text("a = 2\n")
    provenance.code.cache_clear()
    assert provenance.code()["modified"] is True
    monkeypatch.setenv("PATH", str(tmp_path))  # no git
    provenance.code.cache_clear()
    assert set(provenance.code()) == {"sha256"}
    provenance.code.cache_clear()


# --- data


def test_content_of_a_cache_and_of_rows_to_come_agree(tmp_path: Path) -> None:
    cache = encode(make_guid(tmp_path / "posts", 30, 6), tmp_path / "cache").cache
    for split in ("train", "test"):
        assert cache.provenance["content"][split] == content(cache, split)
    assert content(cache, "train")["rows"] == 30
    assert content(cache, "train")["ids"] != content(cache, "test")["ids"]


def test_each_digest_follows_its_own_column(tmp_path: Path) -> None:
    root = make_guid(tmp_path / "posts", 30, 0)
    first = content(encode(root, tmp_path / "cache").cache, "train")
    lines = (root / "train.txt").read_text().splitlines()

    def moved() -> set[str]:
        now = content(encode(root, tmp_path / "cache").cache, "train")
        return {name for name, value in now.items() if value != first[name]}

    assert moved() == set()
    other = "neutral" if lines[1].endswith("negative") else "negative"
    (root / "train.txt").write_text("\n".join([lines[0], f"1,{other}", *lines[2:]]) + "\n")
    assert moved() == {"labels"}
    (root / "train.txt").write_text("\n".join(lines) + "\n")
    assert moved() == set()
    (root / "data" / "3.txt").write_text("another text altogether")
    assert moved() == {"contents"}
    (root / "train.txt").write_text("\n".join(lines[:-1]) + "\n")
    assert moved() == {"rows", "ids", "labels", "contents"}


def test_the_order_of_the_list_counts(tmp_path: Path) -> None:
    root = make_guid(tmp_path / "posts", 30, 0)
    first = content(encode(root, tmp_path / "a").cache, "train")
    lines = (root / "train.txt").read_text().splitlines()
    (root / "train.txt").write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n")
    second = content(encode(root, tmp_path / "b").cache, "train")
    assert first["rows"] == second["rows"]
    assert first["ids"] != second["ids"]


def test_labels_count_by_name(tmp_path: Path) -> None:
    from mmsent.config import DataSettings

    root = make_guid(tmp_path / "posts", 30, 6)
    first = encode(root, tmp_path / "cache").cache
    turned = load_dataset(root, DataSettings(labels=("positive", "neutral", "negative")))
    second = fake_cache(turned, tmp_path / "cache", ("test",), views=1, encoder=PAIR)
    assert second.labels == ("positive", "neutral", "negative")
    assert second.provenance["content"]["train"] == first.provenance["content"]["train"] == content(second, "train")


def test_array_digest_follows_values_shape_and_type() -> None:
    a = np.arange(6, dtype=np.float32)
    digests = [[a], [a.reshape(2, 3)], [a.astype(np.float64)], [a + 1], [a[:3], a[3:]], [a[::-1]]]
    assert len({array_digest(arrays) for arrays in digests}) == len(digests)
    assert array_digest([a]) == array_digest([a.copy()])
    assert array_digest([np.asfortranarray(np.ones((2, 3)))]) == array_digest([np.ones((2, 3))])


# --- caches and runs


def test_a_cache_remembers_who_encoded_it(tmp_path: Path) -> None:
    root = make_guid(tmp_path / "posts", 30, 6)
    first = encode(root, tmp_path / "cache", "train").cache.provenance["made_by"]
    assert [record["encoded"] for record in first] == [{"train": 30}]
    assert {"written", "command", "versions", "machine", "code"} <= first[0].keys()
    second = encode(root, tmp_path / "cache", "test").cache.provenance["made_by"]
    assert second[0] == first[0]
    assert [record["encoded"] for record in second[1:]] == [{"test": 6}]
    assert encode(root, tmp_path / "cache").cache.provenance["made_by"] == second  # nothing was encoded


def test_a_cache_remembers_the_first_and_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extraction_record, "MADE_BY", 3)
    root = make_guid(tmp_path / "posts", 30, 0)
    for k in range(5):
        (root / "data" / "1.txt").write_text(f"text {k}")
        cache = encode(root, tmp_path / "cache").cache
    made = cache.provenance["made_by"]
    assert [record["encoded"] for record in made] == [{"train": 30}, {"train": 1}, {"train": 1}]


def test_a_cache_of_an_older_mmsent_stays_readable(tmp_path: Path) -> None:
    """Older caches say less of themselves: they open, go on, and what they did not say stays unsaid."""
    import h5py

    root = make_guid(tmp_path / "posts", 30, 6)
    cache = encode(root, tmp_path / "cache", "train").cache
    with h5py.File(cache.path, "r+") as file:
        old = json.loads(file.attrs["provenance"])
        del old["made_by"], old["content"]
        file.attrs["provenance"] = json.dumps(old | {"mmsent": "0.1.0", "machine": "Linux"})
        del file.attrs["attributes_sha256"]
    assert recorded(Cache.open(cache.path).provenance, "made_by") == NOT_RECORDED
    made = encode(root, tmp_path / "cache", "test").cache.provenance["made_by"]
    assert made[0] == {"written": old["written"], "command": old["command"]}
    assert [record.get("encoded") for record in made] == [None, {"test": 6}]


def test_a_run_records_where_it_comes_from(tmp_path: Path) -> None:
    cache = encode(make_guid(tmp_path / "posts", 40, 6), tmp_path / "cache").cache
    info = fit(cache, tmp_path / "runs", [FitSettings(epochs=1, hidden=8)], SplitSettings(val_size=10))[0].info
    assert {"command", "versions", "machine", "code", "data", "weights", "memory", "device"} <= info.keys()
    assert info["weights"]["image"] == cache.settings.image.weights_sha256
    assert info["data"]["rows"] == 40
    assert len(info["data"]["features"]) == len(info["data"]["split"]) == 64
    assert info["memory"] is None
    assert info["cache"]["written"] == cache.provenance["written"]
    on_disk = fit(
        cache, tmp_path / "runs", [FitSettings(epochs=1, hidden=8)], SplitSettings(val_size=10), Training(memory=1)
    )
    assert on_disk[0].info["memory"] == 1
    assert on_disk[0].info["data"]["features"] is None
    assert {k: v for k, v in on_disk[0].info["data"].items() if k != "features"} == {
        k: v for k, v in info["data"].items() if k != "features"
    }


# --- comparison


def test_differences_are_named() -> None:
    then = {"torch": "2.6", "numpy": "1", "gone": "x", "same": 1}
    now = {"torch": "2.7", "numpy": "1", "same": 1, "h5py": "3", "timm": "1"}
    found = differences("versions", then, now)
    assert [str(d) for d in found] == [
        "versions: torch 2.6 -> 2.7",
        "versions: gone x -> none",
        f"versions: h5py, timm {NOT_RECORDED} -> known",
    ]
    assert found[0].to_json() == {"kind": "versions", "name": "torch", "then": "2.6", "now": "2.7"}


def test_differences_of_nothing() -> None:
    assert differences("machine", {"cpu": "a"}, {"cpu": "a"}) == []
    assert differences("machine", None, {"cpu": "a"}) == [Difference("machine", "machine", NOT_RECORDED, "known")]
    assert differences("machine", {"platform": "a", "cores": 2}, {"platform": "b", "cores": 4}) == []


def test_digests_are_shown_short() -> None:
    then, now = {"sha256": "a" * 64, "modified": False}, {"sha256": "b" * 64, "modified": True}
    assert [str(d) for d in differences("code", then, now)] == [
        f"code: sha256 {'a' * 12} -> {'b' * 12}",
        "code: modified false -> true",
    ]


def test_the_origin_of_a_run_in_words() -> None:
    full = {
        "machine": {"cpu": "EPYC", "cpu_capability": "AVX512", "blas": "mkl 2024.2", "threads": 2, "platform": "x"},
        "code": {"sha256": "c" * 64, "commit": "d" * 40, "modified": True},
        "data": {"rows": 4, "ids": "1" * 64, "labels": "2" * 64, "contents": "3" * 64},
    }
    assert provenance.origin(full) == {
        "machine": "EPYC, AVX512, mkl 2024.2, 2 threads",
        "code, SHA-256": f"{'c' * 16}…, commit {'d' * 12} (modified)",
        "data, SHA-256": f"ids {'1' * 12}, labels {'2' * 12}, contents {'3' * 12}",
    }
    assert set(provenance.origin({}).values()) == {NOT_RECORDED}
    assert provenance.origin({"code": {"sha256": "c" * 64}})["code, SHA-256"] == "c" * 16 + "…"
