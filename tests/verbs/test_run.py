import csv
import io
import json
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

import mainspring
import nano
from mainspring import cli, events
from mainspring.checkpoints.bundle import load
from mainspring.data.windows import text_windows
from mainspring.errors import BadData, BadOption, Mismatch, Missing
from mainspring.verbs import applying
from mainspring.verbs.run import command

Rows = list[dict[str, Any]]

ADDED = ["summary", "stop", "tokens", "source_tokens_unread", "windows"]


def summarize(model: Path, *inputs: object, **options: Any) -> Rows:
    given = [value if isinstance(value, Path) else str(value) for value in inputs]
    return mainspring.run(
        "summarize", *given, model=str(model), **{"precision": "float32", **options}
    )


def warnings_of(seen: list[events.Event]) -> str:
    return "\n".join(event.text for event in seen if isinstance(event, events.Warn))


@pytest.fixture
def articles() -> list[str]:
    return [row["article"] for row in nano.pairs(7, seed=4)]


# -- inputs ---------------------------------------------------------------------------------------


def test_a_string_gives_one_row(trained: Path, articles: list[str]) -> None:
    [row] = summarize(trained, articles[0])
    assert list(row) == ["text", *ADDED]
    assert row["text"] == articles[0]
    assert row["summary"] and row["stop"] in ("eos", "length")
    assert 0 < row["tokens"] <= 12
    assert (row["source_tokens_unread"], row["windows"]) == (0, 1)


def test_files_folders_tables_and_strings_in_one_call(
    trained: Path, articles: list[str], tmp_path: Path
) -> None:
    document = tmp_path / "one.txt"
    document.write_text(articles[0], encoding="utf-8")
    folder = tmp_path / "folder"
    folder.mkdir()
    for number in (1, 2):
        (folder / f"{number}.txt").write_text(articles[number], encoding="utf-8")
    table = tmp_path / "table.csv"
    table.write_text(f"id,Article\n7,{articles[3]}\n8,{articles[4]}\n", encoding="utf-8")
    jsonl = nano.write_jsonl([{"body": articles[5], "tags": ["a"]}], tmp_path / "rows.jsonl")
    rows = summarize(trained, document, folder, table, jsonl, articles[6])
    texts = [row.get("text") or row.get("Article") or row.get("body") for row in rows]
    assert texts == articles
    assert [row.get("id") for row in rows] == [None, None, None, "7", "8", None, None]
    assert rows[5]["tags"] == ["a"]
    alone = [summarize(trained, article)[0]["summary"] for article in articles]
    assert [row["summary"] for row in rows] == alone


def test_lists_of_inputs_are_so_many_inputs(trained: Path, articles: list[str]) -> None:
    rows = mainspring.run(
        "summarize", articles[:2], (articles[2],), articles[3], model=str(trained)
    )
    assert [row["text"] for row in rows] == articles[:4]
    for wrong in (123, {"text": articles[0]}, [None]):
        with pytest.raises(BadOption, match="an input must be a text or a path, not "):
            mainspring.run("summarize", wrong, model=str(trained))
    for verb in (mainspring.fit, mainspring.evaluate):
        with pytest.raises(BadOption, match="data must be a text or a path, not list"):
            verb("summarize", articles, model=str(trained), out=trained.parent / "none")


def test_a_column_may_be_named(trained: Path, articles: list[str], tmp_path: Path) -> None:
    file = nano.write_jsonl([{"content": articles[0], "text": "other"}], tmp_path / "rows.jsonl")
    [row] = summarize(trained, file, text="content")
    assert row["summary"] == summarize(trained, articles[0])[0]["summary"]
    with pytest.raises(BadOption, match="--text: unknown column `contents`; did you mean"):
        summarize(trained, file, text="contents")


@pytest.mark.parametrize("inputs", [(), ("-",)])
def test_standard_input_is_one_document_or_lines(
    trained: Path, articles: list[str], monkeypatch: pytest.MonkeyPatch, inputs: tuple[str, ...]
) -> None:
    text = "\n".join(articles[:3])
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    [whole] = summarize(trained, *inputs)
    assert whole["text"] == text
    monkeypatch.setattr(sys, "stdin", io.StringIO(text + "\n\n"))
    seen: list[events.Event] = []
    with events.listening(seen.append):
        rows = summarize(trained, *inputs, lines=True)
    assert [(row["line"], row["text"]) for row in rows] == [*enumerate(articles[:3], 1)]
    assert "1 rows skipped: 1 empty text" in warnings_of(seen)  # the last line is empty


def test_lines_of_a_file(trained: Path, articles: list[str], tmp_path: Path) -> None:
    file = tmp_path / "lines.txt"
    file.write_text("\n".join(articles[:3]), encoding="utf-8")
    assert [row["text"] for row in summarize(trained, file, lines=True)] == articles[:3]
    for end in ("\n", "\r\n", "\r"):
        file.write_bytes(f"one\u2028and\x0bmore{end}two{end}".encode())  # as other programs count
        rows = summarize(trained, file, lines=True)
        assert [row["text"] for row in rows] == ["one\u2028and\x0bmore", "two"]
    file.write_text("one\n\n two \none\n")
    rows = summarize(trained, file, lines=True)
    assert [(row["line"], row["text"]) for row in rows] == [(1, "one"), (3, " two "), (4, "one")]


def test_nothing_to_read_is_said(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO("")
    monkeypatch.setattr(sys, "stdin", stream)
    with pytest.raises(BadData, match=r"standard input: no usable row: 1 empty text"):
        summarize(trained)
    monkeypatch.setattr(stream, "isatty", lambda: True)
    with pytest.raises(Missing, match="nothing to read: name texts, files or folders"):
        summarize(trained)


@pytest.mark.parametrize("given", ["", "  "])
def test_an_empty_text_is_refused_and_no_folder(trained: Path, given: str) -> None:
    with pytest.raises(BadData, match="empty text"):
        summarize(trained, given)


def test_a_name_that_is_not_there_is_no_text(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "article.txt").write_text("x", encoding="utf-8")
    for given in (tmp_path / "artcle.txt", "artcle.txt", "./nowhere", tmp_path / "artcle"):
        with pytest.raises(Missing, match="no file or folder"):
            summarize(trained, given)
    with pytest.raises(Missing, match=r"did you mean .*article\.txt"):
        summarize(trained, tmp_path / "artcle.txt")


@pytest.mark.parametrize(
    "text", ["and/or", "公司上半年增长3.5%，净利润/营收", "e.g.", "x" * 5000, "a\0b"]
)
def test_a_text_that_only_looks_like_a_name_is_a_text(text: str) -> None:
    assert not applying._is_path(text)


# -- outputs --------------------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Rows of mixed lengths; two of its columns have the names of added ones."""
    rows = sorted(nano.pairs(9, seed=6), key=lambda row: len(row["article"]) % 5)
    return nano.write_jsonl([{**row, "stop": "bus"} for row in rows], tmp_path / "rows.jsonl")


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv"])
def test_a_file_of_predictions_keeps_columns_and_order(
    trained: Path, table: Path, suffix: str
) -> None:
    out = table.with_name("new") / f"out{suffix}"
    rows = summarize(trained, table, out=out)
    kept = [
        {
            "input_summary" if key == "summary" else "input_stop" if key == "stop" else key: value
            for key, value in row.items()
        }
        for row in nano.read_jsonl(table)
    ]
    assert [{key: row[key] for key in row if key not in ADDED} for row in rows] == kept
    assert list(rows[0])[-5:] == ADDED
    assert [entry.name for entry in out.parent.iterdir()] == [out.name]
    if suffix == ".jsonl":
        assert nano.read_jsonl(out) == rows
    else:
        with out.open(encoding="utf-8", newline="") as stream:
            read = list(csv.DictReader(stream, delimiter="," if suffix == ".csv" else "\t"))
        assert read == [{key: str(value) for key, value in row.items()} for row in rows]


@pytest.mark.parametrize("tail", ["", '{"id": 3, "arti', "no newline"])
def test_a_half_written_file_is_gone_on_with(trained: Path, table: Path, tail: str) -> None:
    whole, out = table.with_name("whole.jsonl"), table.with_name("out.jsonl")
    rows = summarize(trained, table, out=whole)
    lines = whole.read_text(encoding="utf-8").splitlines(keepends=True)
    part = out.with_name("out.jsonl.part")
    tail = lines[3].rstrip("\n") if tail == "no newline" else tail
    part.write_text("".join(lines[:3]) + tail, encoding="utf-8")
    seen: list[events.Event] = []
    with events.listening(seen.append):
        rest = summarize(trained, table, out=out)
    assert rest == rows[3:]
    assert out.read_bytes() == whole.read_bytes()
    assert not part.exists()
    assert events.Note(f"{part}: going on after 3 rows") in seen
    assert {event.total for event in seen if isinstance(event, events.Progress)} == {6}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('{"id": 99, "summary": "of another table"}\n', r"part:1: .* belongs to other inputs"),
        ("not ours\n", "not a file of predictions"),
    ],
)
def test_a_part_of_something_else_is_refused(
    trained: Path, table: Path, content: str, problem: str
) -> None:
    part = table.with_name("out.jsonl.part")
    part.write_text(content, encoding="utf-8")
    with pytest.raises(BadData, match=problem):
        summarize(trained, table, out=table.with_name("out.jsonl"))
    assert part.read_text(encoding="utf-8") == content


def two_and_a_stop(predictions: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """The first two predictions, and then Ctrl-C."""

    def stopped(*how: Any) -> Iterator[Any]:
        yield from islice(predictions(*how), 2)
        raise KeyboardInterrupt

    return stopped


def test_a_stop_keeps_what_is_done_and_says_so(
    trained: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, seen = table.with_name("out.jsonl"), []
    whole = summarize(trained, table)

    def interrupted(event: events.Event) -> None:
        seen.append(event)
        if isinstance(event, events.Answer) and event.row["id"] == whole[3]["id"]:
            raise KeyboardInterrupt

    with events.listening(interrupted), pytest.raises(KeyboardInterrupt):
        summarize(trained, table, out=out)
    part = out.with_name("out.jsonl.part")
    said = f"{part}: {{}} rows kept, the same command goes on"
    assert events.Note(said.format(4)) in seen
    with monkeypatch.context() as patch:
        patch.setattr(applying, "_predictions", two_and_a_stop(applying._predictions))
        with pytest.raises(KeyboardInterrupt) as stopped:
            summarize(trained, table, out=out)
    assert stopped.value.__notes__ == [said.format(6)]
    assert nano.read_jsonl(part) == whole[:6]
    summarize(trained, table, out=out)
    assert nano.read_jsonl(out) == whole


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_a_stop_before_the_first_row_leaves_nothing(
    trained: Path, table: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    def stopped(*how: object) -> None:
        assert out.with_name(out.name + ".part").exists()
        raise KeyboardInterrupt

    out = table.with_name("none" + suffix)
    monkeypatch.setattr(applying, "_predictions", stopped)
    with pytest.raises(KeyboardInterrupt) as error:
        summarize(trained, table, out=out)
    assert not list(out.parent.glob("none*")) and "__notes__" not in vars(error.value)


def test_a_part_made_otherwise_is_refused(
    trained: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = table.with_name("out.jsonl")

    def interrupted(event: events.Event) -> None:
        if isinstance(event, events.Answer):
            raise KeyboardInterrupt

    with events.listening(interrupted), pytest.raises(KeyboardInterrupt):
        summarize(trained, table, out=out)
    with pytest.raises(BadData, match=r"part: .*made with another generation; remove it"):
        summarize(trained, table, out=out, num_beams=2)
    summarize(trained, table, out=out)
    assert not list(table.parent.glob("out.jsonl.*"))


def test_an_unfinished_row_may_hold_no_number(trained: Path, table: Path) -> None:
    rows = table.with_name("nan.jsonl")
    lines = table.read_text(encoding="utf-8").splitlines()
    rows.write_text("".join(line[:-1] + ', "n": NaN}\n' for line in lines), encoding="utf-8")
    out, whole = table.with_name("out.jsonl"), table.with_name("whole.jsonl")
    summarize(trained, rows, out=whole)
    part = out.with_name("out.jsonl.part")
    part.write_text(whole.read_text(encoding="utf-8").splitlines()[0] + "\n", encoding="utf-8")
    summarize(trained, rows, out=out)
    assert out.read_bytes() == whole.read_bytes()


def test_outputs_that_cannot_be_are_refused_before_anything_is_loaded(table: Path) -> None:
    for out, problem in (
        (table, "is already there"),
        (table.with_name("out.parquet"), r"suffix must be one of \.jsonl, \.csv, \.tsv"),
    ):
        with pytest.raises(BadOption, match=problem):
            summarize(Path("no-model"), table, out=out)


def test_each_answer_is_shown_as_soon_as_it_is_made(trained: Path, table: Path) -> None:
    seen: list[events.Event] = []
    with events.listening(seen.append):
        rows = summarize(trained, table)
    answers = [event for event in seen if isinstance(event, events.Answer)]
    assert [event.row for event in answers] == rows
    assert [event.text for event in answers] == [row["summary"] for row in rows]
    bars = [event for event in seen if isinstance(event, events.Progress)]
    assert {bar.total for bar in bars} == {9} and [bar.done == 9 for bar in bars].count(True) == 1
    assert seen[-1] == events.Progress("summarize", 9, 9, "rows")


def test_the_command_keeps_no_answers(trained: Path, table: Path) -> None:
    assert list(command("summarize", str(table), model=str(trained)).lines(False)) == []


# -- broken rows ----------------------------------------------------------------------------------


def test_broken_rows_are_counted_and_the_rest_is_done(
    trained: Path, articles: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "rows.jsonl"
    lines = [
        json.dumps({"text": articles[0]}),
        "{bad",
        json.dumps({"text": " "}),
        json.dumps({"text": 5}),
        json.dumps({"other": 1}),
        json.dumps({"text": articles[1]}),
    ]
    file.write_bytes("\n".join(lines).encode() + b'\n{"text": "\xff"}\n')
    out, seen = tmp_path / "out.jsonl", []
    with events.listening(seen.append):
        rows = summarize(trained, file, out=out)
    assert [row["text"] for row in rows] == articles[:2]
    listed = nano.read_jsonl(tmp_path / "out.skipped.jsonl")
    assert [(entry["line"], entry["reason"]) for entry in listed] == [
        (2, "bad JSON"),
        (3, "empty text"),
        (4, "wrong type"),
        (5, "missing field"),
        (7, "undecodable bytes"),
    ]
    assert "5 rows skipped" in warnings_of(seen)
    with pytest.raises(BadData, match=r"rows\.jsonl:2: bad JSON"):
        summarize(trained, file, strict=True)


def test_one_input_without_a_row_does_not_lose_the_others(
    trained: Path, articles: list[str], tmp_path: Path
) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text("", encoding="utf-8")
    seen: list[events.Event] = []
    with events.listening(seen.append):
        rows = summarize(trained, empty, articles[0])
    assert [row["text"] for row in rows] == [articles[0]]
    assert "empty.txt" in warnings_of(seen)
    with pytest.raises(BadData, match=r"empty\.txt"):
        summarize(trained, empty)
    with pytest.raises(BadData, match=r"empty\.txt"):
        summarize(trained, empty, articles[0], strict=True)
    with pytest.raises(BadData, match="no usable input"):
        summarize(trained, empty, empty)


# -- long inputs ----------------------------------------------------------------------------------


@pytest.fixture
def long(trained: Path) -> tuple[str, int]:
    """A text of several windows, and its tokens."""
    text = " ".join(row["article"] for row in nano.pairs(6, seed=8))
    tokenizer = load(trained).tokenizer
    assert tokenizer is not None
    return text, len(tokenizer.encode(text))


def test_long_inputs_are_read_in_windows_to_the_last_token(
    trained: Path, long: tuple[str, int]
) -> None:
    tokenizer = load(trained).tokenizer
    assert tokenizer is not None
    text, _ = long
    spans = text_windows(text, lambda texts: list(map(len, tokenizer.encode_many(texts))), 40)
    parts = [text[start:end] for start, end in spans]
    assert "".join(parts) == text and len(parts) > 2
    [row] = summarize(trained, text)
    alone = [summarize(trained, part)[0] for part in parts]
    assert row["windows"] == len(parts)
    assert row["source_tokens_unread"] == 0
    assert row["summary"] == " ".join(one["summary"] for one in alone)
    assert row["tokens"] == sum(one["tokens"] for one in alone)
    stops = {one["stop"] for one in alone}
    assert row["stop"] == ("length" if "length" in stops else "eos")


def test_long_inputs_can_be_cut_and_what_is_not_read_is_counted(
    trained: Path, long: tuple[str, int]
) -> None:
    text, tokens = long
    [row] = summarize(trained, text, on_long="cut")
    assert (row["windows"], row["source_tokens_unread"]) == (1, tokens - 40)
    [more] = summarize(trained, text, on_long="cut", max_source=50)
    assert more["source_tokens_unread"] == tokens - 50


def test_long_inputs_can_be_refused(trained: Path, long: tuple[str, int]) -> None:
    text, tokens = long
    seen: list[events.Event] = []
    with events.listening(seen.append):
        rows = summarize(trained, text, "Quiet river.", on_long="refuse")
    assert rows[0]["stop"] == "refused" and rows[0]["summary"] == ""
    assert rows[0]["source_tokens_unread"] == tokens
    assert rows[0]["error"] == f"the text has {tokens} tokens and the model reads 40"
    assert rows[1]["summary"] and "error" not in rows[1]
    assert "1 inputs refused: the text has" in warnings_of(seen)
    assert "--on-long split reads long ones in windows" in warnings_of(seen)


def test_the_exit_code_tells_that_no_input_was_answered(
    trained: Path, long: tuple[str, int], capsys: pytest.CaptureFixture[str]
) -> None:
    def code(*texts: str) -> int:
        words = ["run", "summarize", *texts, "--model", str(trained), "--on-long", "refuse"]
        with pytest.raises(SystemExit) as ended:
            cli.main(words)
        assert isinstance(ended.value.code, int)
        return ended.value.code

    assert code(long[0], long[0]) == 2
    assert "all 2 inputs refused: the text has" in capsys.readouterr().err
    assert code(long[0], "Quiet river.") == 0
    assert "! 1 inputs refused: the text has" in capsys.readouterr().err


# -- options --------------------------------------------------------------------------------------


def test_generation_options_are_those_of_generate(trained: Path, articles: list[str]) -> None:
    bundle = load(trained)
    assert bundle.tokenizer is not None
    import torch

    for options in (
        {"max_new_tokens": 5},
        {"num_beams": 3, "length_penalty": 0.5, "max_new_tokens": 9},
        {"no_repeat_ngram_size": 2, "min_new_tokens": 6, "repetition_penalty": 1.3},
        {"do_sample": True, "temperature": 2.0, "top_k": 20, "top_p": 0.9, "seed": 3},
    ):
        [row] = summarize(trained, articles[0], max_source=200, **options)
        ids = torch.tensor([bundle.tokenizer.encode(articles[0])])
        [made] = bundle.generate(ids, **{"max_new_tokens": 12, **options})
        assert row["summary"] == bundle.tokenizer.decode(made.tolist()).strip()


def test_options_without_an_effect_are_said(trained: Path) -> None:
    seen: list[events.Event] = []
    with events.listening(seen.append):
        summarize(trained, "Quiet river.", temperature=0.5, top_k=3)
    assert warnings_of(seen) == "--temperature, --top-k: no effect without --do-sample"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"precision": "bf16"}, "unknown --precision `bf16`; did you mean `bfloat16`"),
        ({"on_long": "spilt"}, "unknown --on-long `spilt`; did you mean `split`"),
        ({"max_source": 3}, "--max-source must be at least 4"),
        ({"num_beams": 0}, "--num-beams must be at least 1, not 0"),
        ({"top_p": 1.5, "do_sample": True}, "--top-p must lie between 0 and 1, not be 1.5"),
    ],
)
def test_values_out_of_range_are_refused(
    trained: Path, options: dict[str, Any], problem: str
) -> None:
    with pytest.raises(BadOption, match=problem):
        summarize(trained, "Quiet river.", **options)


def test_tasks_that_cannot_be_run(trained: Path) -> None:
    with pytest.raises(BadOption, match="unknown task `summarise`; did you mean `summarize`"):
        mainspring.run("summarise", "text", model=str(trained))
    with pytest.raises(BadOption, match="`pretrain` is for training; it has no predictions"):
        mainspring.run("pretrain", "text", model=str(trained))


def test_a_model_without_a_tokenizer_reads_no_text(trained: Path, tmp_path: Path) -> None:
    bundle = load(trained)
    bundle.tokenizer = None
    bundle.save(tmp_path / "bare")
    with pytest.raises(Mismatch, match="no tokenizer, so it cannot read text"):
        summarize(tmp_path / "bare", "text")
