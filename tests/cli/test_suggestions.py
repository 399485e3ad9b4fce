"""Commands that messages suggest: each parses, and works as it is typed."""

from __future__ import annotations

import ast
import csv
import re
import shlex
from pathlib import Path

import pytest
import typer.main

import mmsent
from mmsent.cli import app, output
from mmsent.cli.main import main
from mmsent.cli.output import completed, suggesting
from tests.helpers.fake import fake_encoders
from tests.helpers.made import make_guid, make_manifest

SUGGESTED = re.compile(r"`(mmsent [a-z][^`]*)`")
OWN = ["--id-column", "name", "--image-column", "pic", "--text-column", "tweet", "--label-column", "mood"]
# What stands in the place of an expression in a suggestion, so that it can be parsed.
VALUES = {
    "absent": "--fusion concat",
    "wanted": "--fusion concat",
    "' or '.join(COMMITTEES)": "best",
}


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with mmsent.toml for quick heads; every encoder is a fake."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mmsent.features.extract.open_encoders", lambda _: fake_encoders())
    text = 'epochs = 1\nhidden = 8\ncommon-width = 8\n[extract]\nencoder = "offline"\n'
    (tmp_path / "mmsent.toml").write_text(text + "[sweep]\ntrials = 2\nworkers = 1\nchecks = 0\n")
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main(list(words))
    told = capsys.readouterr()
    return int(stopped.value.code or 0), told.out + told.err


def suggested(text: str) -> list[list[str]]:
    return [shlex.split(line)[1:] for line in SUGGESTED.findall(text)]


def mended(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What a command says that fails; then each command that it suggests is run, and then it works itself."""
    status, told = run(capsys, *words)
    assert status == 1, told
    assert suggested(told), told
    for again in suggested(told):
        status, said = run(capsys, *again)
        assert status == 0, (again, said)
    status, said = run(capsys, *words)
    assert status == 0, said
    return told


def own_columns(folder: Path) -> Path:
    """A manifest whose columns have names of their own."""
    manifest = make_manifest(folder / "posts")
    with manifest.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = {"id": "name", "image": "pic", "text": "tweet", "label": "mood"}
    with manifest.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [names.get(key, key) for key in rows[0]])
        writer.writeheader()
        writer.writerows({names.get(key, key): value for key, value in row.items()} for row in rows)
    return manifest


def test_every_suggestion_in_the_code_parses() -> None:
    program = typer.main.get_command(app.whole_program())
    found = 0
    for path in sorted(set(Path(mmsent.__file__).parent.rglob("*.py")) - {Path(str(output.__file__))}):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        documents = {ast.get_docstring(node, clean=False) for node in ast.walk(tree) if isinstance(node, DOCUMENTED)}
        parts = {id(value) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for value in node.values}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                text = "".join(_filled(value) for value in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
                text = "" if node.value in documents else node.value
            else:
                continue
            for words in suggested(text):
                found += 1
                assert words[0] in app.OVERVIEW, (path, text)
                command, rest = program.commands[words[0]], words[1:]  # type: ignore[attr-defined]
                if words[0] == "cache":
                    command, rest = command.commands[rest[0]], rest[1:]
                try:
                    command.make_context(words[0], rest, resilient_parsing="--help" in rest)
                except Exception as error:
                    raise AssertionError((path, text)) from error
    assert found > 40


DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef)


def _filled(value: ast.expr) -> str:
    if isinstance(value, ast.Constant):
        return str(value.value)
    assert isinstance(value, ast.FormattedValue)
    source = ast.unparse(value.value)
    return VALUES.get(source, "" if source in ("flag", "hint") else "10" if "folds" in source else "concat")


def test_what_the_command_was_told_is_repeated() -> None:
    told = {"data": "my posts/a.csv", "cache": "c", "runs": None, "epochs": 3, "id_column": "name"}
    suggesting(
        told, {"extract": {"data", "cache", "id_column"}, "fit": {"data", "cache", "runs", "epochs"}}.__getitem__
    )
    assert completed("run `mmsent fit --data b`, then") == "run `mmsent fit --data b --cache c`, then"
    assert completed("`mmsent extract`") == "`mmsent extract --data 'my posts/a.csv' --cache c --id-column name`"
    assert completed("mmsent extract") == "mmsent extract"
    told = {"columns": "id=name,text=my tweet", "remote": ["s3", "https"], "label_map": "0=bad"}
    suggesting(told, lambda _: {"columns", "remote"})
    assert completed("`mmsent extract`") == (
        "`mmsent extract --columns 'id=name,text=my tweet' --remote s3 --remote https`"
    )
    suggesting({}, lambda _: set())


def test_suggestions_work_as_typed(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = own_columns(work)
    where = ["--data", str(manifest), "--cache", "store"]
    assert run(capsys, "extract", *where, *OWN, "--views", "1", "--split", "train")[0] == 0
    (cache,) = (work / "store").glob("*.h5")
    heads = [*where, "--runs", "heads"]

    assert "train them with `mmsent fit --fusion concat" in mended(capsys, "vote", *heads)
    lines = manifest.read_text(encoding="utf-8").splitlines()
    lines[1] = lines[1].replace("positive", "neutral").replace("negative", "positive")
    manifest.write_text("\n".join(lines) + "\n", encoding="utf-8")
    told = mended(capsys, "fit", *heads)
    assert "`mmsent extract --split train --data" in told
    assert [path.name for path in (work / "store").iterdir() if path.suffix == ".h5"] == [cache.name]  # none beside it
    status, told = run(capsys, "fit", *heads, "--folds", "2", "--group", "none")
    assert status == 0, told
    assert suggested(told) == [["fit", *heads]]
    status, told = run(capsys, "sweep", *heads, "--fusion", "concat", "--val-size", "0.3")
    assert status == 0
    assert len(suggested(told)) >= 2
    for again in suggested(told):
        assert run(capsys, *again)[0] == 0, again


def test_without_a_cache(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--data", str(make_guid(work / "my posts")), "--cache", "store"]
    for command in (["vote", *where], ["evaluate", *where], ["fit", *where]):
        status, told = run(capsys, *command)
        assert (status, suggested(told)) == (1, [["extract", "--split", "train", *where]]), told
    mended(capsys, "fit", *where)


def test_with_two_caches(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_guid(work / "data")
    for views in ("0", "1"):
        assert run(capsys, "extract", "--views", views, "--split", "train", "--cache", "my store")[0] == 0
    status, told = run(capsys, "fit", "--cache", "my store")
    assert status == 1
    ways = [shlex.split(way) for way in told.partition("choose one with ")[2].split(" or ")]
    assert len(ways) == 2
    for way in ways:
        assert run(capsys, "fit", "--cache", "my store", *way)[0] == 0, way


def test_without_a_test_split(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = make_guid(work / "my posts")
    (data / "test_without_label.txt").unlink()
    where = ["--data", str(data)]
    assert run(capsys, "extract", *where, "--views", "0")[0] == 0
    assert run(capsys, "fit", *where)[0] == 0
    for k, command in enumerate((["vote", *where], ["extract", *where, "--split", "test"])):
        status, told = run(capsys, *command)
        (again,) = suggested(told)
        assert (status, again[0]) == (1, "prepare"), told
        assert run(capsys, *again, *["--overwrite"] * k)[0] == 0, told
    copy = ["--data", again[again.index("--out") + 1], "--cache", "copies"]
    assert run(capsys, "extract", *copy, "--views", "0")[0] == 0
    assert run(capsys, "fit", *copy)[0] == 0
    assert run(capsys, "vote", *copy)[0] == 0


def test_with_heads_missing(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--data", str(make_guid(work / "posts")), "--cache", "store", "--runs", "my heads"]
    assert run(capsys, "extract", *where[:4], "--views", "0")[0] == 0
    for command in (
        ["vote"],
        ["predict", "--text", "x"],
        ["evaluate"],
        ["report"],
        ["explain", "--guid", "1"],
        ["export"],
    ):
        status, told = run(capsys, *command, *where)
        assert status == 1, told
        (again,) = suggested(told)
        assert again[0] == "fit"
        assert again[-6:] == where
    assert run(capsys, "fit", "--fusion", "weighted", *where)[0] == 0
    status, told = run(capsys, "vote", *where)
    assert status == 0
    (again,) = suggested(told)
    assert again == ["fit", "--fusion", "concat", "--fusion", "attention", *where]
    assert run(capsys, *again)[0] == 0
    assert suggested(run(capsys, "vote", *where)[1]) == []


def test_with_an_extraction_that_was_interrupted(
    work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    where = ["--data", str(make_guid(work / "my posts")), "--cache", "store"]
    monkeypatch.setattr("mmsent.features.extract.open_encoders", lambda _: fake_encoders(fail_after=30))
    assert run(capsys, "extract", *where, "--views", "1", "--clean", "links", "--split", "train")[0] == 130
    monkeypatch.setattr("mmsent.features.extract.open_encoders", lambda _: fake_encoders())
    (journal,) = (work / "store").glob("*.journal")
    told = run(capsys, "cache", "ls", "--cache", "store")[1]
    assert suggested(told)[-1] == ["extract", "--data", "my posts", "--cache", "store"]
    for command in (["fit", "--cache", "store"], ["fit", *where]):  # with the data set named and not
        status, told = run(capsys, *command)
        (again,) = suggested(told)
        assert (status, again[:3]) == (1, ["extract", "--data", "my posts"]), told
    status, told = run(capsys, *again)
    assert status == 0
    assert f"{journal.stem} is continued: options that were not given" in told
    (cache,) = (work / "store").glob("*.h5")
    assert (cache.name, journal.exists()) == (journal.stem, False)
    assert "train: 40 rows, 24 encoded, 16 already there" in told
    assert run(capsys, "fit", *where)[0] == 0


def test_a_check_that_fit_suggests_reads_the_same_columns(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = own_columns(work)
    assert run(capsys, "extract", "--data", str(manifest), *OWN, "--views", "0", "--split", "train")[0] == 0
    from mmsent.cli.workspace import Workspace

    suggesting({}, lambda _: {"data", "id_column", "image_column", "text_column", "label_column", "labels"})
    assert Workspace(cache_at=next((work / "cache").glob("*.h5"))).cache
    (words,) = suggested(completed("run `mmsent check`"))
    assert words == ["check", "--data", str(manifest), *OWN]


def test_extract_without_options_means_those_of_the_cache(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_guid(work / "data", n_train=40, n_test=8)
    assert run(capsys, "extract", "--views", "1", "--clean", "links", "--split", "train")[0] == 0
    status, told = run(capsys, "extract")
    assert status == 0
    assert "is continued: options that were not given are those that it was made with" in told
    assert "train: 40 rows, 0 encoded" in told
    assert len(list((work / "cache").glob("*.h5"))) == 1
    status, told = run(capsys, "extract", "--views", "2", "--split", "train")  # another cache, with the usual options
    assert status == 0
    assert "is continued" not in told
    assert len(list((work / "cache").glob("*.h5"))) == 2
    assert "is continued" in run(capsys, "extract", "--views", "1", "--split", "train")[1]  # clean comes from the first
    assert mmsent.encode("data", splits=["train"], views=1, encoder="offline").cache.settings.clean == ("links",)
