"""Columns matched to fields, and rows checked against them."""

import pytest

from mainspring import events
from mainspring.data.rows import UNDECODABLE, Row
from mainspring.data.schema import Field, examples, match_columns
from mainspring.data.skipped import SkipLog
from mainspring.errors import BadData, BadOption

TEXT = Field("text", "text", ("text", "article", "document"), "what is read")
TARGET = Field("target", "text", ("summary", "highlights", "title"), "what is learnt")
TITLE = Field("title", "text", ("headline",), "a title", required=False)


def test_accepted_names_whatever_their_case() -> None:
    matched = match_columns([TEXT, TARGET], ["id", "Article", "HIGHLIGHTS"])
    assert matched == {"text": "Article", "target": "HIGHLIGHTS"}


def test_the_best_known_name_wins_and_others_are_mentioned() -> None:
    said: list[events.Event] = []
    with events.listening(said.append):
        matched = match_columns([TEXT, TARGET], ["title", "document", "summary"])
    assert matched == {"text": "document", "target": "summary"}
    assert said == [
        events.Note("column `summary` is taken as target; use --target for `title` instead")
    ]


def test_a_named_column_wins() -> None:
    columns = ["text", "summary", "body", "short"]
    assert match_columns([TEXT, TARGET], columns, {"text": "body", "target": "short"}) == {
        "text": "body",
        "target": "short",
    }
    # A column named for one field is not free for another.
    with pytest.raises(BadData, match="no column for the target"):
        match_columns([TEXT, TARGET], ["title", "other"], {"text": "title"})


def test_a_missing_column_is_explained() -> None:
    with pytest.raises(BadData) as caught:
        match_columns([TEXT, TARGET], ["text", "sumary", "id"], file="news.csv")
    assert str(caught.value) == (
        "news.csv: no column for the target: the columns are `text`, `sumary`, `id`, the accepted "
        "names `summary`, `highlights`, `title`; is it `sumary`? Then add --target sumary"
    )


def test_a_named_column_that_is_not_there() -> None:
    with pytest.raises(BadOption, match=r"--text: unknown column `boddy`; did you mean `body`\?"):
        match_columns([TEXT], ["body", "id"], {"text": "boddy"})
    with pytest.raises(BadOption, match="unknown field `txt`; did you mean `text`"):
        match_columns([TEXT], ["text"], {"txt": "text"})


def test_columns_that_cannot_be_told_apart() -> None:
    with pytest.raises(BadData, match="`Text`, `TEXT` both look like `text`"):
        match_columns([TEXT], ["Text", "TEXT"])
    assert match_columns([TEXT], ["Text", "text"]) == {"text": "text"}
    with pytest.raises(BadOption, match="cannot be both `text` and `target`"):
        match_columns([TEXT, TARGET], ["a"], {"text": "a", "target": "a"})


def test_a_field_that_is_not_required_may_be_missing() -> None:
    assert match_columns([TEXT, TITLE], ["text"]) == {"text": "text"}
    rows = [Row({"text": "x", "headline": None}, "f", 1), Row({"text": "y"}, "f", 2)]
    found = list(
        examples(rows, [TEXT, TITLE], {"text": "text", "title": "headline"}, SkipLog(strict=True))
    )
    assert [example.values for example in found] == [{"text": "x"}, {"text": "y"}]


def test_unusable_rows_are_counted_by_reason() -> None:
    bad = [None, " \n", 7, ["a"], "a\0b", f"a{UNDECODABLE}", "\ud83d"]
    rows = [Row({"text": value}, "f.jsonl", n) for n, value in enumerate([*bad, " fine "], 1)]
    skipped = SkipLog()
    found = list(examples([*rows, Row({}, "f.jsonl", 9)], [TEXT], {"text": "text"}, skipped))
    assert [example.values["text"] for example in found] == [" fine "]
    assert found[0].row.line == 8
    assert skipped.counts == {
        "missing field": 2,
        "empty text": 1,
        "wrong type": 2,
        "NUL characters": 1,
        "undecodable bytes": 1,
        "half of a surrogate pair": 1,
    }


def test_no_usable_row_at_all() -> None:
    rows = [Row({"text": ""}, "f.csv", 2), Row({"text": " "}, "f.csv", 3)]
    with pytest.raises(BadData, match=r"f.csv: no usable row: 2 empty text \(first: f.csv:2"):
        list(examples(rows, [TEXT], {"text": "text"}, SkipLog()))
