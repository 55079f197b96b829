"""Nested question files, and answers put in their places."""

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring.data.kinds import KINDS, Flaw
from mainspring.data.questions import in_place, questions
from mainspring.data.readers import read_rows
from mainspring.data.rows import Row
from mainspring.data.skipped import SkipLog

CONTEXT = "The earthquake in Sichuan occurred in 2008. In 2008 the games were held."


def unfolded(values: dict[str, Any]) -> list[dict[str, Any]]:
    return [row.values for row in questions(Row(values, "a.json", 3))]


def placed(context: str, answers: Any, **more: Any) -> tuple[list[dict[str, Any]], list[str]]:
    values = in_place({"context": context, "answers": KINDS["answers"](answers), **more})
    return values["answers"], [flaw.reason for flaw in values["mended"]]


# -- nested files ----------------------------------------------------------------------------------


def test_squad_2_gives_one_row_a_question() -> None:
    asked = [
        {"id": "1", "question": "When?", "answers": [{"text": "2008", "answer_start": 38}]},
        {
            "id": "2",
            "question": "Who?",
            "is_impossible": True,
            "answers": [],
            "plausible_answers": [{"text": "Sichuan", "answer_start": 18}],
        },
    ]
    rows = unfolded({"title": "T", "paragraphs": [{"context": CONTEXT, "qas": asked}]})
    assert [row["id"] for row in rows] == ["1", "2"]
    assert all(row["context"] == CONTEXT and row["title"] == "T" for row in rows)
    assert rows[0]["answers"] == [{"text": "2008", "answer_start": 38}]
    assert rows[1]["answers"] == [] and rows[1]["plausible_answers"][0]["text"] == "Sichuan"


def test_the_first_layout_of_cmrc() -> None:
    asked = [{"query_id": "TRIAL_0", "query_text": "何时？", "answers": ["2008年", "2008"]}]
    [row] = unfolded({"context_id": "0", "context_text": "地震发生在2008年。", "qas": asked})
    assert row == {
        "id": "TRIAL_0",
        "context": "地震发生在2008年。",
        "question": "何时？",
        "answers": ["2008年", "2008"],
    }


def test_parts_that_are_broken_become_rows_that_lack_something() -> None:
    paragraphs = ["text", {"context": "c", "qas": None}, {"qas": [{"question": "q"}, 7]}]
    rows = unfolded({"paragraphs": paragraphs})
    assert [(row["context"], row["question"]) for row in rows] == [
        (None, None),
        ("c", None),
        (None, "q"),
        (None, None),
    ]
    [row] = unfolded({"paragraphs": None})
    assert row["context"] is None


def test_a_flat_row_is_one_question() -> None:
    row = {"context": "c", "question": "q", "answer": "c"}
    assert unfolded(row) == [row]
    assert unfolded({**row, "is_impossible": "True"}) == [
        {**row, "answer": [], "is_impossible": "True"}
    ]
    assert unfolded({**row, "is_impossible": "False"})[0]["answer"] == "c"


def test_gzip_and_plain_files_give_the_same(tmp_path: Path) -> None:
    asked = [{"id": str(i), "question": "q", "answers": []} for i in range(3)]
    data = {"version": "v2.0", "data": [{"title": "t", "paragraphs": [{"context": "c"}]}]}
    data["data"][0]["paragraphs"][0]["qas"] = asked  # type: ignore[index]
    plain, packed = tmp_path / "a.json", tmp_path / "b.json.gz"
    plain.write_text(json.dumps(data))
    with gzip.open(packed, "wt") as file:
        json.dump(data, file)
    for path in (plain, packed):
        with SkipLog() as skipped:
            rows = [q.values for row in read_rows(path, skipped) for q in questions(row)]
        assert [row["id"] for row in rows] == ["0", "1", "2"] and not skipped.total


# -- layouts of answers ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"text": ["2008"], "answer_start": [38]}, [("2008", 38)]),
        ({"text": [], "answer_start": []}, []),
        ({"text": "2008", "answer_start": 38}, [("2008", 38)]),
        ([{"text": "2008", "start": 38}, {"text": "Sichuan"}], [("2008", 38), ("Sichuan", None)]),
        (["2008", "Sichuan"], [("2008", None), ("Sichuan", None)]),
        ("2008", [("2008", None)]),
        ('{"text": ["2008"], "answer_start": [38]}', [("2008", 38)]),
        ("{'text': ['2008'], 'answer_start': [38]}", [("2008", 38)]),
        (str({"text": np.array(["2008"], object), "answer_start": np.array([38])}), [("2008", 38)]),
        (str({"text": np.array([], object), "answer_start": np.array([], "int32")}), []),
        (repr([{"text": np.str_("2008"), "answer_start": np.int64(38)}]), [("2008", 38)]),
        ({"text": ["2008"], "answer_start": [38.0]}, [("2008", 38)]),
        ({"text": "2008", "answer_start": 0}, [("2008", 0)]),
        ("[1] as cited", [("[1] as cited", None)]),
        ("{2008}", [("{2008}", None)]),
        ("[2008]", [("[2008]", None)]),
        ([], []),
    ],
)
def test_every_layout_of_answers(value: Any, expected: list[tuple[str, int | None]]) -> None:
    assert [(a["text"], a["start"]) for a in KINDS["answers"](value)] == expected


@pytest.mark.parametrize(
    "value",
    [
        *(None, "", 7, {"text": ["a"], "answer_start": [1, 2]}, [{"text": "a", "start": "x"}]),
        *([{"text": "a", "start": 1.5}], "{'text': ['a', 'answer_start': [1]}", "['a', 'b"),
        "{'text': array(['a' 'b'], dtype=object), 'answer_start': array([1, 2])}",
        "{'text': open('a'), 'answer_start': array([1])}",
    ],
)
def test_answers_that_are_none(value: Any) -> None:
    with pytest.raises(Flaw):
        KINDS["answers"](value)


# -- places ----------------------------------------------------------------------------------------


def test_an_answer_at_its_start_stays() -> None:
    assert placed(CONTEXT, [{"text": "2008", "start": 38}]) == ([{"text": "2008", "start": 38}], [])
    assert placed(CONTEXT, [{"text": " 2008", "start": 37}]) == (
        [{"text": "2008", "start": 38}],
        [],
    )


def test_a_wrong_start_is_repaired_where_there_is_one_place() -> None:
    repaired = ["answer start repaired"]
    assert placed(CONTEXT, [{"text": "Sichuan", "start": 3}]) == (
        [{"text": "Sichuan", "start": 18}],
        repaired,
    )
    far = "2008 " + "x " * 300 + "2008"
    assert placed(far, [{"text": "2008", "start": 610}]) == (
        [{"text": "2008", "start": 605}],
        repaired,
    )


def test_a_wrong_start_with_several_places_is_counted_and_not_learnt() -> None:
    assert placed(CONTEXT, [{"text": "2008", "start": 0}]) == (
        [{"text": "2008", "start": None}],
        ["answer not at its start, and in several places"],
    )
    assert placed(CONTEXT, [{"text": "1999", "start": -4}]) == (
        [{"text": "1999", "start": None}],
        ["answer not in the context"],
    )


def test_answers_without_starts_are_found() -> None:
    assert placed(CONTEXT, ["Sichuan"]) == ([{"text": "Sichuan", "start": 18}], [])
    assert placed(CONTEXT, ["2008"]) == (
        [{"text": "2008", "start": 38}],
        ["answer in several places, the first taken"],
    )
    for start in ("47", "47.0", 47.0):  # as a table writes it that lacks some
        assert placed(CONTEXT, "2008", start=start) == ([{"text": "2008", "start": 47}], [])
    with pytest.raises(Flaw, match="wrong type"):
        placed(CONTEXT, "2008", start="here")


@given(
    st.text(alphabet="ab 中文😀é", max_size=40),
    st.integers(-5, 45),
    st.text("ab中😀", min_size=1, max_size=3),
)
@settings(max_examples=100, deadline=None, derandomize=True, database=None)
def test_a_placed_answer_stands_where_it_says(context: str, start: int, text: str) -> None:
    answers, _ = placed(context, [{"text": text, "start": start}])
    for answer in answers:
        assert answer["start"] is None or context.startswith(answer["text"], answer["start"])
        if answer["start"] is None:
            assert context.count(text) != 1


# -- real files ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "count"),
    [
        ("squad_v1.1/dev-v1.1.json", 10570),
        ("cmrc2018_zh/dev.json", 3219),
        ("drcd_zh/train.json", 2957),
    ],
)
def test_real_files(shared_data: Path, file: str, count: int) -> None:
    read, mended = 0, 0
    with SkipLog() as skipped:
        for row in read_rows(shared_data / "qa" / file, skipped):
            for question in questions(row):
                answers = KINDS["answers"](question.values["answers"])
                values = in_place({**question.values, "answers": answers})
                read += 1
                mended += len(values["mended"])
                assert all(
                    values["context"].startswith(a["text"], a["start"]) for a in values["answers"]
                )
    assert (read, mended, skipped.total) == (count, 0, 0)


def test_a_table_written_by_the_csv_module(tmp_path: Path) -> None:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerows(
        [
            ["context", "question", "answers"],
            [CONTEXT, "When?", {"text": ["2008"], "answer_start": [38]}],
        ]
    )
    file = tmp_path / "a.csv"
    file.write_text(out.getvalue(), encoding="utf-8")
    [row] = read_rows(file, SkipLog())
    assert placed(row.values["context"], row.values["answers"])[0] == [
        {"text": "2008", "start": 38}
    ]
