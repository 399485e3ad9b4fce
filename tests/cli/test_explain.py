"""`mmsent explain`: which run, which post, what is printed, and where the files go."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mmsent.cli.explain import safe_name
from mmsent.cli.main import main
from mmsent.config import FitSettings, Fusion, SplitSettings
from mmsent.data.dataset import load_dataset
from mmsent.training.fit import fit
from tests.helpers.fake_cache import fake_cache
from tests.helpers.made import make_manifest
from tests.inference.test_explain import planted

ODD = ["../../x", "a/b\\c", "..", "今日 😀", "x" * 300, "-rf", "$(ls)", "a\nb", "CON ", "a.b"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder: a manifest with odd ids among the others, its cache, and three runs."""
    folder = tmp_path_factory.mktemp("explain")
    manifest = make_manifest(folder / "posts", n_train=40, n_test=10, size=24)
    with manifest.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row, odd in zip(rows, ["../../x", "今日 😀"], strict=False):
        row["id"] = odd
    rows[2]["text"], rows[2]["id"] = "so happy and sad today 😀", "planted"
    rows[-1]["image"], rows[-1]["id"] = "pictures/none.png", "no picture"
    with manifest.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    cache = fake_cache(load_dataset(manifest), folder / "cache", ["train"], encoders=planted())
    quick: dict[str, Any] = {"epochs": 2, "hidden": 8, "common_width": 16, "heads": 4, "lr": 1e-2}
    for name, wanted in (
        ("runs", [FitSettings(**quick, fusion=f) for f in (Fusion.weighted, Fusion.concat, Fusion.image)]),
        ("half", [FitSettings(**quick, fusion=Fusion.attention, modality_dropout=0.4)]),
    ):
        fit(cache, folder / name, wanted, SplitSettings(val_size=0.25))
    return folder


@pytest.fixture(autouse=True)
def _here(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setattr("mmsent.encoders.factory.open_encoders", lambda _: planted())


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["explain", "--data", "posts/posts.csv", *arguments])
    code = ended.value.code
    assert code is None or isinstance(code, int)
    return code or 0


def files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_a_post_of_the_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--guid", "planted", "--out", str(tmp_path / "out")) == 0
    printed = capsys.readouterr().out
    report, page_file = files(tmp_path)
    found = json.loads((tmp_path / report).read_text(encoding="utf-8"))
    stem = f"out/planted.concat.{found['target']}"
    assert (report, page_file) == (f"{stem}.json", f"{stem}.png")
    assert found["fusion"] == "concat"  # the newest concat run, although image is newer
    assert found["target"] == found["label"]
    assert [w["word"] for w in found["text"]["words"]] == ["so", "happy", "and", "sad", "today", "😀"]
    best = found["probabilities"][found["label"]]
    assert printed.startswith(f"{found['label']} ({best:.1%}, calibrated at temperature {found['temperature']:.2f})\n")
    assert f"explained: {found['label']}, logit {found['logit']:.3f}, by the concat head" in printed
    image, text = (found["modality"][half] for half in ("image", "text"))
    for half, value in (("image", image), ("text", text)):
        assert f"the {half} {'opposes' if value < 0 else 'supports'} {found['target']} by {value:+.3f}" in printed
    assert "words that support it most" in printed
    assert not re.search(r"support.* -0\.", printed.split("words that", 1)[0])
    assert "integrated gradients  " in printed
    assert f"wrote {tmp_path / page_file} and " in printed
    with Image.open(tmp_path / page_file) as page:
        assert page.info["dpi"] == pytest.approx((200, 200), abs=0.1)


@pytest.mark.slow
def test_where_the_map_is_strongest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What one label's logit gains at a place, the others' lose: not every map is empty."""
    spoken = []
    for target in ("negative", "neutral", "positive"):
        assert run("--guid", "planted", "--out", str(tmp_path), "--target", target) == 0
        printed = capsys.readouterr().out
        file = tmp_path / f"planted.concat.{target}.json"  # another target, another file
        (cam,) = json.loads(file.read_text(encoding="utf-8"))["picture"]["grad_cam"]
        row, column = cam["peak"]
        place = f"{row + 1}, {column + 1}" if cam["maximum"] > 0 else "nowhere"
        assert re.search(rf"^conv +4 x 4  {place}", printed, re.MULTILINE)
        spoken.append(cam["maximum"] > 0)
    assert any(spoken)


@pytest.mark.parametrize("guid", ["../../x", "今日 😀"])
def test_odd_ids_stay_inside_out(guid: str, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "er" / "out"
    assert run("--guid", guid, "--out", str(out)) == 0
    assert len(files(tmp_path)) == 2
    assert all(name.startswith("deep/er/out/") and name.count("/") == 3 for name in files(tmp_path))
    assert json.loads(next(out.glob("*.json")).read_text(encoding="utf-8"))["id"] == guid


def test_safe_names() -> None:
    names = [safe_name(odd) for odd in ODD]
    assert len(set(names)) == len(ODD)
    for name in names:
        assert name
        assert len(name) < 80
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_+")
        assert not name.startswith("-")
    assert safe_name("4597") == "4597"
    assert safe_name("a/b") != safe_name("a-b") == "a-b"


def test_a_new_post(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = str(place / "posts" / "pictures" / "1.png")
    arguments = ["--text", "a happy day", "--image", picture, "--target", "negative", "--out", str(tmp_path), "--json"]
    assert run(*arguments, "--layer", "conv") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["target"] == "negative"
    assert printed["text"]["text"] == "a happy day"
    assert sorted(Path(f).name for f in printed["files"]) == files(tmp_path)
    assert files(tmp_path)[0].startswith("post-")
    assert run(*arguments[:-1]) == 0
    assert len(files(tmp_path)) == 2  # the same post, head and label: the same names
    assert run("--text", "another", *arguments[2:-1]) == 0
    assert len(files(tmp_path)) == 4


def test_which_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fusion(*arguments: str) -> str:
        assert run("--guid", "planted", "--out", str(tmp_path), "--json", *arguments) == 0
        found: str = json.loads(capsys.readouterr().out)["fusion"]
        return found

    weighted = next(p.name for p in Path("runs").iterdir() if "weighted" in p.name)
    assert fusion(weighted) == fusion(str(Path("runs") / weighted)) == "weighted"
    assert fusion("--runs", "half") == "attention"


def test_half_a_post(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The training mean stands in for the missing half; a head that was not fitted for that says so."""
    assert run("--guid", "no picture", "--out", str(tmp_path)) == 0
    printed = capsys.readouterr()
    assert "the image is missing, the text " in printed.out
    assert "the mean of the training rows is used instead, which this head was not trained for" in printed.err
    assert run("--text", "a happy day", "--runs", "half", "--out", str(tmp_path)) == 0
    printed = capsys.readouterr()
    assert "the image is missing, the text " in printed.out
    assert "Grad-CAM of the logit at" not in printed.out
    assert "not fitted for" not in printed.err


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "give a post of the data set with --guid, or a new one with --text and --image"),
        (["--guid", "planted", "--text", "x"], 2, "give a post of the data set with --guid, or a new one"),
        (["--guid", "nobody"], 1, "posts.csv has no post 'nobody' among its 50; its first is '../../x'"),
        (["--image", "none.png"], 1, "no image at none.png"),
        (["--guid", "planted", "--target", "joy"], 2, "--target 'joy': run"),
        (["--guid", "planted", "--layer", "x"], 2, "--layer 'x': choose from first, middle, late, conv"),
        (["--text", "x", "--layer", "y", "--runs", "half"], 2, "--layer 'y': choose from first, middle, late, conv"),
        (
            ["--guid", "planted", "--out", "posts/posts.csv"],
            2,
            "--out posts/posts.csv would replace a file of the data set",
        ),
        (["--guid", "planted", "--runs", "none"], 1, "no runs of posts.offline."),
        (["no-run", "--guid", "planted"], 1, "runs/no-run is not a run folder"),
    ],
)
def test_requests_that_cannot_be_met(
    arguments: list[str], status: int, message: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(place)
    assert run(*arguments) == status
    printed = capsys.readouterr()
    assert printed.err.splitlines()[-1].startswith("mmsent: ")  # before it stands which run was taken
    assert message in printed.err
    assert sum(not line.startswith("taking ") for line in printed.err.splitlines()) == 1
    assert files(place) == before
