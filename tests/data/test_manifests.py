"""Manifests: what is read, what is refused, and what is told of how it was read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmsent.config import DataSettings
from mmsent.data.check import check_dataset
from mmsent.data.corrections import corrected_list
from mmsent.data.dataset import load_dataset
from mmsent.data.manifests import cell, json_text, read_manifest
from mmsent.errors import DataError
from tests.helpers.made import make_manifest

SETTINGS = DataSettings()


def put(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def texts(path: Path, settings: DataSettings = SETTINGS) -> tuple[list[str | None], list[str]]:
    """The texts of a manifest's rows, and what is told of how it was read."""
    rows, opened = read_manifest(path, settings)
    return [cell(row, opened.settings.text_column) for row in rows], [p.message for p in opened.problems]


def test_empty_last_cells_of_a_tsv_are_kept(tmp_path: Path) -> None:
    path = put(tmp_path / "a.tsv", "\n \nid\ttext\tlabel\tnote\r\n1\ta\tneutral\t\r\n\r\n  \n")
    rows, _ = read_manifest(path, SETTINGS)
    assert rows == [{"id": "1", "text": "a", "label": "neutral", "note": ""}]
    rows, _ = read_manifest(put(tmp_path / "b.csv", "id,text,note\n1,a, "), SETTINGS)
    assert rows == [{"id": "1", "text": "a", "note": " "}]


def test_cells_that_are_no_plain_value() -> None:
    for value, name in ((b"x", "bytes"), ([1], "list"), ({"a": 1}, "dict")):
        with pytest.raises(DataError, match=f"column 'a' holds a {name}; expected a text or a number"):
            cell({"a": value}, "a")


def test_cell() -> None:
    row = {"a": 3, "b": None, "c": float("nan"), "d": "", "e": 0.5}
    assert [cell(row, name) for name in "abcdef"] == ["3", None, None, "", "0.5", None]


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_manifests_of_every_kind_hold_the_same_rows(tmp_path: Path, ending: str) -> None:
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    rows, opened = read_manifest(make_manifest(tmp_path, ending, 5, 2, size=4), SETTINGS)
    assert opened.decoding.encoding == "utf-8"
    assert len(rows) == 7
    assert list(rows[0]) == ["id", "image", "text", "label", "lang"]
    assert cell(rows[6], "id") == "post 7"
    assert "… post 1 " in str(rows[1]["text"])
    assert not cell(rows[6], "label")


def test_manifest_with_another_encoding_and_upper_case_ending(tmp_path: Path) -> None:
    path = put(tmp_path / "POSTS.CSV", "id,text\n1,好的\n", "gb18030")
    rows, opened = read_manifest(path, SETTINGS)
    assert (rows[0]["text"], opened.decoding.encoding) == ("好的", "gb18030")


def test_rows_of_two_programs_in_one_manifest(tmp_path: Path) -> None:
    words = "très déçu par ce café"
    path = tmp_path / "posts.csv"
    lines = [f"{i},{words},positive\r\n".encode("cp1252" if i % 5 == 0 else "utf-8") for i in range(40)]
    path.write_bytes(b"id,text,label\r\n" + b"".join(lines))
    rows, opened = read_manifest(path, SETTINGS)
    assert (opened.decoding.encoding, {row["text"] for row in rows}) == ("utf-8+cp1252", {words})
    dataset = load_dataset(path, SETTINGS)
    assert [f.message for f in check_dataset(dataset).findings if f.kind == "text encoding"] == [opened.decoding.doubt]
    _, _, raw = corrected_list(dataset, {"5": "negative"})
    labels = ["negative" if i == 5 else "positive" for i in range(40)]
    assert raw.decode() == "id,text,label\r\n" + "".join(f"{i},{words},{k}\r\n" for i, k in enumerate(labels))
    path.write_bytes(b"id,text\r\n" + b"".join(lines[1:5]) + "6,好的\r\n".encode("gb18030"))
    with pytest.raises(DataError, match=r"is not utf-8 text: .*; pass --text-encoding, or utf-8\+CODEC where two are"):
        read_manifest(path, SETTINGS)


@pytest.mark.parametrize("delimiter", list(",;|\t"))
def test_names_of_columns_in_quotes(tmp_path: Path, delimiter: str) -> None:
    text = '"id","text"\n"1","a"\n'.replace(",", delimiter)
    rows, _ = read_manifest(put(tmp_path / "a.csv", text), DataSettings())
    assert rows == [{"id": "1", "text": "a"}]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.xlsx", "x", r"a manifest ends in csv, tsv, jsonl, parquet, json; got '\.xlsx'"),
        ("a.tar.gz", "x", r"got '\.gz'; unpack it first"),
        ("a.csv", "id,text\n", "has no rows"),
        ("a.csv", "key,text\n1,a\n", "no column 'id'; it has 'key', 'text'; name them, as in --columns id="),
        ("a.csv", "id,words\n1,a\n", "neither a column 'image' nor 'text'"),
        (
            "a.csv",
            "id,text\n1,a,b\n",
            "the number of fields differs from the header's 2 in 1 of 1 rows: row 1 has 3; a text that",
        ),
        ("a.csv", "id,text\n1,a\n" + "2\n" * 5, "in 5 of 6 rows: row 2 has 1, row 3 has 1, row 4 has 1, …;"),
        ("a.csv", "# of May\nid,text\n1,a\n", "line 2 looks like the header; remove the lines before it"),
        ("a.csv", "1,a,positive\n2,b,neutral\n", "its first line is a post; write a line .*: id,image,text,label"),
        ("a.csv", "PK\3\4 and more", "is a zip or Excel file, whatever its name says"),
        ("a.json", '{"data": [{"id": 1, "text": "a"}]}', "one object around all posts; it must be an array of objects"),
        ("a.csv", 'id,text\n1,"a" b\n', r"a\.csv: not readable as CSV: line 2: "),
        ("a.jsonl", '{"id": 1, "text": "a"}\n{oops\n', r"a\.jsonl:2: not a JSON object"),
        ("a.jsonl", "[1]\n", r"a\.jsonl row 1: expected a JSON object, got int"),
        ("a.jsonl", "[1]\n[2]\n", r"a\.jsonl:1: expected one JSON object per line, got list"),
        ("a.json", "[1\n", r"a\.json: not a JSON array"),
        ("a.json", "[]\n", "has no rows"),
        ("a.json", '{\n"id": {"0": 1}}', r"a\.json:1: .*; a manifest is an array of objects, or one object per line"),
        ("a.csv", "id,text,text\n1,a,b\n", "column 'text' stands twice; rename or remove one of the two"),
        ("a.csv", "id,text,label,label\n1,a,b,c\n", "column 'label' stands twice"),
        ("a.csv", "id,note,text,note\n1,a,b,c\n", "column 'note' stands twice"),  # a copy would lose one
        ("a.tsv", "id\ttext\ttext\n1\ta\tb\n", "column 'text' stands twice"),
        ("a.jsonl", '{"id": 1, "text": "a", "text": "b"}\n', r"a\.jsonl:1: 'text' stands twice in one object"),
        ("a.json", '[{"id": 1, "text": "a", "text": "b"}]', "'text' stands twice in one object"),
        ("a.csv", "id,Text,TEXT\n1,a,b\n", "'Text' and 'TEXT' could both be the column 'text'; .*--text-column"),
        ("a.csv", "id,text,Split,SPLIT\n1,a,,\n", "could both be the column 'split'; rename the one that is"),
        ("a.csv", "id,,text,,note,\n1,a,b,c,d,\n", "columns 2, 4 have no name; name or remove them"),
        ("a.jsonl", '{"id": 1, "text": "a"}\n{"id": 2, "Text": "b"}\n', "row 2 has a column 'Text' where others have"),
    ],
)
def test_bad_manifests(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_manifest(put(tmp_path / name, text), SETTINGS)


def test_bad_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    with pytest.raises(DataError, match="not readable as Parquet"):
        read_manifest(put(tmp_path / "a.parquet", "PAR1 no"), SETTINGS)


def test_two_parquet_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table([["1"], ["a"], ["b"]], names=["id", "text", "text"]), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="column 'text' stands twice"):
        read_manifest(tmp_path / "a.parquet", SETTINGS)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "ID, Text ,Split\n1,a,test\n"),
        ("a.tsv", "id\t TEXT\tsplit \n1\ta\ttest\n"),
        ("a.jsonl", '{"Id": 1, "Text": "a", "SPLIT": "test"}\n'),
    ],
)
def test_names_that_differ_by_case_or_blanks_match_with_a_note(tmp_path: Path, name: str, text: str) -> None:
    rows, opened = read_manifest(put(tmp_path / name, text), SETTINGS)
    found = opened.settings
    assert [cell(rows[0], c) for c in (found.id_column, found.text_column, found.split_column)] == ["1", "a", "test"]
    assert {p.kind for p in opened.problems} == {"how it is read"}
    assert f"column {found.split_column!r} is read as 'split'" in [p.message for p in opened.problems]


def test_a_name_that_matches_exactly_wins(tmp_path: Path) -> None:
    path = put(tmp_path / "a.csv", "id,Text,text\n1,a,b\n")
    assert texts(path) == (["b"], ["column 'Text' is not read, as 'text' is there"])
    assert texts(path, DataSettings(text_column="Text"))[0] == ["a"]


HEAD = "id\tlabel\timage\ttext\n"


def test_a_quote_in_one_row_and_one_in_another_swallow_no_rows(tmp_path: Path) -> None:
    lines = [f"{i}\tneutral\tx\twords {i}" for i in range(8)]
    lines[2], lines[5] = '2\tneutral\tx\t"words 2', '5\tneutral\tx\twords 5"'
    found, told = texts(put(tmp_path / "a.tsv", HEAD + "\n".join(lines) + "\n"))
    assert found == ["words 0", "words 1", '"words 2', "words 3", "words 4", 'words 5"', "words 6", "words 7"]
    assert told == ["a quote in lines 4 to 7 does not enclose a cell; it was read as a character"]
    found, told = texts(put(tmp_path / "a.csv", (HEAD + "\n".join(lines) + "\n").replace("\t", ",")))
    assert (len(found), len(told)) == (8, 1)  # the labels say that these are rows


@pytest.mark.parametrize("text", ['"words" and more', '"never closed', 'a "word" inside', '"', 'tab"'])
def test_a_quote_of_any_kind_in_a_tsv_is_read(tmp_path: Path, text: str) -> None:
    rows = HEAD + f"1\tneutral\tx\t{text}\n2\tneutral\tx\tlast\n"
    assert texts(put(tmp_path / "a.tsv", rows))[0] == [text, "last"]


def test_cells_over_several_lines_stay_cells(tmp_path: Path) -> None:
    for name, quoted in (("a.tsv", '"one\ntwo ""b""\n\nthree"'), ("a.csv", '"one, a\ntwo, b\nthree"')):
        head = HEAD if name == "a.tsv" else HEAD.replace("\t", ",")
        row = f"1\tneutral\tx\t{quoted}\n2\tneutral\tx\tlast\n"
        path = put(tmp_path / name, head + (row if name == "a.tsv" else row.replace("\t", ",")))
        assert texts(path) == ([quoted[1:-1].replace('""', '"'), "last"], [])


def test_a_csv_cell_whose_lines_could_be_rows_is_a_warning(tmp_path: Path) -> None:
    path = put(tmp_path / "a.csv", 'id,text\n1,"Hello\nWell, yes\nok, bye"\n2,b\n')
    rows, opened = read_manifest(path, SETTINGS)
    assert [row["text"] for row in rows] == ["Hello\nWell, yes\nok, bye", "b"]
    assert [(p.severity, p.kind) for p in opened.problems] == [("warning", "stray quote")]
    assert "a cell goes over lines 2 to 4, each of which reads as a row of its own" in opened.problems[0].message


@pytest.mark.parametrize(
    ("delimiter", "told"),
    [(",", []), (";", ["cells are separated by ';'"]), ("\t", ["cells are separated by tabs"])],
)
def test_a_csv_that_a_spreadsheet_saved(tmp_path: Path, delimiter: str, told: list[str]) -> None:
    raw = 'id,text,,\n1,"a, b",,\n,,,\n'.replace('"a, b"', "TEXT").replace(",", delimiter).replace("TEXT", '"a, b"')
    rows, opened = read_manifest(put(tmp_path / "a.csv", raw), SETTINGS)
    assert rows == [{"id": "1", "text": "a, b"}]
    assert (opened.delimiter, [p.message for p in opened.problems]) == (delimiter, told)


def test_one_column_without_a_name_is_a_column(tmp_path: Path) -> None:
    rows, _ = read_manifest(put(tmp_path / "a.csv", ",id,text\n0,1,a\n"), SETTINGS)  # as pandas writes its index
    assert rows == [{"": "0", "id": "1", "text": "a"}]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
@pytest.mark.parametrize("indent", [None, 1])
def test_a_json_array_is_read(tmp_path: Path, name: str, indent: int | None) -> None:
    rows = [{"id": i, "text": f"words {i}", "label": None} for i in range(3)]
    assert texts(put(tmp_path / name, json.dumps(rows, indent=indent))) == (["words 0", "words 1", "words 2"], [])


def test_json_lines_in_a_json_file_are_read(tmp_path: Path) -> None:
    assert texts(put(tmp_path / "a.json", '{"id": 1, "text": "a"}\n{"id": 2, "text": "b"}\n'))[0] == ["a", "b"]


def test_rows_are_written_as_the_json_that_the_ending_says(tmp_path: Path) -> None:
    rows = [{"id": 1, "text": "好"}, {"id": 2, "text": "\ud83d"}]
    for name in ("a.json", "a.jsonl"):
        written = json_text(rows, name[2:], "utf-8")
        assert written.startswith("[" if name == "a.json" else "{")
        assert "好" in written
        assert read_manifest(put(tmp_path / name, written), SETTINGS)[0] == rows


@pytest.mark.parametrize("first", ["sep=;", "SEP=;", '"sep=;"', "sep=|"])
def test_a_line_that_says_the_delimiter(tmp_path: Path, first: str) -> None:
    d = first.strip('"')[-1]
    assert texts(put(tmp_path / "a.csv", f"{first}\r\nid{d}text\r\n1{d}a, b\r\n"))[0] == ["a, b"]


def test_what_excel_saves_as_unicode_text(tmp_path: Path) -> None:
    assert texts(put(tmp_path / "a.csv", "\ufeffid\ttext\r\n1\tschön\r\n", "utf-16-le"))[0] == ["schön"]


def test_quotes_that_backslashes_escape(tmp_path: Path) -> None:
    rows = 'id,text,label\n1,"He said \\"hi, you\\" to us",positive\n2,"a ""b"" c",neutral\n'
    assert texts(put(tmp_path / "a.csv", rows))[0] == ['He said "hi, you" to us', 'a "b" c']


def test_a_cell_that_is_kept_from_excel(tmp_path: Path) -> None:
    rows, _ = read_manifest(put(tmp_path / "a.csv", 'id,text\n="007",="a ""b"""\n'), SETTINGS)
    assert (cell(rows[0], "id"), cell(rows[0], "text")) == ("007", 'a "b"')


def test_what_programs_did_to_ids_and_texts_is_told(tmp_path: Path) -> None:
    path = put(
        tmp_path / "a.csv", "id,text,label\n1.23E+18,NULL,positive\n1.0,nan,positive\n3,\\N,neutral\n4,a,neutral\n"
    )
    found = load_dataset(path)
    assert [post.text for post in found.posts] == ["NULL", "nan", "\\N", "a"]
    assert [(p.severity, p.kind, p.message[:30]) for p in found.problems] == [
        ("warning", "rounded ids", "1 ids such as '1.23E+18' were "),
        ("note", "ids that were fractions", "1 ids such as '1.0' end in .0 "),
        ("warning", "words for no text", "3 texts such as 'NULL' are pro"),
    ]


def test_a_copy_has_a_delimiter_that_needs_no_line_to_say_it(tmp_path: Path) -> None:
    path = put(tmp_path / "a.csv", "sep=~\nid~text~label\n1~a~positive\n2~b~neutral\n")
    _, _, raw = corrected_list(load_dataset(path), {"1": "neutral"})
    assert raw.decode() == "id,text,label\n1,a,neutral\n2,b,neutral\n"
