"""New posts: the same answer as from the cache, and what happens where a half is missing."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmsent.cli.main import main
from mmsent.config import (
    Clean,
    DataSettings,
    EncoderSettings,
    FitSettings,
    Fusion,
    SplitSettings,
    settings,
)
from mmsent.data.dataset import Dataset, load_dataset
from mmsent.encoders.base import Embeddings, Encoders
from mmsent.errors import DataError, RunError
from mmsent.features.cache import Cache
from mmsent.features.new_posts import NewPost
from mmsent.inference.predict import Prediction, encoder_settings, predict, predictions_table
from mmsent.inference.vote import vote_split
from mmsent.training.fit import fit
from mmsent.training.runs import Run
from tests.helpers.fake import FakeTextEncoder, fake_encoders
from tests.helpers.fake_cache import fake_cache
from tests.helpers.made import make_guid, make_manifest

QUICK: dict[str, Any] = {"epochs": 3, "lr": 1e-2, "hidden": 16, "common_width": 16, "heads": 4}
LABELS = ("negative", "neutral", "positive")


@dataclass(frozen=True)
class World:
    """A data set, its cache, and a run of each fusion by its name; `dropout` and `dropout2` take missing halves."""

    data: Dataset
    cache: Cache
    runs: dict[str, Run]

    def posts(self) -> list[NewPost]:
        """The test posts, their texts as they stand in the files."""
        found = []
        for post in self.data.of("test"):
            assert isinstance(post.text, Path)
            found.append(NewPost(post.id, post.text.read_text(encoding="utf-8"), post.image))
        return found

    def of(self, *names: str) -> list[Run]:
        return [self.runs[name] for name in names]


def make_world(
    folder: Path,
    *,
    normalize: bool = False,
    clean: tuple[Clean, ...] = (),
    seed: int = 0,
    labels: tuple[str, ...] = LABELS,
) -> World:
    root = make_guid(folder / "posts", n_train=40, n_test=10, size=40)
    for path in (root / "data").glob("*.txt"):
        path.write_text(f"  {path.read_text(encoding='utf-8')} #goodMood https://x.y/z \n", encoding="utf-8")
    data = load_dataset(root, DataSettings(clean=clean, labels=labels))
    cache = fake_cache(
        data,
        folder / "cache",
        views=2,
        encoder=EncoderSettings(encoder="offline", normalize=normalize),
        encoders=fake_encoders(seed),
    )
    wanted = [FitSettings(**QUICK, fusion=fusion) for fusion in Fusion]
    wanted += [FitSettings(**QUICK, fusion=f, modality_dropout=0.4) for f in (Fusion.concat, Fusion.weighted)]
    done = fit(cache, folder / "runs", wanted, SplitSettings())
    return World(data, cache, dict(zip([*(f.value for f in Fusion), "dropout", "dropout2"], done, strict=True)))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("predict"))


THREE = ("concat", "weighted", "attention")


# --- the same as from the cache


@pytest.mark.parametrize("changed", [False, True])
@pytest.mark.parametrize("soft", [False, True])
def test_new_posts_are_labelled_as_cached_ones(changed: bool, soft: bool, world: World, tmp_path: Path) -> None:
    if changed:
        world = make_world(tmp_path, normalize=True, clean=(Clean.links, Clean.hashtags))
    runs = world.of(*THREE)
    vote = vote_split(runs, world.cache, "test", soft=soft)
    text_encoder = FakeTextEncoder()
    found = predict(world.posts(), runs, soft=soft, encoders=Encoders(fake_encoders().image, text_encoder))
    assert text_encoder.batches == [[world.data.text_of(post) for post in world.data.of("test")]]
    assert [p.id for p in found] == vote.ids
    assert [p.label for p in found] == vote.predicted
    assert len({*vote.predicted}) > 1
    assert [p.agreeing for p in found] == vote.agreeing.tolist()
    given = np.array([[p.probabilities[label] for label in LABELS] for p in found])
    assert given == pytest.approx(vote.probabilities, abs=1e-6)
    for i, p in enumerate(found):
        assert list(p.heads.items()) == [
            (run.name, choices[i]) for run, choices in zip(runs, vote.choices, strict=True)
        ]
        assert p.problem == ""


def test_what_the_encoder_does_not_read_of_a_text_is_said(world: World) -> None:
    post = world.posts()[0]
    long = NewPost("long", "word " * 30, post.image)
    strange = NewPost("strange", "п о г о д а х о р о ш а я", post.image)
    found = predict([post, long, strange], world.of(*THREE), encoders=fake_encoders())
    assert [p.label is not None for p in found] == [True] * 3
    assert found[0].problem == ""
    assert found[1].problem == "the text encoder reads 12 of the text's 30 tokens, not its end"
    assert found[2].problem.endswith("its words fall apart into single letters")


def test_many_posts_in_parts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = predict(world.posts(), world.of(*THREE), encoders=fake_encoders())
    monkeypatch.setattr("mmsent.features.new_posts.BATCH", 3)
    parts = predict(world.posts(), world.of(*THREE), encoders=fake_encoders())
    assert [(p.id, p.label, p.heads) for p in parts] == [(p.id, p.label, p.heads) for p in whole]
    assert [list(p.probabilities.values()) for p in parts] == [
        pytest.approx(list(p.probabilities.values()), abs=1e-6) for p in whole
    ]


def test_ties_and_agreement(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"concat": [0.9, 0.0, 0.1], "weighted": [0.2, 0.0, 0.8]}
    monkeypatch.setattr(
        "mmsent.inference.predict.head_probabilities",
        lambda run, image, *_: np.tile(answers[run.fusion.value], (len(image), 1)),
    )
    post, runs = world.posts()[:1], world.of("concat", "weighted")

    def label(**more: Any) -> tuple[str | None, int]:
        (found,) = predict(post, runs, encoders=fake_encoders(), **more)
        assert found.probabilities == pytest.approx({"negative": 0.55, "neutral": 0.0, "positive": 0.45})
        return found.label, found.agreeing

    assert predict(post, runs, encoders=fake_encoders())[0].decision == "no majority: neutral by rule"
    assert predict(post, runs, encoders=fake_encoders(), soft=True)[0].decision == ""
    assert label() == ("neutral", 0)
    assert label(tie="positive") == ("positive", 1)
    assert label(tie="soft") == label(soft=True) == ("negative", 1)


# --- missing halves


def broken_picture(post: NewPost, folder: Path) -> NewPost:
    path = folder / "broken.jpg"
    path.write_bytes(b"no picture")
    return replace(post, image=path)


def no_picture(post: NewPost, _: Path) -> NewPost:
    return replace(post, image=None)


def no_text(post: NewPost, _: Path) -> NewPost:
    return replace(post, text=None)


def nul_in_text(post: NewPost, _: Path) -> NewPost:
    return replace(post, text="a\0b")


def half_a_pair(post: NewPost, _: Path) -> NewPost:
    return replace(post, text="a \ud83d")


CUTS = [
    (broken_picture, "not a picture in a supported format (JPEG, PNG, WEBP, GIF, BMP, TIFF, AVIF, HEIF)"),
    (no_picture, "no picture"),
    (no_text, "no text"),
]


@pytest.mark.parametrize(
    ("cut", "problem"),
    [
        *CUTS,
        (half_a_pair, "text holds half a surrogate pair, which is not a character"),
        (
            nul_in_text,
            "text holds NUL characters, which texts do not have; if it is UTF-16 without a byte order mark, "
            "pass --text-encoding utf-16-le or utf-16-be",
        ),
    ],
)
def test_a_missing_half_without_modality_dropout(
    cut: Callable[[NewPost, Path], NewPost], problem: str, world: World, tmp_path: Path
) -> None:
    whole = world.posts()[:3]
    posts = [whole[0], cut(whole[1], tmp_path), whole[2]]
    found = predict(posts, world.of(*THREE), encoders=fake_encoders())
    assert found[1].label is None
    assert found[1].problem.startswith(f"{problem}; these heads need both image and text")
    assert (found[1].probabilities, found[1].heads, found[1].agreeing) == ({}, {}, 0)
    untouched = predict(whole, world.of(*THREE), encoders=fake_encoders())
    for i in (0, 2):
        assert (found[i].label, found[i].heads, found[i].problem) == (untouched[i].label, untouched[i].heads, "")
        assert found[i].probabilities == pytest.approx(untouched[i].probabilities, abs=1e-6)


@pytest.mark.parametrize(
    ("half", "cut"),
    [("image", no_picture), ("image", broken_picture), ("text", no_text)],
)
def test_a_head_of_one_half_says_which_it_reads(
    half: str, cut: Callable[[NewPost, Path], NewPost], world: World, tmp_path: Path
) -> None:
    """No modality dropout would help it."""
    (found,) = predict([cut(world.posts()[0], tmp_path)], world.of(half), encoders=fake_encoders())
    assert found.label is None
    assert found.problem.endswith(f"; these heads read only the {half}")


@pytest.mark.parametrize(("cut", "problem"), CUTS)
def test_a_missing_half_with_modality_dropout(
    cut: Callable[[NewPost, Path], NewPost], problem: str, world: World, tmp_path: Path
) -> None:
    post = cut(world.posts()[0], tmp_path)
    runs = world.of("dropout", "dropout2", "concat")
    (found,) = predict([post], runs, encoders=fake_encoders())
    assert found.problem == problem
    assert list(found.heads) == [runs[0].name, runs[1].name]  # the plain head has no say
    features = world.cache.load("test")
    shares = []
    for run in runs[:2]:
        head = run.head()
        image = torch.from_numpy(features.image[:1, 0]) if problem == "no text" else head.image_mean[None]
        text = head.text_mean[None] if problem == "no text" else torch.from_numpy(features.text[:1])
        with torch.no_grad():
            shares.append((head(image, text) / run.temperature).softmax(dim=1)[0].double())
    wanted = torch.stack(shares).mean(dim=0).tolist()
    assert list(found.probabilities.values()) == pytest.approx(wanted, abs=1e-6)
    assert found.heads[runs[0].name] == LABELS[int(shares[0].argmax())]


def test_nothing_at_all_is_not_labelled(world: World) -> None:
    (found,) = predict([NewPost("x", None, None)], world.of("dropout"), encoders=fake_encoders())
    assert found.label is None
    assert found.problem.startswith("no picture; no text; ")


def test_heads_of_one_half_take_what_they_need(world: World) -> None:
    post = world.posts()[0]
    text, image = replace(post, image=None), replace(post, text=None)
    cached = vote_split(world.of("text"), world.cache, "test").probabilities[0].tolist()
    found = predict([text, image], world.of("text"), encoders=fake_encoders())
    assert list(found[0].probabilities.values()) == pytest.approx(cached, abs=1e-6)
    assert found[1].label is None
    found = predict([text, image], world.of("image"), encoders=fake_encoders())
    assert [p.label is None for p in found] == [True, False]


def test_an_empty_text_is_a_text(world: World) -> None:
    (found,) = predict([replace(world.posts()[0], text="  ")], world.of(*THREE), encoders=fake_encoders())
    assert found.label is not None


def test_embeddings_that_are_not_finite_count_as_missing(world: World) -> None:
    class Broken(FakeTextEncoder):
        def encode(self, texts: list[str]) -> Embeddings:
            out = super().encode(texts)
            out[1] = np.nan
            return out

    encoders = Encoders(fake_encoders().image, Broken())
    found = predict(world.posts()[:3], world.of("concat"), encoders=encoders)
    assert [p.label is None for p in found] == [False, True, False]
    assert found[1].problem.startswith("the encoder gave values that are not finite")


# --- runs that do not fit


def test_runs_of_other_features_are_refused(world: World, tmp_path: Path) -> None:
    other = make_world(tmp_path / "a", seed=1)
    both = [world.runs["concat"], other.runs["image"]]
    with pytest.raises(RunError, match="was trained on features of offline"):
        predict(world.posts(), both, encoders=fake_encoders())
    with pytest.raises(RunError, match="but this machine's encoder holds grid"):
        predict(world.posts(), world.of("concat"), encoders=fake_encoders(seed=1))
    backwards = make_world(tmp_path / "b", labels=LABELS[::-1])
    with pytest.raises(RunError, match="have different labels"):
        predict(world.posts(), [world.runs["concat"], backwards.runs["image"]], encoders=fake_encoders())


def test_encoder_settings_of_the_runs(world: World, tmp_path: Path) -> None:
    run = world.runs["concat"]
    stored = EncoderSettings(
        encoder="x", weights=str(tmp_path / "w.pt"), device="mps", precision="bf16", normalize=True
    )
    cache = {**run.info["cache"], "encoder_settings": stored.model_dump(mode="json")}
    run = replace(run, info={**run.info, "cache": cache})
    with pytest.raises(RunError, match=r"no longer at .*w\.pt; name them with --weights FILE"):
        predict(world.posts(), [run])
    assert encoder_settings([run], weights="v.pt", device="cuda") == stored.model_copy(
        update={"weights": "v.pt", "device": "cuda"}
    )
    (tmp_path / "w.pt").write_bytes(b"")
    # the device is this machine's own
    assert encoder_settings([run], weights=None, device=None) == stored.model_copy(update={"device": "auto"})


# --- the command


def test_the_command_says_whether_probabilities_are_calibrated(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmsent.inference.predict.open_encoders", lambda settings: fake_encoders())
    run = world.runs["concat"]
    old = tmp_path / "old"
    shutil.copytree(run.path, old)
    info = {k: v for k, v in run.info.items() if k != "temperature"}
    (old / "run.json").write_text(json.dumps(info), encoding="utf-8")
    picture = world.posts()[0].image
    (tmp_path / "new.csv").write_text(f"id,text,image\n1,a day,{picture}\n", encoding="utf-8")

    def say(path: Path, *more: str) -> tuple[str, str]:
        with pytest.raises(SystemExit) as stop:
            main(["predict", str(path), *more])
        assert stop.value.code in (None, 0)
        shown = capsys.readouterr()
        return shown.out, shown.err

    one = ("--text", "a day", "--image", str(picture))
    assert say(run.path, *one)[0].endswith("calibrated by temperature scaling on the validation rows\n")
    assert say(old, *one)[0].endswith("probabilities are not calibrated; a new `mmsent fit` calibrates them\n")
    assert json.loads(say(run.path, *one, "--json")[0])[0]["calibrated"] is True
    assert json.loads(say(old, *one, "--json")[0])[0]["calibrated"] is False
    table, note = say(run.path, "--manifest", str(tmp_path / "new.csv"))
    assert len(table.splitlines()) == 2  # the remark is no part of the CSV
    assert "calibrated by temperature scaling" in note
    assert (
        "calibrated by" in say(run.path, "--manifest", str(tmp_path / "new.csv"), "--out", str(tmp_path / "o.csv"))[0]
    )


@pytest.fixture
def say(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """`mmsent predict` with some runs, copied so that a log beside them is their own: status, output, notes."""
    monkeypatch.setattr("mmsent.inference.predict.open_encoders", lambda settings: fake_encoders())

    def say(names: tuple[str, ...], *more: str) -> tuple[int, str, str]:
        for name in names:
            if not (tmp_path / "runs" / name).exists():
                shutil.copytree(world.runs[name].path, tmp_path / "runs" / name)
        with pytest.raises(SystemExit) as stop:
            main(["predict", *(str(tmp_path / "runs" / name) for name in names), *more])
        shown = capsys.readouterr()
        return int(stop.value.code or 0), shown.out, shown.err

    return say


def put(path: Path, *rows: str) -> str:
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return str(path)


def test_every_row_of_a_manifest_is_in_the_table(
    world: World, say: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    picture = world.posts()[0].image
    rows = (
        "id,image,text,split",
        "a,http://127.0.0.1:9/x.png,good day,",
        f"b,{picture},good day,fold2",
        "c,https://example.org/y.png,nice,test",
        f"d,{picture},bad,",
        "e,nowhere.png,bad,",
    )
    out = tmp_path / "p.csv"
    status, said, notes = say(("concat", "text"), "--manifest", put(tmp_path / "m.csv", *rows), "--out", str(out))
    assert (status, said.splitlines()[0]) == (0, f"wrote {out} (5 posts, 5 of them labelled)")
    found = {row["id"]: row for row in csv.DictReader(io.StringIO(out.read_text()))}
    assert list(found) == list("abcde")
    assert found["c"]["problem"] == (
        "picture 'https://example.org/y.png' is at a URL; --remote https allows fetching it"
    )
    assert found["e"]["problem"].startswith("no file ")
    assert found["b"]["problem"] == found["d"]["problem"] == ""
    _, _, notes = say(("concat",), "--manifest", put(tmp_path / "m.csv", *rows), "--out", str(out))
    assert "a: no label: picture 'http://127.0.0.1:9/x.png' is at a URL" in notes
    assert [row["predicted"] for row in csv.DictReader(io.StringIO(out.read_text()))][::2] == ["", "", ""]


def test_labels_in_a_manifest_score_the_answers(
    world: World, say: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    picture = world.posts()[0].image
    rows = ["id,image,text,label", f"a,{picture},x,negative", f"b,{picture},y,", f"c,{picture},z,joy"]
    path, log = put(tmp_path / "m.csv", *rows), tmp_path / "runs" / "test-openings.jsonl"
    _, said, notes = say(("concat",), "--manifest", path)
    table = list(csv.DictReader(io.StringIO(said)))
    assert [row["label"] for row in table] == ["negative", "", "joy"]
    hit = float(table[0]["predicted"] == "negative")
    assert (
        "scored by the manifest's labels on 1 of 3 posts, 1 whose label the heads do not know left out: "
        f"accuracy {hit:.3f}, F1 weighted {hit:.3f}" in notes
    )
    assert not log.exists()
    assert [p["given"] for p in json.loads(say(("concat",), "--manifest", path, "--json")[1])] == [
        "negative",
        None,
        "joy",
    ]
    path = put(tmp_path / "t.csv", "id,image,text,label,split", *(f"{row},test" for row in rows[1:3]))
    _, said, notes = say(("concat",), "--manifest", path, "--out", str(tmp_path / "o.csv"))
    assert f"test labels opened; noted in {log}" in notes
    assert "scored by the manifest's labels on 1 of 2 posts: accuracy" in said
    opened, scores = map(json.loads, log.read_text().splitlines())
    assert (opened["rows"], opened["data"], opened["data_name"]) == (1, path, "posts")
    assert scores == {"opening": opened["opening"], "scores": {"predict": {"accuracy": hit, "f1_weighted": hit}}}


def test_a_manifest_without_labels_has_no_column_for_them(
    world: World, say: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    path = put(tmp_path / "m.csv", "id,image,text,label", f"a,{world.posts()[0].image},x,")
    _, said, notes = say(("concat",), "--manifest", path, "--out", "-")
    assert said.startswith("id,predicted,confidence,")
    assert "scored" not in notes


def test_what_is_odd_about_a_manifest_is_told(
    world: World, say: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    picture = world.posts()[0].image
    rows = (f'a\t{picture}\t"x', f"b\t{picture}\ty", f'c\t{picture}\tz"')
    path = put(tmp_path / "m.tsv", "ID\timage\tText", *rows)
    _, said, notes = say(("concat",), "--manifest", path)
    assert len(said.splitlines()) == 4
    assert "a quote in lines 2 to 4 does not enclose a cell" in notes
    assert "column 'Text' is read as 'text'" in notes


def test_predict_writes_over_no_file_of_a_data_set(say: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    root = make_guid(tmp_path / "posts", 4, 2, size=8)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    for target in ("train.txt", "test_without_label.txt", "data/1.txt", "data/new.txt"):
        status, _, error = say(("concat",), "--manifest", str(root), "--out", str(root / target))
        assert (status, "a file of the data set" in error) == (2, True)
    manifest = put(tmp_path / "m.csv", "id,image,text", "a,posts/data/1.jpg,x")
    for target in ("m.csv", "posts/data/1.jpg"):
        status, _, error = say(("concat",), "--manifest", manifest, "--out", str(tmp_path / target))
        assert (status, "a file of the data set" in error) == (2, True)
    # of another data set than the manifest's
    status, _, error = say(("concat",), "--text", "x", "--out", str(root / "train.txt"))
    assert (status, "a file of the data set" in error) == (2, True)
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_an_image_without_its_last_bytes_is_used_and_told(world: World, tmp_path: Path) -> None:
    (post, *_) = world.posts()
    assert isinstance(post.image, Path)
    cut = replace(post, image=post.image.read_bytes()[:-2])
    whole, mended = predict([post, cut], world.of("concat"), encoders=fake_encoders())
    assert (mended.label, mended.probabilities) == (whole.label, whole.probabilities)
    assert (whole.problem, mended.problem) == ("", "the image's file lacks its end, but no pixel; it is used")


# --- the table


def test_a_table_of_a_manifest_can_be_reviewed(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Texts, images and heads are there, and the posts can be labelled."""
    from mmsent.cli.serve import _review

    monkeypatch.setattr("mmsent.inference.predict.open_encoders", lambda settings: fake_encoders())
    manifest = make_manifest(tmp_path / "new", n_train=0, n_test=4)
    names = [str(run.path) for run in world.of("concat", "weighted")]
    out = tmp_path / "tables" / "out.csv"
    with pytest.raises(SystemExit) as stop:
        main(["predict", *names, "--manifest", str(manifest), "--out", str(out)])
    assert not stop.value.code
    assert {row["manifest"] for row in csv.DictReader(out.open(encoding="utf-8"))} == {"../new/posts.csv"}
    (tmp_path / "there").mkdir()
    for name in ("new", "tables"):  # the two may move together
        shutil.move(tmp_path / name, tmp_path / "there" / name)
    table = tmp_path / "there" / "tables" / "out.csv"
    opened = _review(world.of("concat", "weighted"), table, None, DataSettings(), None, tie=None, soft=False)
    assert opened is not None
    review = opened()
    rows = review.page()["rows"]
    assert all(review.texts(range(4)))
    assert [row["id"] for row in rows] == [f"post {i}" for i in range(1, 5)]
    assert all(row["picture"] and row["correctable"] and len(row["heads"]) == 2 for row in rows)
    assert review.picture(0)[0][8:12] == b"WEBP"
    _, _, corrected = review.corrected({"post 2": "neutral"})
    assert b"neutral" in corrected
    assert "shows no posts" not in capsys.readouterr().err


def test_a_table_of_a_manifest_with_columns_of_ones_own_can_be_reviewed(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table remembers them; what serve is told of an older table stands above it."""
    from mmsent.cli.serve import _review

    monkeypatch.setattr("mmsent.inference.predict.open_encoders", lambda settings: fake_encoders())
    manifest, runs = make_manifest(tmp_path / "new", n_train=0, n_test=4), world.of("concat", "weighted")
    text = manifest.read_text(encoding="utf-8").replace("id,image,text,label", "Name,pic,tweet,mood", 1)
    manifest.write_text(text, encoding="utf-8")
    own = "id=name,image=pic,text=tweet,label=mood"
    out = tmp_path / "out.csv"
    with pytest.raises(SystemExit) as stop:
        main(["predict", *(str(run.path) for run in runs), "--manifest", str(manifest), "--out", str(out)])
    assert "--columns" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main(["predict", *(str(run.path) for run in runs), "--manifest", str(manifest), "--out", str(out),
              "--columns", own, "--remote", "https"])  # fmt: skip
    assert not stop.value.code
    first = next(csv.DictReader(out.open(encoding="utf-8")))
    assert first["read_with"].startswith('{"id_column":"name"')
    assert "https" not in first["read_with"]  # what may be fetched is for those who serve to say

    def shown(how: DataSettings) -> list[dict[str, Any]]:
        opened = _review(runs, out, None, how, None, tie=None, soft=False)
        assert opened is not None
        review = opened()
        assert review.dataset is None or review.corrected({"post 2": "neutral"})[2].count(b"neutral") == 1
        return [row | {"text": text} for row, text in zip(review.page()["rows"], review.texts(range(4)), strict=True)]

    rows = shown(DataSettings())
    assert all(row["text"] and row["picture"] and row["correctable"] and len(row["heads"]) == 2 for row in rows)
    out.write_text(out.read_text(encoding="utf-8").replace("read_with", "problem2"), encoding="utf-8")
    assert not any(row["text"] for row in shown(DataSettings()))
    assert "shows no posts" in capsys.readouterr().err
    assert shown(settings(DataSettings, columns=own)) == rows
    out.write_text(out.read_text(encoding="utf-8").replace("problem2", "read_with").replace('{""id', '{{""id'))
    with pytest.raises(DataError, match="how its manifest was read cannot be read"):
        _review(runs, out, None, DataSettings(), None, tie=None, soft=False)


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_the_status_is_1_where_no_post_got_a_label(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]
) -> None:
    monkeypatch.setattr("mmsent.inference.predict.open_encoders", lambda settings: fake_encoders())
    run = str(world.runs["concat"].path)

    def status(*arguments: str) -> Any:
        with pytest.raises(SystemExit) as stop:
            main(["predict", run, *arguments, *more])
        return stop.value.code or 0

    picture = world.posts()[0].image
    (tmp_path / "none.csv").write_text("id,text\n1,a\n2,b\n")
    (tmp_path / "some.csv").write_text(f"id,text,image\n1,a,\n2,b,{picture}\n")
    assert status("--text", "a") == 1
    assert status("--text", "a", "--image", str(picture)) == 0
    assert status("--manifest", str(tmp_path / "none.csv")) == 1
    assert status("--manifest", str(tmp_path / "none.csv"), "--out", str(tmp_path / "out.csv")) == 1
    assert (tmp_path / "out.csv").is_file()  # it says why
    assert status("--manifest", str(tmp_path / "some.csv")) == 0


def test_predictions_table(world: World) -> None:
    posts = [world.posts()[0], NewPost("none", None, None), replace(world.posts()[1], text=None)]
    found = predict(posts, world.of("dropout"), encoders=fake_encoders())
    rows = list(csv.DictReader(io.StringIO(predictions_table(found, LABELS))))
    assert [r["id"] for r in rows] == ["41", "none", "42"]
    assert [rows[1][k] for k in ("predicted", "confidence", "p_neutral", "agreeing")] == ["", "", "", "0"]
    assert "no picture; no text" in rows[1]["problem"]
    for row, p in zip((rows[0], rows[2]), (found[0], found[2]), strict=True):
        assert row["predicted"] == p.label
        assert {label: float(row[f"p_{label}"]) for label in LABELS} == pytest.approx(p.probabilities, abs=1e-6)
        assert (row["agreeing"], row["problem"], row["decision"]) == ("1", p.problem, p.decision)


def test_a_head_has_one_vote(world: World) -> None:
    with pytest.raises(RunError, match="two of the runs are called"):
        predict(world.posts(), [world.runs["concat"]] * 2, encoders=fake_encoders())
    with pytest.raises(RunError, match="no runs to vote"):
        predict(world.posts(), [], encoders=fake_encoders())


def test_a_post_without_a_label_has_all_fields() -> None:
    """What the server and --json send is made of vars: every field is there."""
    assert vars(Prediction("1", None, {}, {}, 0, "no text"))["decision"] == ""
    assert vars(Prediction("1", "a", {"a": 0.6, "b": 0.4}, {"x": "a"}, 1))["decision"] == ""
