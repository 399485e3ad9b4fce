"""Encoders on onnxruntime and OpenVINO against the same on torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmsent.cli.main import main
from mmsent.config import EncoderSettings, ViewSettings
from mmsent.data.images import Pixels
from mmsent.encoders import converted, runtimes
from mmsent.encoders.base import Embeddings, ImageEncoder
from mmsent.encoders.blocks import last_blocks, require_blocks, states_of, with_blocks
from mmsent.encoders.factory import open_encoders
from mmsent.errors import EncoderError, UsageError
from mmsent.features.cache import Cache
from mmsent.features.cache.fingerprint import FeatureSettings
from mmsent.system.devices import cpu_multiplies_bf16, processor
from mmsent.system.process import cores
from tests.encoders.test_blocks import TEXTS
from tests.encoders.test_clip import CONFIG, Tiny, make_tiny
from tests.helpers.made import make_guid

RUNTIMES = ("onnxruntime", "openvino")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def own_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))


def lite2(runtime: str) -> ImageEncoder:
    if runtime != "torch":
        pytest.importorskip(runtime.removesuffix("-int8"))
    return open_encoders(EncoderSettings.model_validate({"encoder": "offline", "runtime": runtime})).image


def pixels(count: int, size: int, seed: int = 1) -> Pixels:
    """Soft colours rather than noise alone: what an encoder meets."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 200, (count, 4, 4, 3)).repeat(size // 4 + 1, axis=1).repeat(size // 4 + 1, axis=2)
    return (coarse[:, :size, :size] + rng.integers(0, 56, (count, size, size, 3))).astype(np.uint8)


def apart(a: Embeddings, b: Embeddings) -> float:
    return float((np.linalg.norm(a - b, axis=1) / np.linalg.norm(b, axis=1)).max())


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_embeddings_agree_with_torch(runtime: str) -> None:
    images = pixels(5, 260)
    there, here = lite2(runtime), lite2("torch")
    found = there.encode(images)
    assert (found.shape, found.dtype) == ((5, 1280), np.float32)
    assert apart(found, here.encode(images)) < 1e-4
    assert there.encode(images).tobytes() == found.tobytes()
    assert apart(there.encode(images[3:4]), found[3:4]) < 1e-5
    assert there.card.libraries[runtime] != ""
    assert {k: v for k, v in there.card.libraries.items() if k != runtime} == here.card.libraries
    assert there.card.model_copy(update={"libraries": here.card.libraries}) == here.card


def minilm(runtime: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(runtimes, "processor", lambda: "AVX2")
    return open_encoders(EncoderSettings.model_validate({"encoder": "offline", "runtime": runtime})).text


ODD = ["", " ", "[SEP] [CLS] day [PAD]", "É à ñ 你好 😀 " * 200, "x" * 5000, "two\nlines", *TEXTS]


@pytest.mark.slow
def test_texts_agree_with_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    there, here = minilm("onnxruntime", monkeypatch), minilm("torch", monkeypatch)
    assert there.lengths(ODD) == here.lengths(ODD)
    tokens = there.tokens(ODD)
    assert max(map(len, tokens)) == there.card.max_tokens
    tokenize = getattr(here.model, "preprocess", None) or here.model.tokenize
    assert tokens == [tokenize([text])["input_ids"][0].tolist() for text in ODD]
    found = there.encode(3 * ODD)  # more than one part
    assert (found.shape, found.dtype) == ((3 * len(ODD), 384), np.float32)
    assert apart(found, here.encode(3 * ODD)) < 1e-5
    assert there.encode(3 * ODD).tobytes() == found.tobytes()
    assert apart(there.encode(ODD[4:5]), found[4:5]) < 1e-5
    assert there.card.libraries == here.card.libraries | {"onnxruntime": there.card.libraries["onnxruntime"]}
    monkeypatch.setattr(converted, "cores", lambda: 7)
    assert minilm("onnxruntime", monkeypatch).encode(3 * ODD).tobytes() == found.tobytes()


def test_whose_texts_take_another_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    text = minilm("torch", monkeypatch)
    assert [name for name in (*RUNTIMES, "torch", "openvino-int8") if runtimes.takes_texts(name, text)] == [
        "onnxruntime"
    ]
    other = type("", (), {"card": text.card.model_copy(update={"name": "all-mpnet-base-v2"})})()
    assert not runtimes.takes_texts("onnxruntime", other)
    monkeypatch.setattr(runtimes, "processor", lambda: "AVX512")
    assert not runtimes.takes_texts("onnxruntime", text)


@pytest.mark.slow
def test_once_converted_no_torch_is_imported(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = EncoderSettings(encoder="offline", runtime="onnxruntime")
    minilm("onnxruntime", monkeypatch).encode(["a day"])
    open_encoders(settings).image.encode(pixels(1, 260))
    code = """
import sys
import numpy as np
from mmsent.config import EncoderSettings
from mmsent.encoders import runtimes
from mmsent.encoders.factory import open_encoders
runtimes.processor = lambda: "AVX2"
pair = open_encoders(EncoderSettings(encoder="offline", runtime="onnxruntime"))
print(pair.image.batch_size, pair.image.encode(np.zeros((1, 260, 260, 3), np.uint8)).shape)
print(pair.text.lengths(["a day"]), pair.text.encode(["a day"]).shape)
print({"torch", "sentence_transformers", "transformers", "timm"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"{max(16, cores())} (1, 1280)", "[4] (1, 384)", "set()"]


@pytest.mark.skipif(not Path("/proc/cpuinfo").is_file(), reason="only Linux is asked without torch")
def test_the_processor_is_what_torch_says() -> None:
    code = "import sys; from mmsent.system.devices import processor; print(processor(), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    name, imported = done.stdout.split()
    assert name == torch.backends.cpu.get_cpu_capability() or "ATEN_CPU_CAPABILITY" in os.environ
    assert imported == "False" or name not in ("AVX2", "AVX512")


def clip_pair(tiny: Tiny, **given: str) -> Any:
    chosen = {"encoder": f"open_clip:{tiny.arch}", "weights": str(tiny.file), "device": "cpu"}
    return open_encoders(EncoderSettings.model_validate(chosen | given))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_clip_tower_agrees_with_torch(runtime: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip(runtime)
    tiny = make_tiny(tmp_path, f"mmsent-tiny-{runtime}", CONFIG)
    there, here = clip_pair(tiny, runtime=runtime, precision="fp32"), clip_pair(tiny, precision="fp32")
    images = pixels(3, 32)
    found = there.image.encode(images)
    assert apart(found, here.image.encode(images)) < 1e-4
    assert there.image.encode(images[1:2]).tobytes() == found[1:2].tobytes()
    assert there.text.encode(["a day"]).tobytes() == here.text.encode(["a day"]).tobytes()
    assert capsys.readouterr().err.count("is converted for other runtimes, once; this may take half a minute") == 1


def test_a_clip_tower_in_bf16(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    tiny = make_tiny(tmp_path, "mmsent-tiny-half", CONFIG)
    if not cpu_multiplies_bf16():
        with pytest.raises(UsageError, match="openvino computes in fp32 here; leave --precision out"):
            clip_pair(tiny, runtime="openvino", precision="bf16")
        return
    there, here = clip_pair(tiny, runtime="openvino"), clip_pair(tiny, runtime="torch", precision="fp32")
    assert there.image.card.precision == there.text.card.precision == "bf16"
    images = pixels(3, 32)
    found, wanted = there.image.encode(images), here.image.encode(images)
    assert 1e-4 < apart(found, wanted) < 0.04
    assert clip_pair(tiny, runtime="onnxruntime").image.card.precision == "fp32"


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_large_tower_gives_one_image_all_threads(runtime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime takes several images at a time where there are as many as threads; the bytes are the same."""
    pytest.importorskip(runtime)
    images, seen, load = pixels(5, 260), list[tuple[int, int]](), converted._load

    def spied(*given: Any) -> Any:
        seen.append(given[3:])
        return load(*given)

    monkeypatch.setattr(converted, "_load", spied)
    monkeypatch.setattr(converted, "cores", lambda: 3)
    small = lite2(runtime).encode(images)
    monkeypatch.setattr(converted, "_LARGE", 10**6)
    large = lite2(runtime)
    assert [large.encode(images[:n]).tobytes() for n in (1, 2, 5, 1)] == [small[:n].tobytes() for n in (1, 2, 5, 1)]
    assert seen == [(3, 3), (3, 1), *([(3, 3)] if runtime == "onnxruntime" else [])]


def test_threads_load_a_large_tower_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converted, "_LARGE", 10**6)
    encoder, images, loaded, load = lite2("onnxruntime"), pixels(1, 260), list[Any](), converted._load
    encoder.encode(images)
    monkeypatch.setattr(converted, "_load", lambda *given: loaded.append(given) or load(*given))
    fresh = lite2("onnxruntime")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(fresh.encode, [images] * 8))
    assert [given[3:] for given in loaded] == [(cores(), 1)]


@pytest.mark.slow
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_weights_in_a_file_of_their_own(runtime: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As they are beyond 2 GB. They count: it is no small tower, and it is damaged without them."""
    pytest.importorskip(runtime)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "kept"))
    program: Any = torch.onnx.ONNXProgram
    save, load, seen = program.save, converted._load, list[int]()
    monkeypatch.setattr(program, "save", lambda self, file: save(self, file, external_data=True))

    def spied(*given: Any) -> Any:
        seen.append(given[-1])
        return load(*given)

    monkeypatch.setattr(converted, "_load", spied)
    tiny, images = make_tiny(tmp_path, f"mmsent-tiny-apart-{runtime}", CONFIG), pixels(2, 32)
    here = clip_pair(tiny, runtime="torch", precision="fp32").image.encode(images)
    found = clip_pair(tiny, runtime=runtime, precision="fp32").image.encode(images)
    assert apart(found, here) < 1e-4
    (weights,) = tmp_path.glob("kept/mmsent/*/encoder.onnx.data")
    size = weights.stat().st_size
    weights.unlink()
    monkeypatch.setattr(converted, "_LARGE", size)
    assert clip_pair(tiny, runtime=runtime, precision="fp32").image.encode(images).tobytes() == found.tobytes()
    assert weights.stat().st_size == size
    assert seen == [cores(), cores() if runtime == "onnxruntime" else 1]


def test_blocks_of_a_tower_on_another_runtime(tmp_path: Path) -> None:
    """Their states come from torch, which alone shows them; weights of one's own run there too."""
    tiny = make_tiny(tmp_path, "mmsent-tiny-blocks", CONFIG)
    there = clip_pair(tiny, runtime="onnxruntime", precision="fp32").image
    here = clip_pair(tiny, runtime="torch", precision="fp32").image
    images = pixels(2, 32)
    assert require_blocks(there, 1) == require_blocks(here, 1)
    for one, other in zip(states_of(there, 1, images), states_of(here, 1, images), strict=True):
        assert one.tobytes() == other.tobytes()
    assert there.on_runtime is not None
    weights = {name: 2 * value for name, value in last_blocks(here, 1).module().weights().items()}
    tuned = [with_blocks(one, 1, weights, "0").encode(images) for one in (there, here)]
    assert tuned[0].tobytes() == tuned[1].tobytes()
    assert apart(tuned[0], here.encode(images)) > 0.01


@pytest.mark.slow
def test_threads_that_come_first_start_one_conversion(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "kept"))
    tiny = make_tiny(tmp_path, "mmsent-tiny-threads", CONFIG)
    encoder, images = clip_pair(tiny, runtime="onnxruntime", precision="fp32").image, pixels(2, 32)
    write, written, out = converted._write, list[Any](), sys.stdout

    def spied(*given: Any) -> None:
        written.append(given)
        write(*given)

    monkeypatch.setattr(converted, "_write", spied)
    with ThreadPoolExecutor(3) as pool:
        found = [one.tobytes() for one in pool.map(encoder.encode, [images] * 3)]
    assert found == [encoder.encode(images).tobytes()] * 3
    assert len(written) == 1
    assert sys.stdout is out


@pytest.mark.slow
def test_the_converted_file_is_made_once_and_again_where_it_is_damaged(home: Path) -> None:
    images = pixels(1, 260)
    first = lite2("onnxruntime").encode(images)
    (kept,) = home.glob("mmsent/timm-*")
    made = (kept / "encoder.onnx").stat().st_mtime_ns
    assert lite2("onnxruntime").encode(images).tobytes() == first.tobytes()
    assert (kept / "encoder.onnx").stat().st_mtime_ns == made

    before = sorted(path.name for path in (home / "mmsent").iterdir())
    damaged = bytearray((kept / "encoder.onnx").read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (kept / "encoder.onnx").write_bytes(damaged)
    assert lite2("onnxruntime").encode(images).tobytes() == first.tobytes()
    assert sorted(path.name for path in (home / "mmsent").iterdir()) == before


@pytest.mark.slow
def test_a_home_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    images = pixels(1, 260)
    assert apart(lite2("onnxruntime").encode(images), lite2("torch").encode(images)) < 1e-4


@pytest.mark.slow
def test_an_encoder_that_comes_out_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    load, asked, compare = converted._load, list[str](), converted._apart

    def spied(encoder: ImageEncoder, run: Any) -> str:
        asked.append(compare(encoder, run))
        return asked[-1]

    monkeypatch.setattr(converted, "_apart", spied)
    with monkeypatch.context() as patched:
        patched.setattr(converted, "_load", lambda *given: lambda pixels: load(*given)(pixels) * 1.01)
        for _ in range(2):
            with pytest.raises(EncoderError, match=r"on onnxruntime differs from torch by 0\.01 of the embedding's"):
                lite2("onnxruntime").encode(pixels(1, 260))
    for _ in range(2):
        lite2("onnxruntime").encode(pixels(1, 260))
    assert [bool(told) for told in asked] == [True, True, False]  # what passed is not asked again
    (passed,) = tmp_path.glob("mmsent/timm-*/*.passed")
    passed.rename(passed.with_name("onnxruntime-0.1-fp32-avx2.passed"))  # of another version
    lite2("onnxruntime").encode(pixels(1, 260))
    assert len(asked) == 4


def test_what_cannot_be_converted_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no operator aten::strange\nand a page of what the exporter did")

    monkeypatch.setattr("mmsent.encoders.towers.image_tower", lambda *_: torch.nn.Identity())
    monkeypatch.setattr("mmsent.encoders.onnx_file.write_onnx", broken)
    with pytest.raises(EncoderError, match=r"lite2 cannot be converted .* \(no operator \S+\); use --runtime torch$"):
        converted._write(lite2("torch"), False, tmp_path)


def test_a_file_without_its_digest_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "encoder.onnx").write_bytes(b"half")
    assert not converted._whole(tmp_path)
    (tmp_path / "encoder.onnx.sha256").write_bytes(b"\xff")
    assert not converted._whole(tmp_path)


def test_another_nncf_calibrates_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its features are others, and a cache says which version they are of."""
    names: list[str] = []

    def kept(name: str, *_: object) -> Path:
        names.append(name)
        return Path(name)

    monkeypatch.setattr(converted, "kept_folder", kept)
    encoder = lite2("torch")
    for version in ("2.18.0", "2.19.0", "2.18.0"):
        monkeypatch.setattr(converted, "versions", lambda *more, v=version: {"torch": "2"} | dict.fromkeys(more, v))
        for int8 in (False, True):
            converted._converted(encoder, int8)
    assert [names.index(name) for name in names] == [0, 1, 0, 3, 0, 1]


def test_the_first_call_is_in_one_thread(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two threads that call OpenVINO first, both at once, can wait for each other forever."""
    encoder, called = lite2("torch"), list[threading.Thread]()

    def load(*_: object) -> Any:
        def run(images: Pixels) -> Embeddings:
            called.append(threading.current_thread())
            return np.zeros((len(images), 2), np.float32)

        return run

    monkeypatch.setattr(converted, "_load", load)
    (tmp_path / "encoder.onnx").touch()
    monkeypatch.setattr(converted, "_converted", lambda *_: tmp_path / "encoder.onnx")
    monkeypatch.setattr(converted, "_apart", lambda _, run: "" if len(run(pixels(2, 260))) else "all")
    encoder.card.libraries["openvino"] = "1"
    converted.start_runtime(encoder, "openvino")
    assert called[0] is threading.current_thread()
    assert threading.current_thread() not in called[1:]


@pytest.mark.slow
def test_int8_is_near_torch_and_another_set_of_features(tmp_path: Path) -> None:
    pytest.importorskip("nncf")
    there, here = lite2("openvino-int8"), lite2("torch")
    images = pixels(4, 260)
    found, wanted = there.encode(images), here.encode(images)
    cosines = (found * wanted).sum(axis=1) / np.linalg.norm(found, axis=1) / np.linalg.norm(wanted, axis=1)
    assert 0.8 < cosines.min() < 0.9999
    assert there.encode(images).tobytes() == found.tobytes()
    assert there.encode(images[2:3]).tobytes() == found[2:3].tobytes()
    assert (there.card.precision, set(there.card.libraries) - set(here.card.libraries)) == (
        "int8",
        {"openvino", "nncf"},
    )


def test_heads_of_int8_features_are_not_heads_of_fp32() -> None:
    cards = open_encoders(EncoderSettings(encoder="offline", runtime="torch"))

    def settings(**changes: Any) -> FeatureSettings:
        return FeatureSettings(
            image=cards.image.card.model_copy(update=changes),
            text=cards.text.card,
            normalize=False,
            views=ViewSettings(count=0),
            views_version=1,
            clean=(),
            text_encoding="utf-8",
            storage="float16",
        )

    usual, half, eighth = settings(), settings(precision="bf16"), settings(precision="int8")
    assert usual.contract == half.contract != eighth.contract
    assert usual.alike(half)
    assert not usual.alike(eighth)


def test_int8_is_not_replaced_where_it_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "_missing", lambda runtime: [runtime])
    assert runtimes.usable("openvino", "auto", None) == "torch"
    assert runtimes.usable("openvino-int8", "auto", None) == "openvino-int8"
    with pytest.raises(UsageError, match=r"needs the package openvino-int8: pip install 'mmsent\[int8\]'"):
        open_encoders(EncoderSettings(encoder="offline", runtime="openvino-int8"))


def test_what_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"encoder": "offline", "runtime": "onnxruntime"}
    with pytest.raises(UsageError, match="onnxruntime computes in fp32 here; leave --precision out"):
        open_encoders(EncoderSettings.model_validate(given | {"precision": "bf16"}))
    with pytest.raises(UsageError, match="computes on the CPU, not on cuda"):
        open_encoders(EncoderSettings.model_validate(given | {"device": "cuda"}))
    find = runtimes.importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *more: None if name == "openvino" else find(name, *more)
    )
    with pytest.raises(UsageError, match="needs the package openvino: pip install openvino"):
        open_encoders(EncoderSettings.model_validate(given | {"runtime": "openvino"}))


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(list(words))
    return int(stopped.value.code or 0)


@pytest.mark.slow
def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    make_guid(tmp_path / "data", n_train=24, n_test=4, size=32)
    options = ["--encoder", "offline", "--views", "0"]
    assert run("extract", *options, "--split", "train", "--runtime", "onnxruntime") == 0, capsys.readouterr().err
    (path,) = Path("cache").glob("*.h5")
    cache = Cache.open(path)
    assert "onnxruntime" in cache.settings.image.libraries
    assert ("onnxruntime" in cache.settings.text.libraries) == (processor() == "AVX2")
    assert run("fit", "--fusion", "concat", "--epochs", "1", "--val-size", "6") == 0
    assert run("extract") == 0  # the test split, with the options of the cache
    assert [p.name for p in Path("cache").glob("*.h5")] == [path.name]
    assert run("vote") == 0
    cached = Path("predictions.csv").read_text(encoding="utf-8").splitlines()
    capsys.readouterr()
    image = sorted(Path("data/data").glob("*.jpg"))[0]
    assert run("predict", "--image", str(image), "--text", "a day", "--json") == 0, capsys.readouterr()
    assert json.loads(capsys.readouterr().out)
    assert len(cached) == 5

    assert run("extract", *options, "--split", "train", "--runtime", "torch") == 0
    other = next(Cache.open(p) for p in Path("cache").glob("*.h5") if p.name != path.name)
    assert other.settings.contract == cache.settings.contract
    assert other.settings.fingerprint != cache.settings.fingerprint
    assert apart(cache.load("train").image[:, 0], other.load("train").image[:, 0]) < 1e-4


def chosen(**given: str) -> str:
    return runtimes.with_runtime(
        EncoderSettings.model_validate({"encoder": "offline", "device": "cpu"} | given)
    ).runtime


def test_what_auto_means(monkeypatch: pytest.MonkeyPatch) -> None:
    missing: set[str] = set()
    find = runtimes.importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec",
        lambda name, *more: None if name in missing else object() if name in RUNTIMES else find(name, *more),
    )
    clip, half = {"encoder": "open_clip:ViT-L-14-336-quickgelu:openai"}, False
    monkeypatch.setattr(runtimes, "cpu_multiplies_bf16", lambda: half)
    monkeypatch.setattr(runtimes, "memory", lambda: 16 * 10**9)
    for kind in ("AVX512", "AVX2"):
        missing.clear()
        monkeypatch.setattr("mmsent.encoders.runtimes.processor", lambda kind=kind: kind)
        fp32 = "onnxruntime" if kind == "AVX2" else "torch"  # with AVX-512 alone nothing was timed
        assert (chosen(), chosen(**clip), chosen(**clip, precision="fp32")) == ("onnxruntime", fp32, fp32)
        assert chosen(**clip, precision="bf16") == "torch"
        assert chosen(encoder="open_clip:ViT-B-16-quickgelu:openai") == chosen(encoder="open_clip:ViT-B-32") == fp32
        missing.add("onnxruntime")
        assert (chosen(), chosen(**clip)) == ("openvino", "torch")
        missing.add("openvino")
        assert chosen() == "torch"
    missing.clear()
    assert chosen(runtime="torch") == chosen(precision="bf16") == chosen(image_encoder="timm:resnet18") == "torch"

    half = True  # what ONNX Runtime has not
    assert (chosen(), chosen(**clip), chosen(**clip, precision="bf16")) == ("onnxruntime", "openvino", "openvino")
    assert (chosen(encoder="clip-l14-336"), chosen(encoder="open_clip:ViT-B-16")) == ("openvino", "torch")
    assert chosen(**clip, precision="fp32") == chosen(**clip, precision="fp16") == "torch"
    assert chosen(encoder="open_clip:RN50") == "torch"
    assert chosen(image_encoder="open_clip:ViT-L-14+efficientnet-lite2") == "torch"
    monkeypatch.setattr(runtimes, "memory", lambda: 8 * 10**9)  # a conversion would be killed
    assert (chosen(), chosen(**clip), chosen(**clip, runtime="openvino")) == ("onnxruntime", "torch", "openvino")
    monkeypatch.setattr(runtimes, "memory", lambda: None)
    assert chosen(**clip) == "openvino"
    missing.add("openvino")
    assert chosen(**clip) == "torch"

    missing.clear()
    monkeypatch.setattr("mmsent.encoders.runtimes.processor", lambda: "DEFAULT")
    assert chosen() == "torch"  # a kind of processor on which nothing was timed
    monkeypatch.setattr("mmsent.encoders.runtimes.processor", lambda: "AVX2")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert (chosen(), chosen(device="auto")) == ("onnxruntime", "torch")


def test_a_runtime_that_is_not_here_is_torch_for_more_posts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *more: None if name == "openvino" else object())
    assert [runtimes.usable(name, "auto", "cpu") for name in ("auto", "torch", *RUNTIMES)] == [
        "auto",
        "torch",
        "onnxruntime",
        "torch",
    ]
    assert runtimes.usable("onnxruntime", "auto", "cuda") == "torch"


@pytest.mark.parametrize("half", [False, True])
def test_bf16_of_another_processor_is_torch_for_more_posts(half: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where this one does not multiply it, OpenVINO refuses it and torch computes it all the same."""
    monkeypatch.setattr(runtimes, "_missing", lambda _: [])
    monkeypatch.setattr(runtimes, "cpu_multiplies_bf16", lambda: half)
    assert runtimes.usable("openvino", "bf16", None) == ("openvino" if half else "torch")
    assert runtimes.usable("openvino", "auto", None) == runtimes.usable("openvino", "fp32", None) == "openvino"
