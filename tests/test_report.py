"""The report: every figure from a small run, the page and its safety, Markdown, and what is missing said plainly."""

from __future__ import annotations

import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from mmsent.report import plates
from tests.small import run


class Elements(HTMLParser):
    """Every element of a page with its attributes, and the text outside script and style."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self._within = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {k: v or "" for k, v in attrs}))
        self._within = tag

    def handle_endtag(self, tag: str) -> None:
        self._within = ""

    def handle_data(self, data: str) -> None:
        if self._within not in {"script", "style"}:
            self.text += data


def test_every_figure_is_made_and_shows_something(page: Path) -> None:
    folder = page.parent / "figures"
    for number, (name, _, _) in enumerate(plates.PLATES, 1):
        with Image.open(folder / f"{number:02d}-{name}.png") as image:
            assert image.info["dpi"][0] == pytest.approx(200, abs=1), name
            pixels = np.asarray(image.convert("L"), np.float64)
        assert min(pixels.shape) > 300, name
        assert (pixels < 128).mean() > 0.002, f"{name} is blank"
        assert pixels.std(axis=0).max() > 10, name
        svg = (folder / f"{number:02d}-{name}.svg").read_text(encoding="utf-8")
        assert svg.count("<path") + svg.count("<image") > 5, name
    assert len(list(folder.iterdir())) == 2 * len(plates.PLATES)


def test_every_axis_is_named(page: Path, figures: list[tuple[str, Figure]]) -> None:
    assert len(figures) == len(plates.PLATES)
    for name, figure in figures:
        plain = [ax for ax in figure.axes if ax.axison and ax.get_visible()]
        assert plain or name.startswith("01"), name  # the architecture has boxes, no axes
        for ax in plain:
            named = bool(ax.get_xlabel() or ax.get_ylabel() or ax.get_title())
            assert named, f"{name}: an axis without a name"
            bare_x = [t for t in ax.get_xticklabels() if t.get_visible() and t.get_text()]
            if bare_x and ax.xaxis.get_tick_params().get("labelbottom", True):
                assert ax.get_xlabel() or ax.get_label() == "<colorbar>", f"{name}: x axis without a name"


def test_page_is_self_contained(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert len(text.encode()) < 10_000_000
    elements = Elements(text)
    for tag, attributes in elements.found:
        for name in ("src", "href", "srcset", "action"):
            value = attributes.get(name, "")
            assert value.startswith(("data:", "#")) or not value, f"{tag} loads {value[:60]}"
    assert "http-equiv" in text
    assert elements.text.count("Figure ") >= len(plates.PLATES)


def test_hostile_posts_harm_neither_page_nor_files(page: Path, small: Path) -> None:
    text = page.read_text(encoding="utf-8")
    elements = Elements(text)
    assert [tag for tag, _ in elements.found].count("script") == 1
    assert all(not name.startswith("on") for _, attributes in elements.found for name in attributes)
    assert not any(tag in {"svg", "iframe", "object", "embed", "b onclick"} for tag, _ in elements.found)
    assert 'document.title="owned"' in elements.text  # it shows as text
    assert '<b onclick="alert(' in elements.text
    written = [path.name for path in (small / "report").rglob("*")]
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.") for name in written), written


def test_colours_of_labels_are_in_the_page(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert all(f".chip.label-{i}" in text for i in range(3))


def test_wide_characters_travel_with_the_page(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert '"mmsent wide"; src: url(data:font/woff' in text
    assert '"mmsent emoji"; src: url(data:font/woff' in text


def test_commands_fit_the_runs(page: Path) -> None:
    text = Elements(page.read_text(encoding="utf-8")).text
    line = next(line for line in text.splitlines() if line.startswith("mmsent fit") and "--fusion concat" in line)
    assert "--epochs 3" in line
    assert "--val-size 0.34" in line
    assert "--no-group" in line


def test_test_labels_stay_closed(page: Path) -> None:
    text = Elements(page.read_text(encoding="utf-8")).text
    assert "whose labels this report never opens" in text


def test_markdown(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plates, "PLATES", plates.PLATES[:4])
    out = tmp_path / "md"
    arguments = ["--data", str(small / "posts" / "posts.jsonl"), "--cache", str(small / "cache")]
    assert run("report", *arguments, "--runs", str(small / "runs"), "--out", str(out), "--format", "md") == 0
    text = (out / "report.md").read_text(encoding="utf-8")
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert "![Architecture](figures/01-architecture.png)" in text
    for table in [block for block in text.split("\n\n") if block.startswith("|")]:
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_without_posts_the_page_says_so(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = [p for p in plates.PLATES if p[0] in {"labels", "errors", "grad-cam"}]
    monkeypatch.setattr(plates, "PLATES", tuple(kept))
    moved = shutil.move(small / "posts", small / "away")
    try:
        monkeypatch.chdir(tmp_path)
        arguments = ["--cache", str(small / "cache"), "--runs", str(small / "runs"), "--out", str(tmp_path / "r")]
        assert run("report", *arguments) == 0
    finally:
        shutil.move(moved, small / "posts")
    said = capsys.readouterr()
    assert "not at hand" in said.err
    text = Elements((tmp_path / "r" / "report.html").read_text(encoding="utf-8")).text
    assert "The posts are not at hand, so the preflight was not run" in text
    assert "picture not at hand" in text
    assert (tmp_path / "r" / "figures" / "02-errors.png").is_file()


def test_one_run_alone(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"metrics", "fusion-weights", "attention", "agreement", "fused-attention-alt", "text-length"}
    monkeypatch.setattr(plates, "PLATES", tuple(p for p in plates.PLATES if p[0] in names))
    image = next(path.name for path in (small / "runs").iterdir() if "-image-" in path.name)
    where = ["--cache", str(small / "cache"), "--runs", str(small / "runs"), "--out", str(tmp_path)]
    assert run("report", image, *where, "--data", str(small / "posts" / "posts.jsonl")) == 0
    text = Elements((tmp_path / "report.html").read_text(encoding="utf-8")).text
    assert "no weighted run among these" in text
    assert "needs at least two runs on one validation split" in text
    assert "A paired test needs at least two runs" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("--format", "pdf"), "choose html or md"), (("--data", "nowhere"), "nowhere"), (("no-such-run",), "no-such-run")],
)
def test_plain_errors(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    where = ["--cache", str(next((small / "cache").glob("*.h5"))), "--runs", str(small / "runs")]
    assert run("report", *arguments, *where, "--out", str(tmp_path / "r")) in {1, 2}
    said = capsys.readouterr().err
    assert message in said
    assert "bug" not in said
    assert not (tmp_path / "r").exists()
