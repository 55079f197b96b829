"""The log of skipped rows."""

import json
from pathlib import Path

import pytest

from mainspring.data.skipped import RAW_LENGTH, SkipLog
from mainspring.errors import BadData


def test_each_row_becomes_a_line(tmp_path: Path) -> None:
    path = tmp_path / "run" / "skipped.jsonl"
    with SkipLog(path) as skipped:
        assert not path.exists()
        skipped.add("bad JSON", file="a.jsonl", line=3, detail="at column 4", raw="{" * 999)
        skipped.add("empty text", file="a.jsonl", line=9, raw="half \ud83d")
        skipped.add("empty text", file="a.jsonl", line=10)
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [(entry["line"], entry["reason"]) for entry in lines] == [
        (3, "bad JSON"),
        (9, "empty text"),
        (10, "empty text"),
    ]
    assert lines[0]["detail"] == "at column 4"
    assert len(lines[0]["raw"]) == RAW_LENGTH
    assert skipped.total == 3
    assert skipped.summary() == (
        "2 empty text (first: a.jsonl:9); 1 bad JSON (first: a.jsonl:3: at column 4)"
    )


def test_what_was_put_right_is_listed_apart(tmp_path: Path) -> None:
    with SkipLog(tmp_path / "skipped.jsonl", strict=True) as skipped:
        skipped.mend("answer start repaired", file="a.json", line=4, detail="3 → 5")
    [entry] = map(json.loads, (tmp_path / "skipped.jsonl").read_text().splitlines())
    assert entry["used"] and entry["detail"] == "3 → 5"
    assert (skipped.total, skipped.mendings()) == (0, "1 answer start repaired")


def test_an_older_list_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "skipped.jsonl"
    path.write_text("old")
    with SkipLog(path):
        assert not path.exists()


def test_strict_stops_at_the_first(tmp_path: Path) -> None:
    skipped = SkipLog(strict=True)
    with pytest.raises(BadData, match=r"a\.csv:7: ragged row: 2 columns") as caught:
        skipped.add("ragged row", file="a.csv", line=7, detail="2 columns")
    assert caught.value.line == 7
