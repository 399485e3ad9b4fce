"""The report: every figure from a small run, the page and its safety, Markdown, and what is missing said plainly."""

from __future__ import annotations

import base64
import json
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from mmsent.config import Fusion, SplitSettings
from mmsent.data.dataset import load_dataset
from mmsent.errors import RunError
from mmsent.features.cache import Cache
from mmsent.report import content, figure_set, map_section, result_plates, training_plates
from mmsent.report.explanations import Explainer
from mmsent.report.findings import find
from mmsent.report.overview import overview
from mmsent.report.reproduce import commands
from mmsent.report.source import Source
from mmsent.report.study import Study, Unavailable, open_study, training_rows
from mmsent.training.runs import Run, list_runs, open_run
from mmsent.training.sides import split_rows
from tests.helpers.small import run

README = 830  # pixels that a README is wide
LEGIBLE = 10  # pixels of the smallest letters there


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


def embedded(page: str, name: str) -> dict[str, Any]:
    """What a page holds for its script."""
    found: dict[str, Any] = json.loads(page.partition(f'id="{name}">')[2].partition("</script>")[0])
    return found


def test_every_figure_is_made_and_shows_something(page: Path) -> None:
    folder = page.parent / "figures"
    for number, (name, _, _) in enumerate(figure_set.FIGURES, 1):
        with Image.open(folder / f"{number:02d}-{name}.png") as image:
            assert image.info["dpi"][0] == pytest.approx(200, abs=1), name
            pixels = np.asarray(image.convert("L"), np.float64)
        assert min(pixels.shape) > 300, name
        assert (pixels < 128).mean() > 0.002, f"{name} is blank"
        assert pixels.std(axis=0).max() > 10, name
        svg = (folder / f"{number:02d}-{name}.svg").read_text(encoding="utf-8")
        assert svg.count("<path") + svg.count("<image") > 5, name
    assert len(list(folder.iterdir())) == 2 * len(figure_set.FIGURES)


def test_every_axis_is_named(page: Path, figures: list[tuple[str, Figure]]) -> None:
    assert len(figures) == len(figure_set.FIGURES)
    for name, figure in figures:
        plain = [ax for ax in figure.axes if ax.axison and ax.get_visible()]
        assert plain or name.startswith("01"), name  # the architecture has boxes, no axes
        for ax in plain:
            named = bool(ax.get_xlabel() or ax.get_ylabel() or ax.get_title())
            assert named, f"{name}: an axis without a name"
            bare_x = [t for t in ax.get_xticklabels() if t.get_visible() and t.get_text()]
            if bare_x and ax.xaxis.get_tick_params().get("labelbottom", True):
                assert ax.get_xlabel() or ax.get_label() == "<colorbar>", f"{name}: x axis without a name"


def test_letters_are_legible_at_the_width_of_a_readme(page: Path, figures: list[tuple[str, Figure]]) -> None:
    for name, figure in figures:
        shown = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]
        least = min(t.get_fontsize() for t in shown)
        assert least * README / 72 / figure.get_figwidth() >= LEGIBLE, name


def test_every_figure_has_a_title(page: Path, figures: list[tuple[str, Figure]]) -> None:
    for name, figure in figures:
        assert figure.get_suptitle() or (len(figure.axes) <= 2 and figure.axes[0].get_title()), name


def test_page_is_self_contained(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert len(text.encode()) < 10_000_000
    elements = Elements(text)
    for tag, attributes in elements.found:
        for name in ("src", "href", "srcset", "action"):
            value = attributes.get(name, "")
            assert value.startswith(("data:", "#")) or not value, f"{tag} loads {value[:60]}"
    assert "http-equiv" in text
    assert elements.text.count("Figure ") >= len(figure_set.FIGURES)


def test_hostile_posts_harm_neither_page_nor_files(page: Path, small: Path) -> None:
    text = page.read_text(encoding="utf-8")
    elements = Elements(text)
    scripts = [a.get("type") for tag, a in elements.found if tag == "script"]
    assert scripts == ["application/json", "application/json", "module"]
    assert all(not name.startswith("on") for _, attributes in elements.found for name in attributes)
    assert not any(tag in {"iframe", "object", "embed", "b onclick"} for tag, _ in elements.found)
    posts = embedded(text, "posts")["rows"]
    assert any('document.title="owned"' in post["text"] for post in posts)  # the script shows it as text
    assert any('<b onclick="alert(' in post["id"] for post in posts)
    written = [path.name for path in (small / "report").rglob("*")]
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.") for name in written), written


def test_the_map_is_frozen_into_the_page(page: Path, small: Path) -> None:
    text = page.read_text(encoding="utf-8")
    points = embedded(text, "points")["points"]
    dataset = load_dataset(small / "posts" / "posts.jsonl")
    train = [post.id for post in dataset.of("train")]
    assert points["ids"][: len(train)] == train
    assert points["texts"][1] == dataset.text_of(dataset.of("train")[1])
    assert [len(base64.b64decode(points[name])) for name in ("x", "label")] == [
        4 * len(points["ids"]),
        len(points["ids"]),
    ]
    assert (points["method"], points["heads"]) == ("PCA", 3)
    assert "Predictions are those of concat, weighted" in Elements(text).text


@pytest.mark.slow
def test_a_map_that_cannot_be_made_is_left_out_with_a_note(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise RunError("the cache's disk is gone")

    monkeypatch.setattr(figure_set, "FIGURES", figure_set.FIGURES[:1])
    where = ["--cache", str(small / "cache"), "--runs", str(small / "runs"), "--out", str(tmp_path)]
    for more, said in ((["--skip", "map"], "left out with --skip"), ([], "the cache's disk is gone")):
        monkeypatch.setattr("mmsent.report.map_section.landscape", broken)
        assert run("report", *where, "--data", str(small / "posts" / "posts.jsonl"), *more) == 0
        page = (tmp_path / "report.html").read_text(encoding="utf-8")
        assert f"The map is left out: {said}." in Elements(page).text
        assert 'id="points"' not in page


def test_of_many_posts_a_part_is_on_the_map(small: Path, mixed: list[Run], cache: Cache, monkeypatch: Any) -> None:
    study = open_study(mixed[:1], cache, load_dataset(small / "posts" / "posts.jsonl"))
    monkeypatch.setattr(map_section, "MOST", 7)
    monkeypatch.setattr(map_section, "TEXTS", 10)
    made, words = map_section.map_section(study)
    points = json.loads(made)["points"]
    assert (len(points["ids"]), len(base64.b64decode(points["x"])), "texts" in points) == (7, 28, False)
    assert set(points["ids"]) <= set(cache.index("train").ids) | set(cache.index("test").ids)
    assert "The map shows 7 of 102 posts, drawn at random." in words


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


def test_the_majority_class_is_above_the_heads(page: Path) -> None:
    text = Elements(page.read_text(encoding="utf-8")).text
    assert "majority class" in text
    assert text.index("majority class") < text.index("concat", text.index("Scores on validation rows"))


def test_test_labels_stay_closed(page: Path) -> None:
    text = Elements(page.read_text(encoding="utf-8")).text
    assert "(this report never reads their labels)" in text


def test_markdown(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figure_set, "FIGURES", figure_set.FIGURES[:4])
    out = tmp_path / "md"
    arguments = ["--data", str(small / "posts" / "posts.jsonl"), "--cache", str(small / "cache")]
    assert run("report", *arguments, "--runs", str(small / "runs"), "--out", str(out), "--format", "md") == 0
    text = (out / "report.md").read_text(encoding="utf-8")
    assert "<script>" not in text
    assert "&lt;script>" in text
    assert "![Architecture](figures/01-architecture.png)" in text
    for table in [block for block in text.split("\n\n") if block.startswith("|")]:
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_without_posts_the_page_says_so(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = [p for p in figure_set.FIGURES if p[0] in {"labels", "errors", "grad-cam"}]
    monkeypatch.setattr(figure_set, "FIGURES", tuple(kept))
    moved = shutil.move(small / "posts", small / "away")
    try:
        monkeypatch.chdir(tmp_path)
        arguments = ["--cache", str(small / "cache"), "--runs", str(small / "runs"), "--out", str(tmp_path / "r")]
        assert run("report", *arguments) == 0
    finally:
        shutil.move(moved, small / "posts")
    said = capsys.readouterr()
    assert "the posts cannot be found" in said.err
    page = (tmp_path / "r" / "report.html").read_text(encoding="utf-8")
    assert "The posts were not available, so they were not checked" in Elements(page).text
    posts = embedded(page, "posts")
    assert (posts["posts"], {row["picture"] for row in posts["rows"]}) == (False, {None})
    assert (tmp_path / "r" / "figures" / "02-errors.png").is_file()


def test_one_run_alone(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"metrics", "fusion-weights", "attention", "agreement", "fused-attention-alt", "text-length"}
    monkeypatch.setattr(figure_set, "FIGURES", tuple(p for p in figure_set.FIGURES if p[0] in names))
    image = next(path.name for path in (small / "runs").iterdir() if "-image-" in path.name)
    where = ["--cache", str(small / "cache"), "--runs", str(small / "runs"), "--out", str(tmp_path)]
    assert run("report", image, *where, "--data", str(small / "posts" / "posts.jsonl")) == 0
    text = Elements((tmp_path / "report.html").read_text(encoding="utf-8")).text
    for fusion in ("weighted", "attention_alt"):
        assert f"there is no {fusion} run among these; `mmsent fit --fusion {fusion}` makes one" in text
    assert "this figure needs two or more runs on the same validation rows" in text
    assert "Paired tests need two or more runs" in text


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


# --- studies of several seeds and splits, and of less than that


@pytest.fixture(scope="module")
def cache(small: Path) -> Cache:
    return Cache.open(next((small / "cache").glob("*.h5")))


@pytest.fixture(scope="module")
def mixed(small: Path, cache: Cache, tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Two seeds of concat and a text head on one split, and an image head on another; it scores best by far."""
    folder = tmp_path_factory.mktemp("mixed")
    where = ["--cache", str(cache.path), "--runs", str(folder), "--epochs", "2", "--no-group"]
    for more in (
        ["--fusion", "concat", "--fusion", "text", "--val-size", "0.34"],
        ["--fusion", "concat", "--seed", "1", "--val-size", "0.34"],
        ["--fusion", "image", "--val-size", "6", "--split-seed", "3"],
    ):
        assert run("fit", *where, *more) == 0
    return sorted(list_runs(folder), key=lambda r: (r.fusion.value, r.fit.seed))


def best_of_all(study: Study, fusion: Fusion) -> Study:
    """The study with another weighted F1 for one head: 1."""
    changed = [
        replace(e, scores={**e.scores, "f1_weighted": 1.0}) if e.fusion == fusion.value else e
        for e in study.evaluations
    ]
    return replace(study, evaluations=changed)


def test_heads_on_other_rows_are_not_ranked(mixed: list[Run], cache: Cache) -> None:
    study = best_of_all(open_study(mixed, cache, None), Fusion.image)
    assert [len(runs) for runs in study.splits] == [3, 1]
    assert study.runs[study.best].fusion is not Fusion.image
    assert study.main.fusion is Fusion.concat
    table, note = content.results(study)
    assert [row[1] for row in table.rows] == ["split", "", "A", "A", "B", "A"]
    assert table.rows[1][0] == "majority class"  # on the rows of both splits
    assert "scores of different splits cannot be compared" in note
    assert {e.name for e in find(study).entries} == {"concat", "concat (seed 1)", "text", "majority class"}
    _, caption = training_plates.metrics(Source(study, Explainer(study, None)))
    assert "scores of different splits cannot be compared" in caption
    tests, others, words = content.pairs(study)
    assert tests is not None
    assert len(tests.rows) == 3  # the best of split A against its two others
    assert others is not None
    assert len(others.rows) == 2
    assert "The first table holds the pairs with the best head" in words


def test_one_split_needs_no_letter(mixed: list[Run], cache: Cache) -> None:
    study = open_study([run for run in mixed if run.fusion is Fusion.concat], cache, None)
    table, note = content.results(study)
    assert "split" not in table.rows[0]
    assert "comparable" not in note
    assert "name the runs that these commands make" in commands(study)[1]


def test_a_score_has_one_interval(mixed: list[Run], cache: Cache) -> None:
    """The first screen and the table of results say the same of a head."""
    study = open_study([run for run in mixed if run.fusion is Fusion.concat], cache, None)
    first = [(line.value, line.interval) for line in overview(find(study))["lines"]]
    assert len(first) == 4  # two heads, their vote and the majority class
    assert set(first) <= {(row[3], row[4]) for row in content.results(study)[0].rows}


def test_seeds_are_drawn_apart(mixed: list[Run], cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    study = open_study([run for run in mixed if run.fusion is Fusion.concat], cache, None, "concat")
    source = Source(study, Explainer(study, None))
    for make in (training_plates.metrics, result_plates.text_length):
        figure, _ = make(source)
        legend = figure.legends[0] if figure.legends else figure.axes[0].get_legend()
        assert legend is not None
        shown = [t.get_text() for t in legend.get_texts()]
        assert {"concat", "concat (seed 1)"} <= set(shown)
    figure, caption = result_plates.agreement(source)
    assert "concat, concat (seed 1)" in figure.get_suptitle()
    assert "nan" not in caption
    _, caption = result_plates.text_length(source)
    assert "95% Wilson interval of concat's accuracy" in caption
    vote = study.vote()
    assert vote is not None
    here = study.evaluation(study.runs[0])
    opposed = replace(study.evaluation(study.runs[1]), predicted=(here.predicted + 1) % 3)
    apart = replace(study, evaluations=[here, opposed, *study.evaluations[2:]])
    _, caption = result_plates.agreement(Source(apart, Explainer(apart, None)))
    assert caption == "All 2 heads agree on 0.0% of the rows."


def test_one_head_makes_no_vote(mixed: list[Run], cache: Cache) -> None:
    table, note = content.vote(open_study(mixed[:1], cache, None))
    assert table is not None
    assert table.rows[0] == ["label", "concat"]
    assert "1 of 1" not in note
    assert sum(int(row[1].split()[0]) for row in table.rows[1:]) == 12


def test_no_error_and_no_rows_are_said(mixed: list[Run], cache: Cache) -> None:
    study = open_study(mixed[:1], cache, None)
    found, _ = study.evaluations
    flawless = replace(study, evaluations=[replace(found, predicted=found.truth)])
    assert content.gallery(flawless, 9) == (
        [],
        f"All {len(found.truth)} validation rows are labelled correctly.",
    )
    none = {**found.scores, "support": [0, *found.scores["support"][1:]]}
    bare = replace(study, evaluations=[replace(found, scores=none)])
    assert "Recall: negative no rows, neutral " in result_plates.confusion(Source(bare, Explainer(bare, None)))[1]


def test_training_rows_of_the_learning_curve(mixed: list[Run], cache: Cache) -> None:
    study = open_study(mixed, cache, None)
    for one in mixed:
        assert training_rows(study, one).tolist() == split_rows(study.features.index, one.split).train.tolist()


@pytest.mark.parametrize(("group", "wanted"), [(True, [2, 5]), (False, [1, 2, 5])])
def test_training_rows_after_the_cache_has_grown(group: bool, wanted: list[int]) -> None:
    index = SimpleNamespace(
        ids=list("abcdef"),
        good=np.array([True, True, True, False, True, True]),
        labels=np.array([0, 1, 2, 0, -1, 1]),
        contents=lambda: ([b"a", b"b", b"c", b"d", b"e", b"f"], [b"same", b"same", b"x", b"y", b"z", b"w"]),
    )
    given: Any = SimpleNamespace(
        features=SimpleNamespace(index=index), evaluation=lambda _: SimpleNamespace(positions=np.array([0]))
    )
    settings: Any = SimpleNamespace(split=SplitSettings(group=group))
    assert training_rows(given, settings).tolist() == wanted


# --- what goes wrong


def test_a_figure_that_cannot_be_made_leaves_the_others(mixed: list[Run], cache: Cache, tmp_path: Path) -> None:
    shutil.copytree(mixed[0].path, tmp_path / "run")
    (tmp_path / "run" / "history.json").unlink()
    study = open_study([open_run(tmp_path / "run")], cache, None)
    wanted = [p for p in figure_set.FIGURES if p[0] in {"loss", "confusion", "labels"}]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figure_set, "FIGURES", tuple(wanted))
        made = figure_set.draw_figures(study, Explainer(study, None), tmp_path / "out", skip={"labels"})
    found = {plate.name: plate.missing for plate in made}
    assert "history.json cannot be read" in found["loss"]
    assert found["labels"] == "left out with --skip"
    assert found["confusion"] == ""


def test_pictures_take_the_next_post(
    small: Path, mixed: list[Run], cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = open_study(mixed[:1], cache, load_dataset(small / "posts" / "posts.jsonl"))
    found, _ = study.evaluations
    study = replace(study, evaluations=[replace(found, predicted=found.truth)])  # every row of a class can be shown
    asked: list[str] = []

    def explain(fail: int) -> Any:
        def one(run: Run, encoders: Any, post: Any, **_: Any) -> Any:
            asked.append(post.id)
            if len(asked) <= fail:
                raise RunError(f"{post.id}: broken")
            return SimpleNamespace(picture=SimpleNamespace(maps=()), id=post.id)

        return one

    encoders: Any = object()
    monkeypatch.setattr("mmsent.report.figures.explanations.grad_cam_figure", lambda found, _: [e.id for e in found])
    monkeypatch.setattr("mmsent.inference.explain.explain", explain(2))
    drawn, _ = Explainer(study, encoders).pictures()
    assert len(asked) == len(set(asked)) == 5
    assert drawn == asked[2:]
    monkeypatch.setattr("mmsent.inference.explain.explain", explain(99))
    with pytest.raises(Unavailable, match="broken"):
        Explainer(study, encoders).pictures()


def test_figures_left_out_and_a_run_named_twice(
    small: Path, cache: Cache, mixed: list[Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = str(mixed[0].path)
    arguments = [one, one, "--cache", str(cache.path), "--out", str(tmp_path / "r"), "--format", "md"]
    names = [name for name, _, _ in figure_set.FIGURES]
    skipped = [part for name in names if name != "labels" for part in ("--skip", name)]
    capsys.readouterr()
    assert run("report", *arguments, "--data", str(small / "posts" / "posts.jsonl"), *skipped, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["runs"] == [one]
    assert list(said["figures"]) == ["labels"]
    assert set(said["left_out"].values()) == {"left out with --skip"}
    assert "left out with --skip" in (tmp_path / "r" / "report.md").read_text(encoding="utf-8")
    assert run("report", *arguments, "--skip", "grad-cams") == 2
    message = capsys.readouterr().err
    assert "--skip 'grad-cams': choose from architecture, first-layer" in message


def test_columns_stand_in_the_command_lines(mixed: list[Run], cache: Cache) -> None:
    study = open_study(mixed[:1], cache, None)
    posts = {**cache.provenance["data_settings"], "id_column": "guid", "text_column": "the text"}
    other = replace(cache, provenance={**cache.provenance, "data_settings": posts, "max_bad": 0.5})
    given: Any = SimpleNamespace(cache=other, labels=study.labels, runs=study.runs)
    line = commands(given)[0][0]
    assert "--id-column guid --text-column 'the text' --max-bad 0.5" in line
    assert "--image-column" not in line
