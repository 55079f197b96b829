"""Readers: the formats, and what breaks in them."""

import bz2
import csv
import gzip
import json
import lzma
import os
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mainspring.data.documents import pieces
from mainspring.data.readers import READERS, Source, columns, read_rows, sources
from mainspring.data.skipped import SkipLog
from mainspring.data.sources import KNOWN
from mainspring.errors import BadData

ROWS = [
    {"text": 'One, "two"; three\tfour', "summary": "1-4"},
    {"text": "two\nlines", "summary": "grüße 你好"},
    {"text": "plain", "summary": "x"},
]


def read(path: Path | Source, **options) -> tuple[list[dict], SkipLog]:
    skipped = SkipLog()
    return [row.values for row in read_rows(path, skipped, **options)], skipped


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def as_csv(rows: list[dict], **dialect) -> str:
    import io

    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), **dialect)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def test_every_known_suffix_has_a_reader() -> None:
    assert set(READERS) == set(KNOWN)


# --- delimited ---------------------------------------------------------------------------------


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_csv_of_any_dialect(tmp_path: Path, delimiter: str, line_end: str) -> None:
    # The library leaves "\n" unquoted where lines end in "\r" alone.
    quoting = csv.QUOTE_ALL if line_end == "\r" else csv.QUOTE_MINIMAL
    content = as_csv(ROWS, delimiter=delimiter, lineterminator=line_end, quoting=quoting)
    for name in ("a.csv", "a.tsv"):
        rows, skipped = read(write(tmp_path / name, content))
        assert rows == ROWS
        assert not skipped.total


def test_line_ends_in_quoted_cells_stay_as_offsets_count_them(tmp_path: Path) -> None:
    text = "Hello 0\r\nline two\r\nAnna Müller went\nto Paris."
    with (tmp_path / "a.csv").open("w", encoding="utf-8", newline="") as out:
        csv.writer(out).writerows([("text", "entities"), (text, '[[19, 30, "PER"]]'), ("b", "")])
    rows, skipped = read(tmp_path / "a.csv")
    assert [row["text"] for row in rows] == [text, "b"] and not skipped.total
    assert text[19:30] == "Anna Müller"


def test_speech_over_two_rows_of_a_tsv_stays_two_rows(tmp_path: Path) -> None:
    lines = ["en\tde", '"I am here,\t„Ich bin hier,', 'and I leave."\tund ich gehe."', "a\tb"]
    rows, skipped = read(write(tmp_path / "a.tsv", "\n".join(lines)))
    assert [f"{row['en']}\t{row['de']}" for row in rows] == lines[1:] and not skipped.total
    quoted = 'en\tde\n"two\nlines"\t"zwei\nZeilen"\n'
    rows, _ = read(write(tmp_path / "b.tsv", quoted))
    assert rows == [{"en": "two\nlines", "de": "zwei\nZeilen"}]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_marks_at_the_beginning(tmp_path: Path, encoding: str) -> None:
    path = write(tmp_path / "a.csv", as_csv(ROWS).encode(encoding))
    assert read(path)[0] == ROWS
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
    assert read(write(tmp_path / "a.jsonl", lines.encode(encoding)))[0] == ROWS


def test_excel_says_its_delimiter(tmp_path: Path) -> None:
    assert read(write(tmp_path / "a.csv", "sep=;\na;b,c\n1;2\n"))[0] == [{"a": "1", "b,c": "2"}]


def test_csv_with_an_index_and_delimiters_at_the_end(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", ",text\n0,x\n1,y,,\n")
    assert read(path)[0] == [{"column 1": "0", "text": "x"}, {"column 1": "1", "text": "y"}]


def test_ragged_rows_are_listed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'a,b\n1,2\n3\n"x\ny",4\n5,6,7\n\n8,9\n')
    log = tmp_path / "skipped.jsonl"
    with SkipLog(log) as skipped:
        rows = list(read_rows(path, skipped))
    assert [(row.line, row.values["a"]) for row in rows] == [(2, "1"), (4, "x\ny"), (8, "8")]
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(e["line"], e["reason"], e["detail"], e["raw"]) for e in entries] == [
        (3, "ragged row", "1 columns where the header has 2", "3\n"),
        (6, "ragged row", "3 columns where the header has 2", "5,6,7\n"),
    ]


def test_a_stray_quote_costs_no_other_row(tmp_path: Path) -> None:
    content = 'a\tb\n"He said no\t1\n2\t"never closed\nfine\t3\n"so" he said\t4\n'
    rows, skipped = read(write(tmp_path / "a.tsv", content))
    assert rows == [
        {"a": '"He said no', "b": "1"},
        {"a": "2", "b": '"never closed'},
        {"a": "fine", "b": "3"},
        {"a": '"so" he said', "b": "4"},
    ]
    assert not skipped.total
    rows, skipped = read(write(tmp_path / "b.csv", 'a,b\n"open, no end\n1,2\n3,4\n'))
    assert rows[-2:] == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]


def test_a_long_field(tmp_path: Path) -> None:
    text = "word " * 200_000
    rows, _ = read(write(tmp_path / "a.csv", f'text,b\n"{text}",1\n'))
    assert rows == [{"text": text, "b": "1"}]


def test_bad_headers(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="several columns are called `a`"):
        read(write(tmp_path / "a.csv", "a,b,a\n1,2,3\n"))
    with pytest.raises(BadData, match="no rows in it"):
        read(write(tmp_path / "b.csv", "a,b\n"))


CELLS = st.text(st.sampled_from("ab,;\"\n\t' é"), max_size=8)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=8), tab=st.booleans())
def test_what_the_library_writes_comes_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], tab: bool
) -> None:
    # In a TSV a cell with a tab and a line end may as well be rows with a quote each.
    assume(not tab or not any("\t" in cell and "\n" in cell for row in rows for cell in row))
    expected = [{"text": a, "summary": b} for a, b in rows]
    path = tmp_path_factory.getbasetemp() / ("r.tsv" if tab else "r.csv")
    write(path, as_csv(expected, delimiter="\t" if tab else ","))
    assert read(path)[0] == expected


# --- JSON --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(ROWS),
        json.dumps(ROWS, indent=2, ensure_ascii=False),
        json.dumps({"version": "1", "about": {"data": [1]}, "data": ROWS, "end": [{}]}),
        "\n".join(json.dumps(row) for row in ROWS),
        "\n\n".join(json.dumps(row, indent=1) for row in ROWS) + "\n",
    ],
)
def test_json_of_any_shape(tmp_path: Path, content: str) -> None:
    rows, skipped = read(write(tmp_path / "a.json", content))
    assert rows == ROWS
    assert not skipped.total


def test_one_object_is_one_row(tmp_path: Path) -> None:
    row = {"text": "x", "tags": ["a"], "spans": [{"start": 1}]}
    assert read(write(tmp_path / "a.json", json.dumps(row, indent=1)))[0] == [row]


def test_an_array_in_a_jsonl_file(tmp_path: Path) -> None:
    assert read(write(tmp_path / "a.jsonl", json.dumps(ROWS, indent=1)))[0] == ROWS


def test_broken_lines_are_listed(tmp_path: Path) -> None:
    lines = [
        b'{"a": 1}',
        b'{"a": 2',
        b"",
        b"[1]",
        b'{"a": "\xff"}',
        b'{"a": NaN}',
        b"7",
        b'{"a":3}',
    ]
    rows, skipped = read(write(tmp_path / "a.jsonl", b"\r\n".join(lines)))
    assert [row["a"] for row in rows[::2]] == [1, 3]
    assert skipped.counts == {"bad JSON": 1, "wrong type": 2, "undecodable bytes": 1}
    log = tmp_path / "s.jsonl"
    with SkipLog(log) as skipped:
        list(read_rows(tmp_path / "a.jsonl", skipped))
    assert [json.loads(line)["line"] for line in log.read_text().splitlines()] == [2, 4, 5, 7]


def test_reading_goes_on_after_a_fault_in_an_array(tmp_path: Path) -> None:
    content = '[\n {"a": 1},\n {"a": 2 "b": 3},\n {"a": "}, {"},\n 5,\n {"a": 6, },\n {"a": 7}\n]'
    log = tmp_path / "s.jsonl"
    with SkipLog(log) as skipped:
        rows = list(read_rows(write(tmp_path / "a.json", content), skipped))
    assert [(row.line, row.values["a"]) for row in rows] == [(2, 1), (4, "}, {"), (7, 7)]
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(e["line"], e["reason"]) for e in entries] == [
        (3, "bad JSON"),
        (5, "wrong type"),
        (6, "bad JSON"),
    ]
    assert entries[0]["raw"].startswith('{"a": 2 "b": 3}')


def test_a_cut_array_says_so(tmp_path: Path) -> None:
    rows, skipped = read(write(tmp_path / "a.json", '[{"a": 1},\n{"a": 2},'))
    assert [row["a"] for row in rows] == [1, 2]
    assert "ends inside the array" in skipped.summary()
    rows, skipped = read(write(tmp_path / "b.json", '[{"a": 1},\n{"a": "tw'))
    assert [row["a"] for row in rows] == [1]
    assert skipped.counts["bad JSON"] >= 1


@settings(deadline=None, max_examples=40, derandomize=True)
@given(
    values=st.lists(
        st.dictionaries(st.text(max_size=3), st.text(max_size=9) | st.floats() | st.none()),
        min_size=1,
        max_size=6,
    ),
    indent=st.none() | st.just(1),
    chunk=st.integers(1, 40),
)
def test_any_array_comes_back_from_any_buffer(
    tmp_path_factory: pytest.TempPathFactory, values: list[dict], indent: int | None, chunk: int
) -> None:
    from mainspring.data import json_rows

    path = tmp_path_factory.getbasetemp() / "any.json"
    write(path, json.dumps(values, indent=indent))
    usual, json_rows.CHUNK = json_rows.CHUNK, chunk
    try:
        rows, skipped = read(path)
    finally:
        json_rows.CHUNK = usual
    assert repr(rows) == repr(values)
    assert not skipped.total


# --- Parquet and Arrow ---------------------------------------------------------------------------


def test_parquet_and_arrow(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([*ROWS, {"text": None, "summary": "no text"}])
    pa.parquet.write_table(table, tmp_path / "a.parquet")
    pa.feather.write_feather(table, tmp_path / "a.feather")
    for name, opener in (("b.arrow", pa.ipc.new_stream), ("c.arrow", pa.ipc.new_file)):
        with opener(tmp_path / name, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
    for name in ("a.parquet", "a.feather", "b.arrow", "c.arrow"):
        rows = list(read_rows(tmp_path / name, SkipLog()))
        assert [row.values for row in rows] == table.to_pylist()
        assert [row.line for row in rows] == [1, 2, 3, 4]


def test_undecodable_strings_in_arrow(tmp_path: Path) -> None:
    binary = pa.array([b"good", b"\xff\xfe", b"fine"], pa.binary())
    strings = pa.StringArray.from_buffers(3, *binary.buffers()[1:])
    table = pa.table({"text": strings})
    with pa.ipc.new_stream(tmp_path / "a.arrow", table.schema) as writer:
        writer.write_table(table)
    rows, skipped = read(tmp_path / "a.arrow")
    assert [row["text"] for row in rows] == ["good", "fine"]
    assert skipped.counts == {"undecodable bytes": 1}


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.csv.gz", "a.jsonl.xz", "a.txt.bz2"])
@pytest.mark.parametrize("content", [b"", b"not what it claims to be"])
def test_files_that_are_not_what_they_say(tmp_path: Path, name: str, content: bytes) -> None:
    with pytest.raises(BadData):
        read(write(tmp_path / name, content))


def test_a_truncated_file_loses_only_its_end(tmp_path: Path) -> None:
    lines = "".join(json.dumps({"a": os.urandom(20).hex()}) + "\n" for _ in range(5000))
    whole = gzip.compress(lines.encode())
    rows, skipped = read(write(tmp_path / "a.jsonl.gz", whole[: len(whole) // 2]))
    assert len(rows) > 1000
    assert skipped.counts["unreadable file"] == 1
    with pytest.raises(BadData):
        write(tmp_path / "b.parquet", b"PAR1" + b"\0" * 100)
        read(tmp_path / "b.parquet")


@pytest.mark.parametrize(
    ("ending", "compress"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)]
)
def test_compressed_files(tmp_path: Path, ending: str, compress) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    assert read(write(tmp_path / f"a.jsonl{ending}", compress(lines.encode())))[0] == ROWS
    assert read(write(tmp_path / f"a.csv{ending}", compress(as_csv(ROWS).encode())))[0] == ROWS
    assert read(write(tmp_path / f"a.txt{ending}", compress(b"x")))[0] == [{"text": "x"}]


# --- texts ---------------------------------------------------------------------------------------


def test_documents(tmp_path: Path) -> None:
    write(tmp_path / "b.txt", "second\r\nline")
    write(tmp_path / "a.txt", "first")
    write(tmp_path / "broken.txt", b"caf\xe9")
    write(tmp_path / "README.md", "about these")
    rows, skipped = read(tmp_path)
    assert rows == [{"text": "first"}, {"text": "second\r\nline"}]
    assert skipped.counts == {"undecodable bytes": 1}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_side_by_side_with_any_line_ends(tmp_path: Path, end: str) -> None:
    (tmp_path / "train.en").write_bytes(end.join(["one", "two", ""]).encode())
    (tmp_path / "train.de").write_bytes(b"eins\nzwei\n")
    rows, skipped = read(tmp_path)
    assert rows == [
        {"de": "eins", "en": "one"},
        {"de": "zwei", "en": "two"},
    ]
    assert not skipped.total


def test_a_carriage_return_within_a_line_does_not_shift_the_others(tmp_path: Path) -> None:
    (tmp_path / "train.en").write_bytes(b"one\rand more\r\ntwo\r\nthree")
    (tmp_path / "train.de").write_bytes(b"eins\nzwei\ndrei\n")
    rows, skipped = read(tmp_path)
    assert [(row["en"], row["de"]) for row in rows] == [
        ("one and more", "eins"),
        ("two", "zwei"),
        ("three", "drei"),
    ]
    assert not skipped.total


def test_whole_documents_or_pieces(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "One one.\n\nTwo two.\n\nThree three.\n")
    assert len(read(path)[0]) == 1
    rows, _ = read(path, piece=12)
    assert [row["text"] for row in rows] == ["One one.\n\n", "Two two.\n\n", "Three three.", "\n"][
        :3
    ]


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    st.lists(st.sampled_from(["A word. ", "longwordlongword", "\n", "\n\n", "好。"]), max_size=60),
    st.integers(2, 50),
)
def test_pieces_lose_nothing_but_blanks(parts: list[str], size: int) -> None:
    text = "".join(parts)
    found = list(pieces(text.splitlines(keepends=True), size))
    assert "".join("".join(piece for _, piece in found).split()) == "".join(text.split())
    assert all(len(piece) <= size for _, piece in found)
    lines = text.split("\n")
    for line, piece in found:
        assert lines[line - 1].startswith(piece[:0])
        assert piece.split("\n")[0] in lines[line - 1]


def test_pieces_of_a_file_without_line_ends(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "word " * 300_000)
    rows, _ = read(path, piece=5000)
    assert "".join(row["text"] for row in rows) == "word " * 300_000


def test_rows_of_one_line_have_places_of_their_own(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", '[{"a": 1}, 7, {"a": 2},\n{"a": 3}, {"a": 4}]')
    assert [row.place for row in read_rows(path, SkipLog())] == ["1", "1.2", "2", "2.2"]


# --- all together --------------------------------------------------------------------------------


def test_columns_of_uneven_objects(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"a": 1}\n{"b": 2, "a": 1}\n')
    assert columns(path) == ["a", "b"]


def test_nothing_usable_says_why(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", "one\ntwo\n")
    with pytest.raises(BadData, match=r"no usable row: 2 bad JSON \(first: .*a.jsonl:1"):
        read(path)
    with pytest.raises(BadData, match="no rows"):
        read(write(tmp_path / "b.jsonl", ""))
    with pytest.raises(BadData, match=r"a.jsonl:1: bad JSON: Expecting value at column 1"):
        list(read_rows(path, SkipLog(strict=True)))


@pytest.mark.slow
def test_large_files_take_little_memory(tmp_path: Path) -> None:
    """Fifteen megabytes each, read in less than three."""
    long = "word " * 150
    with (tmp_path / "a.jsonl").open("w") as file:
        file.writelines(f'{{"text": "{long}{n}", "summary": "{n}"}}\n' for n in range(20_000))
    with (tmp_path / "a.csv").open("w") as file:
        file.write("text,summary\n")
        file.writelines(f'"{long}\n{n}",{n}\n' for n in range(20_000))
    with (tmp_path / "a.json").open("w") as file:
        file.write("[")
        file.writelines(f'{{"text": "{long}{n}"}},\n' for n in range(20_000))
        file.write("{}]")
    for name, expected in (("a.jsonl", 20_000), ("a.csv", 20_000), ("a.json", 20_001)):
        tracemalloc.start()
        count = sum(1 for _ in read_rows(tmp_path / name, SkipLog()))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert count == expected
        assert peak < 3_000_000, name


def test_real_sets(shared_data: Path) -> None:
    expected = {
        "summarization/csl_zh": [900, 100, 500],
        "summarization/scitldr_a": [1992, 619, 618],
        "text_generation/tang_poetry_zh": [8500, 500, 1000],
        "text_generation/tiny_shakespeare": [1, 1, 1],
        "qa/squad_v1.1": [442, 48],
    }
    for name, counts in expected.items():
        found = sources(shared_data / name)
        assert [source.split for source in found] == ["train", "validation", "test"][: len(found)]
        for source, count in zip(found, counts, strict=True):
            rows, skipped = read(source)
            assert (len(rows), skipped.total) == (count, 0)
