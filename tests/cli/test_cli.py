"""The command line in-process: main(arguments) with the offline encoders replaced by fakes."""

from __future__ import annotations

import fcntl
import json
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from mmsent.cli import app as cli
from mmsent.cli.expanding import long_options
from mmsent.cli.main import main
from mmsent.cli.toml import toml_defaults
from mmsent.config import Fusion
from tests.helpers.fake import fake_encoders
from tests.helpers.made import make_guid, make_manifest


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a data set in data/; every encoder is a fake, chosen as `offline` in mmsent.toml."""
    make_guid(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    for module in ("features.extract", "inference.predict", "encoders.factory"):
        monkeypatch.setattr(f"mmsent.{module}.open_encoders", lambda settings: fake_encoders())
    (tmp_path / "mmsent.toml").write_text('[extract]\nencoder = "offline"\n[check]\nencoder = "offline"\n')
    return tmp_path


def run(*arguments: str) -> int:
    """Run one command; the exit status."""
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    code = stop.value.code
    return code if isinstance(code, int) else 0 if code is None else 1


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Run a command that must fail: its status and its message, which holds no traceback and at most three lines."""
    status = run(*arguments)
    error = capsys.readouterr().err
    assert status != 0
    assert "Traceback" not in error
    return status, " ".join(error.split())


def three(*fusions: str) -> None:
    """Extract both splits and fit."""
    assert run("extract") == 0
    assert run("fit", *[part for fusion in fusions for part in ("--fusion", fusion)], "--val-size", "10") == 0


def test_the_three_commands_run_bare(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("extract", "--split", "train") == 0
    assert "40 rows, 40 encoded" in capsys.readouterr().out
    assert run("fit", "--fusion", "weighted", "--val-size", "10") == 0
    assert "weighted" in capsys.readouterr().out
    assert run("vote") == 0  # the test split is not in the cache yet: vote encodes it
    shown = capsys.readouterr()
    assert "encoding 10 posts" in shown.err
    assert "--fusion concat --fusion attention" in shown.err
    lines = (work / "predictions.txt").read_text().splitlines()
    listed = (work / "data" / "test_without_label.txt").read_text().splitlines()
    assert lines[0] == listed[0] == "guid,tag"
    assert [line.split(",")[0] for line in lines] == [line.split(",")[0] for line in listed]
    assert {line.split(",")[1] for line in lines[1:]} <= {"negative", "neutral", "positive"}
    assert (work / "predictions.csv").read_text().startswith("id,predicted,confidence,p_negative")


def test_extract_again_encodes_nothing(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("extract", "--json")
    first = json.loads(capsys.readouterr().out)
    assert first["encoded"] == {"train": 40, "test": 10}
    run("extract", "--json")
    again = json.loads(capsys.readouterr().out)
    assert again["encoded"] == {"train": 0, "test": 0}
    assert again["fingerprint"] == first["fingerprint"]


def test_fit_all_compares_six_heads_and_the_vote(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("extract")
    capsys.readouterr()
    assert run("fit", "--fusion", "all", "--val-size", "10", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [e["fusion"] for e in found["validation"]] == [*Fusion, "vote", "soft vote"]
    assert len(found["runs"]) == 6
    assert all(e["scores"]["n"] == 10 for e in found["validation"])


def test_vote_of_three_counts_agreement(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    three("concat", "weighted", "attention")
    capsys.readouterr()
    assert run("vote", "--json", "--out", "out/labels.txt") == 0
    found = json.loads(capsys.readouterr().out)
    assert sum(found["agreement"].values()) == found["rows"] == 10
    assert [Path(p).name.split("-")[2] for p in found["runs"]] == ["concat", "weighted", "attention"]
    assert sum(found["predicted"].values()) == 10
    assert (work / "out" / "labels.txt").is_file()


def test_vote_takes_named_runs_and_soft(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    three("concat", "image")
    name = next(p.name for p in (work / "runs").iterdir() if "image" in p.name)
    capsys.readouterr()
    assert run("vote", name, "--soft", "--json") == 0
    assert [Path(p).name for p in json.loads(capsys.readouterr().out)["runs"]] == [name]


def test_evaluate_shows_the_stored_scores(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    three("concat", "weighted")
    capsys.readouterr()
    assert run("evaluate", "--json") == 0
    found = json.loads(capsys.readouterr().out)["evaluations"]
    for evaluation in found[:2]:
        stored = json.loads((work / "runs" / evaluation["name"] / "run.json").read_text())
        assert stored["metrics"].items() <= evaluation["scores"].items()


def test_evaluate_test_needs_labels(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    three("concat")
    capsys.readouterr()
    status, message = fails(capsys, "evaluate", "--split", "test")
    assert status == 1
    assert "no labels" in message


def test_evaluate_test_with_labels(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    three("concat")
    listed = work / "data" / "test_without_label.txt"
    listed.write_text(listed.read_text().replace("null", "positive"))
    capsys.readouterr()
    assert run("evaluate", "--split", "test", "--json") == 0
    scores = json.loads(capsys.readouterr().out)["evaluations"][0]["scores"]
    assert scores["support"] == [0, 0, 10]


def test_predict_one_and_many(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    three("concat", "weighted", "attention")
    capsys.readouterr()
    picture = next((work / "data" / "data").glob("*.[jp][pn]g"))
    assert run("predict", "--text", "what a day", "--image", str(picture)) == 0
    assert capsys.readouterr().out.split()[0] in {"negative", "neutral", "positive"}
    manifest = make_manifest(work / "new", "csv")
    assert run("predict", "--manifest", str(manifest), "--out", "new.csv") == 0
    assert len((work / "new.csv").read_text().splitlines()) > 10
    status, message = fails(capsys, "predict", "--text", "only a text")
    assert status == 1
    assert "--modality-dropout" in message


def test_predict_half_a_post_with_modality_dropout(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("extract")
    run("fit", "--modality-dropout", "0.3", "--val-size", "10")
    capsys.readouterr()
    assert run("predict", "--text", "only a text", "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["label"] in {"negative", "neutral", "positive"}


def test_cache_commands(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("extract")
    capsys.readouterr()
    assert run("cache", "ls", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed[0]["rows"] == {"train": 40, "test": 10}
    assert run("cache", "info", "--json") == 0
    assert json.loads(capsys.readouterr().out)["splits"]["train"]["rows"] == 40
    assert run("cache", "verify", "--json") == 0
    verified = json.loads(capsys.readouterr().out)
    assert (verified["rows"], verified["sampled"], verified["identical"]) == (50, 16, 16)
    assert run("cache", "explain", "--encoder", "offline", "--views", "2", "--json") == 0
    explained = json.loads(capsys.readouterr().out)
    assert explained[0]["differences"] == ["views.count: 4 -> 2"]
    assert run("cache", "export", "--out", "train.npz") == 0
    assert (work / "train.npz").is_file()


def test_a_locked_cache_is_whole(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("extract")
    (path,) = (work / "cache").glob("*.h5")
    for command in (("cache", "ls"), ("cache", "verify"), ("cache", "repair"), ("fit",), ("vote",)):
        with path.open("rb") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            capsys.readouterr()
            assert run(*command) == 1
        shown = "".join(capsys.readouterr())
        assert "is in use by another process" in shown
        assert not re.search("damaged|remove|no caches", shown)


def test_a_neighbour_that_cannot_be_opened_stops_nothing(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("extract")
    (path,) = (work / "cache").glob("*.h5")
    neighbour = path.with_name("other.offline.0.h5")
    shutil.copy(path, neighbour)
    with neighbour.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        capsys.readouterr()
        for command in (("fit", "--val-size", "10"), ("vote",), ("cache", "verify"), ("cache", "ls", "--json")):
            assert run(*command) == 0
        assert "other.offline.0.h5 cannot be opened: cache/other.offline.0.h5 is in use" in capsys.readouterr().err
        assert run("cache", "ls") == 0
        shown = capsys.readouterr()
        assert path.name in shown.out
        assert "other.offline.0.h5 cannot be opened" in shown.err


def test_a_cache_of_the_same_posts_that_cannot_be_opened_is_named(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("extract")
    (path,) = (work / "cache").glob("*.h5")
    twin = path.with_name("data.offline.0.h5")
    shutil.copy(path, twin)
    with twin.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert run("cache", "info") == 0
    assert "left out: cache/data.offline.0.h5 is in use by another process" in capsys.readouterr().err


def test_labels_changed_after_extraction_are_noticed(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("extract")
    listed = work / "data" / "train.txt"
    first = listed.read_text().splitlines()[1]
    guid, tag = first.split(",")
    listed.write_text(listed.read_text().replace(first, f"{guid},{'neutral' if tag != 'neutral' else 'positive'}"))
    capsys.readouterr()
    _, message = fails(capsys, "fit")
    assert "differs" in message
    assert "mmsent extract --split train" in message
    assert run("extract", "--split", "train", "--json") == 0
    assert json.loads(capsys.readouterr().out)["encoded"] == {"train": 0}
    assert run("fit", "--val-size", "10") == 0


@pytest.mark.parametrize("commands", [("fit",), ("fit", "--folds", "3"), ("fit", "--recipe", "best"), ("audit",)])
def test_a_cache_of_test_posts_alone_trains_nothing(
    work: Path, capsys: pytest.CaptureFixture[str], commands: tuple[str, ...]
) -> None:
    run("extract", "--split", "test")
    status, message = fails(capsys, *commands)
    assert status == 1
    assert "holds no train rows (it has test); run `mmsent extract --split train`" in message


def test_posts_edited_after_extraction_are_noticed(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    three("concat")
    listed = (work / "data" / "test_without_label.txt").read_text().splitlines()
    for guid in (line.split(",")[0] for line in listed[1:3]):
        (work / "data" / "data" / f"{guid}.txt").write_text("quite another text")
    _, message = fails(capsys, "vote")
    assert f"2 test posts of data have changed since they were encoded ({listed[1].split(',')[0]}, " in message
    assert "run `mmsent extract --split test --data data --encoder offline`" in message
    assert run("fit", "--val-size", "10") == 0  # the training posts are what they were
    assert run("extract", "--split", "test", "--json") == 0
    assert run("vote") == 0


def test_a_cache_of_another_data_set_is_refused(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also where its ids and labels are the same, and its file was renamed."""
    shutil.copytree(work / "data", work / "other")
    for text in (work / "other" / "data").glob("*.txt"):
        text.write_text(f"of the other set: {text.read_text()}")
    run("extract", "--data", "other")
    (path,) = (work / "cache").glob("*.h5")
    renamed = path.rename(path.with_name(path.name.replace("other", "data")))
    for where in ("cache", str(renamed)):
        status, message = fails(capsys, "fit", "--data", "data", "--cache", where)
        assert status == 1
        assert "other" in message.partition(" was made from ")[2]
    assert "40 of 40 train posts compared have another image or text" in message
    assert run("cache", "verify", "--data", "data", "--cache", str(renamed)) == 0
    assert f"was made from {work / 'other'}, not from data" in capsys.readouterr().err
    assert run("fit", "--data", "other", "--cache", str(renamed), "--val-size", "10") == 0


def test_runs_of_a_cache_of_other_versions_are_found(
    work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a patch release: the newest cache is taken, and the heads of the one before."""
    three("concat")
    moved = fake_encoders()
    moved.image.card = moved.image.card.model_copy(update={"libraries": {"pillow": "99.0.1"}})
    monkeypatch.setattr("mmsent.features.extract.open_encoders", lambda settings: moved)
    assert run("extract", "--json") == 0
    capsys.readouterr()
    assert run("vote") == 0
    shown = capsys.readouterr()
    assert "the newest of 2 caches of data that differ only in library versions or precision" in shown.err
    assert "labels of concat" in shown.out


def test_check_recommends_an_encoder_for_other_languages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also with the default encoder, which is not opened without its weights."""
    data = make_guid(tmp_path / "posts", 20, 0)
    for number, path in enumerate(sorted((data / "data").glob("*.txt"))[:3]):
        path.write_text(f"今天天气很好，我们去公园玩 {number}", encoding="utf-8")
    run("check", "--data", str(data), "--encoder", "clip-l14-336", "--json")
    shown = capsys.readouterr()
    assert "text lengths are counted in characters" in shown.err
    (found,) = (one for one in json.loads(shown.out)["findings"] if one["kind"] == "foreign text")
    assert found["count"] == 3
    assert "mmsent extract --encoder multilingual" in found["message"]
    run("check", "--data", str(data), "--encoder", "multilingual", "--json")
    assert "foreign text" not in capsys.readouterr().out


def test_check_exit_status(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", "--no-tokens") == 0
    (work / "data" / "train.txt").write_text("guid,tag\n1,furious\n2,positive\n")
    assert run("check", "--no-tokens", "--json") == 1
    kinds = {f["kind"] for f in json.loads(capsys.readouterr().out.split("\n}\n")[-1] or "{}").get("findings", [])}
    assert kinds == set() or "unknown label" in kinds


def test_prepare_writes_beside(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("prepare", "--out", "utf8", "--json") == 0
    assert json.loads(capsys.readouterr().out)["texts"] == 50
    assert (work / "utf8" / "train.txt").is_file()


# --- what goes wrong says what to do


def test_no_data_folder(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, message = fails(capsys, "extract", "--data", "nowhere")
    assert status == 1
    assert "no data set at nowhere; set --data" in message


def test_unknown_fusion(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, message = fails(capsys, "fit", "--fusion", "sum")
    assert status == 2
    assert "unknown fusion 'sum'; choose from concat, weighted, attention" in message


def test_cache_of_another_encoder(
    work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    three("concat")
    name = next((work / "runs").iterdir()).name
    monkeypatch.setattr("mmsent.features.extract.open_encoders", lambda settings: fake_encoders(seed=1))
    run("extract", "--cache", "other")
    capsys.readouterr()
    status, message = fails(capsys, "vote", name, "--cache", "other")
    assert status == 1
    assert "was trained on features of offline" in message
    status, message = fails(capsys, "fit", "--encoder", "clip-l14-336")
    assert "no cache of data with clip-l14-336" in message
    assert "mmsent extract --split train --encoder clip-l14-336" in message


def test_missing_test_split(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (work / "data" / "test_without_label.txt").unlink()
    assert run("extract") == 0
    assert run("fit", "--val-size", "10") == 0
    capsys.readouterr()
    status, message = fails(capsys, "vote")
    assert status == 1
    assert "has no test split: test_without_label.txt is missing or empty" in message


def test_weights_that_do_not_exist(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_guid(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    status, message = fails(capsys, "extract", "--weights", "nowhere.pt")
    assert status == 1
    for way in ("no weights at nowhere.pt", "--weights FILE", "HF_HOME", "--encoder offline"):
        assert way in message


def test_label_outside_the_set(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = work / "data" / "train.txt"
    listed.write_text(listed.read_text() + "9999,furious\n")
    status, message = fails(capsys, "extract")
    assert status == 1
    assert "label 'furious' is not one of negative, neutral, positive; add it with --labels" in message


def test_unreadable_manifest(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (work / "posts.jsonl").write_text('{"id": 1}\n{oops\n')
    status, message = fails(capsys, "extract", "--data", "posts.jsonl")
    assert status == 1
    assert "posts.jsonl:2: not a JSON object" in message


def test_several_caches_ask_for_a_choice(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("extract", "--views", "1")
    run("extract", "--views", "2")
    assert "views.count: 1 -> 2" in capsys.readouterr().err
    _, message = fails(capsys, "fit")
    assert "2 caches of data match; choose one with --cache cache/data" in message
    chosen = next((work / "cache").glob("*.h5"))
    assert run("fit", "--cache", str(chosen), "--val-size", "10") == 0


def test_bad_values_are_usage_errors(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("extract")
    capsys.readouterr()
    for arguments in (
        ("extract", "--views", "-1"),
        ("extract", "--precision", "fp8"),
        ("extract", "--split", "dev"),
        ("extract", "--encoder", "nothing"),
        ("extract", "--labels", "one"),
        ("fit", "--dropout", "1.5"),
        ("fit", "--recipe", "secret"),
        ("vote", "--split", "val"),
        ("predict",),
        ("fit", "--no-such-option"),
    ):
        assert fails(capsys, *arguments)[0] == 2, arguments


def test_toml_sets_defaults_and_refuses_typos(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toml = work / "mmsent.toml"
    toml.write_text('cache = "elsewhere"\nencoder = "offline"\n[extract]\nviews = 0\n')
    assert run("extract") == 0
    assert len(list((work / "elsewhere").glob("*.h5"))) == 1
    capsys.readouterr()
    assert run("cache", "ls", "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["views"] == 0
    toml.write_text('encoder = "offline"\nviews-seed = 5\n[extract]\nbatch-size = 4\n')  # keys with hyphens
    assert run("extract") == 0
    toml.write_text("[extract]\nview = 0\n")
    status, message = fails(capsys, "extract")
    assert status == 2
    assert "unknown setting 'view'" in message
    toml.write_text("caches = 1\n")
    assert "unknown setting 'caches'" in fails(capsys, "extract")[1]
    for text, wanted in (
        ('id-colum = "name"\n', "it has an unknown setting 'id-colum'; did you mean 'id-column'?"),
        ("[extract]\nbatch_sise = 4\n", "[extract] has an unknown setting 'batch-sise'; did you mean 'batch-size'?"),
        ("[extrakt]\nviews = 4\n", "no command 'extrakt' for the table [extrakt]; did you mean 'extract'?"),
        ("xyzzy = 4\n", "unknown setting 'xyzzy'; settings are the long options"),
        ("form = 'md'\n", "unknown setting 'form'; did you mean 'format'?"),  # as the option is called
    ):
        toml.write_text(text)
        assert wanted in fails(capsys, "extract")[1]
    toml.write_text("cache = \n")
    assert "mmsent.toml cannot be read" in fails(capsys, "extract")[1]


def test_every_long_option_is_a_key_of_toml(work: Path) -> None:
    """With either sign; of an option that may be repeated one value may stand alone."""
    every = {name: long_options(one) for name, one in cli.commands().items()}
    (work / "mmsent.toml").write_text('id-column = "name"\nclean = "links"\n[report]\nformat = "md"\n')
    found = toml_defaults(work / "mmsent.toml", cli.commands(), cli.cache_commands())
    assert found["check"] == {"id_column": "name", "clean": ["links"]}
    assert found["report"]["form"] == "md"
    program = typer.main.get_command(cli.whole_program())
    for name, options in every.items():
        typed = {
            option.split("/")[0].removeprefix("--").replace("-", "_")
            for one in program.commands[name].params  # type: ignore[attr-defined]
            for option in one.opts
            if option.startswith("--")
        }
        assert options.keys() == typed - {"help"}, name


def test_toml_may_begin_with_a_byte_order_mark(work: Path) -> None:
    (work / "mmsent.toml").write_bytes(b'\xef\xbb\xbfencoder = "offline"\n')
    assert run("extract", "--views", "0") == 0


def test_command_line_beats_environment_beats_toml(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (work / "mmsent.toml").write_text('cache = "from-toml"\nencoder = "offline"\n')
    monkeypatch.setenv("MMSENT_CACHE", "from-environment")
    assert run("extract", "--cache", "from-command-line") == 0
    assert run("extract") == 0
    found = {p.name for p in work.iterdir() if p.name.startswith("from-")}
    assert found == {"from-command-line", "from-environment"}


def test_every_command_listens_to_the_environment() -> None:
    listening = {f"--{name}": f"MMSENT_{name.upper()}" for name in ("data", "cache", "encoder", "runs", "device")}
    program = typer.main.get_command(cli.whole_program())
    groups = [program, program.commands["cache"]]  # type: ignore[attr-defined]
    found = 0
    for name, command in ((name, one) for group in groups for name, one in group.commands.items()):
        for option in command.params:
            if option.opts[0] in listening:
                found += 1
                assert option.envvar == listening[option.opts[0]], (name, option.opts)
    assert found > 60


def test_debug_shows_the_traceback(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("extract", "--data", "nowhere", "--debug")
    assert "Traceback" in capsys.readouterr().err


def test_a_bug_is_one_line(work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("mmsent.features.cache.finding.survey", broken)
    status, message = fails(capsys, "cache", "ls")
    assert status == 1
    assert "unexpected ZeroDivisionError: oops" in message


def test_interrupt_says_how_to_go_on(
    work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmsent.features.extract.open_encoders", lambda settings: fake_encoders(fail_after=40))
    status, message = fails(capsys, "extract")
    assert status == 130
    assert "run the same command again" in message
    monkeypatch.setattr("mmsent.features.extract.open_encoders", lambda settings: fake_encoders())
    assert run("extract", "--json") == 0
    assert json.loads(capsys.readouterr().out)["encoded"]["train"] == 32  # 40 pictures of 5 views are 8 rows


@pytest.mark.parametrize(
    "command", [(), *((name,) for name in cli.commands()), *(("cache", n) for n in cli.cache_commands())]
)
def test_every_command_helps(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*command, "--help") == 0
    text = " ".join(capsys.readouterr().out.split()).lower()
    if command:
        assert any(word in text for word in ("reads", "read.", "takes", "draws")), "help says what is read"
        assert any(word in text for word in ("writes", "write")), "help says what is written"


def test_help_is_quick_and_loads_no_torch() -> None:
    code = "import sys; from mmsent.cli.main import main\ntry: main(['--help'])\nexcept SystemExit: "
    code += "assert 'torch' not in sys.modules"
    spent = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    assert min(spent) < 0.4  # processor time, for wall time depends on who else works: 0.2 s; torch alone takes 2


def test_overview_says_what_the_commands_say() -> None:
    """`mmsent --help` imports no command; what it says of each is the first paragraph of the command's own help."""
    from mmsent.cli import cache

    first = {name: (one.__doc__ or "").split("\n\n")[0] for name, one in cli.commands().items()}
    first["cache"] = (cache.__doc__ or "").partition(": ")[2].split("\n\n")[0].capitalize()
    assert {name: " ".join(words.split()) for name, words in first.items()} == cli.OVERVIEW


@pytest.mark.parametrize("arguments", [["-h"], ["fit", "-h"], ["cache", "ls", "-h"]])
def test_short_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == 0
    assert "Usage: mmsent" in capsys.readouterr().out


def test_a_mistyped_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("evalute") == 2
    assert "Did you mean 'evaluate'?" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out.startswith("mmsent 0.")
    module = subprocess.run([sys.executable, "-m", "mmsent", "--version"], capture_output=True, text=True, check=True)
    assert module.stdout.startswith("mmsent 0.")


def test_an_unfinished_split_survives_the_extraction_of_the_other(
    work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmsent.features.extract.open_encoders", lambda settings: fake_encoders(fail_after=100))
    assert run("extract", "--split", "train") == 130  # 20 rows of 5 views each are done
    monkeypatch.setattr("mmsent.features.extract.open_encoders", lambda settings: fake_encoders())
    assert run("extract", "--split", "test") == 0
    assert len(list((work / "cache").glob("*.journal"))) == 1
    capsys.readouterr()
    assert run("extract", "--split", "train", "--json") == 0
    assert json.loads(capsys.readouterr().out)["encoded"] == {"train": 20}
    assert not list((work / "cache").glob("*.journal"))


def test_a_moved_project_uses_its_own_data(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    run("extract")
    shutil.copytree(work, copy, ignore=shutil.ignore_patterns("copy"))
    monkeypatch.chdir(copy)
    listed = copy / "data" / "train.txt"
    listed.write_text("\n".join(listed.read_text().splitlines()[:-1]) + "\n")
    capsys.readouterr()
    assert "the train list of data differs" in fails(capsys, "fit")[1]


def test_predictions_never_replace_the_data_set(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    three("concat")
    capsys.readouterr()
    status, message = fails(capsys, "vote", "--out", "data/test_without_label.txt")
    assert status == 2
    assert "would replace a file of the data set" in message
    assert fails(capsys, "vote", "--out", ".")[0] == 2
    manifest = make_manifest(work / "new", "csv")
    assert fails(capsys, "predict", "--manifest", str(manifest), "--out", str(manifest))[0] == 2


def test_a_label_may_be_called_none(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = work / "data" / "train.txt"
    listed.write_text(listed.read_text().replace("neutral", "none"))
    assert run("extract", "--split", "train", "--labels", "negative,none,positive", "--json") == 0
    assert json.loads(capsys.readouterr().out)["rows"] == {"train": 40}


def test_a_folder_that_cannot_be_written(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (work / "file").write_text("")
    status, message = fails(capsys, "extract", "--cache", "file/cache")
    assert status == 1
    assert "cannot write in file/cache: Not a directory; choose another folder with --cache" in message


def test_predict_names_the_rows_it_leaves_out(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    three("image")
    name = next((work / "runs").iterdir()).name
    (work / "new.csv").write_text("id,text,image\n1,a day,data/data/1.jpg\n,no id,data/data/2.jpg\n")
    capsys.readouterr()
    assert run("predict", name, "--manifest", "new.csv") == 0
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == 2
    assert "new.csv row 2: id '' is empty" in shown.err
