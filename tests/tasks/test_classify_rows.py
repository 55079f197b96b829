"""Which columns `classify` reads as its texts and its label, and which labels are none."""

import json
from pathlib import Path

import pytest

from mainspring import events
from mainspring.data.readers import sources
from mainspring.data.skipped import SkipLog
from mainspring.tasks.classify import TASK
from mainspring.tasks.reading import by_columns, checked, match

LONG, OTHER = "a river and a bridge", "the bridge over the river"


def write(rows: list[dict], folder: Path) -> Path:
    file = folder / "data.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    return file


def read(file: Path, **named: str) -> tuple[list[dict], SkipLog, list[str]]:
    seen: list[events.Event] = []
    with events.listening(seen.append), SkipLog() as skipped:
        [source] = sources(file)
        task, _ = by_columns(TASK, {}, source, named)
        matched = match(task, source, named)
        rows = [example.values for example in checked(task, source, matched, skipped, {})]
    return rows, skipped, [event.text for event in seen if isinstance(event, events.Note)]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("question", "sentence"),  # QNLI
        ("question1", "question2"),  # QQP
        ("sentence1", "sentence2"),  # MRPC, RTE, STS-B, WNLI, PAWS
        ("premise", "hypothesis"),  # SNLI, MNLI, XNLI
        ("question", "passage"),  # BoolQ
        ("Premise", "Hypothesis"),
    ],
)
def test_both_texts_of_a_pair_are_read(first: str, second: str, tmp_path: Path) -> None:
    data = write([{second: OTHER, first: LONG, "label": 1}], tmp_path)
    assert read(data)[0] == [{"text": LONG, "second": OTHER, "label": "1"}]


def test_a_named_column_is_read_by_itself_and_the_other_is_told(tmp_path: Path) -> None:
    data = write([{"question": OTHER, "sentence": LONG, "label": 1}], tmp_path)
    rows, _, notes = read(data, text="sentence")
    assert rows == [{"text": LONG, "label": "1"}]
    assert any(note.startswith("left unread: `question`") for note in notes)


def test_texts_that_are_left_unread_are_told(tmp_path: Path) -> None:
    row = {"title": LONG, "description": OTHER, "source": "web", "words": 7, "label": 2}
    rows, _, notes = read(write([row], tmp_path))
    assert rows == [{"text": LONG, "label": "2"}]
    assert notes == [
        "left unread: `description`; name the texts that count with --text and --columns.second"
    ]
    named = {"text": "title", "second": "description"}
    rows, _, notes = read(tmp_path / "data.jsonl", **named)
    assert rows == [{"text": LONG, "second": OTHER, "label": "2"}] and not notes


@pytest.mark.parametrize(
    ("row", "unlabelled"),
    [
        ({"premise": LONG, "hypothesis": OTHER}, -1),  # SNLI of the datasets library
        ({"sentence1": LONG, "sentence2": OTHER}, "-"),  # as it was published
        ({"sentence": LONG, "idx": 3}, -1),  # the tests of GLUE
    ],
)
def test_rows_without_a_gold_label_are_counted(row: dict, unlabelled: object, tmp_path) -> None:
    column = "gold_label" if unlabelled == "-" else "label"
    data = write([{**row, column: unlabelled}, {**row, column: 2}], tmp_path)
    rows, skipped, _ = read(data)
    assert [row["label"] for row in rows] == ["2"]
    assert skipped.counts == {"no gold label": 1} and f"{data}:1" in skipped.summary()


def test_minus_one_is_a_label_like_others_elsewhere(tmp_path: Path) -> None:
    data = write([{"text": LONG, "label": label} for label in (-1, 0, 1)], tmp_path)
    assert [row["label"] for row in read(data)[0]] == ["-1", "0", "1"]


def test_labels_of_tables_with_gaps(tmp_path: Path) -> None:
    """Where a label is missing pandas writes whole numbers as 1.0 and the gap as nothing or nan."""
    data = tmp_path / "data.csv"
    data.write_text("text,label\na,1.0\nb,1\nc,\nd,nan\ne,NaN\nf,2.0\ng,1.5\nh,007\ni,v1.0\n")
    rows, skipped, _ = read(data)
    assert [row["label"] for row in rows] == ["1", "1", "2", "1.5", "007", "v1.0"]
    assert skipped.counts == {"missing field": 2, "empty label": 1}
    gaps = write([{"text": "a", "label": label} for label in (float("nan"), None, 1.0)], tmp_path)
    rows, skipped, _ = read(gaps)
    assert [row["label"] for row in rows] == ["1"] and skipped.counts == {"missing field": 2}


def test_yes_and_no_are_the_same_labels_in_every_format(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": True}, {"text": "b", "label": False}]
    table = tmp_path / "data.csv"
    table.write_text("text,label\n" + "".join(f"{r['text']},{r['label']}\n" for r in rows))
    for data in (table, write(rows, tmp_path)):
        assert [row["label"] for row in read(data)[0]] == ["True", "False"]


def test_numbers_and_dates_are_the_same_labels_in_every_format(tmp_path: Path) -> None:
    import datetime
    from decimal import Decimal

    import pyarrow as pa
    import pyarrow.parquet

    numbers = [4.5, -0.25, 4.1, 2.0, 1e-7]
    names = ["4.5", "-0.25", "4.1", "2", "1e-07"]
    data = write([{"text": LONG, "label": number} for number in numbers], tmp_path)
    assert [row["label"] for row in read(data)[0]] == names
    several = write([{"text": LONG, "labels": numbers}, {"text": LONG, "labels": 4.5}], tmp_path)
    assert [row["label"] for row in read(several)[0]] == [names, ["4.5"]]
    (tmp_path / "data.csv").write_text("text,label\n" + "".join(f"a,{n}\n" for n in numbers))
    assert [row["label"] for row in read(tmp_path / "data.csv")[0]] == names
    days = [datetime.date(2020, 1, 2), datetime.date(2021, 1, 2)]
    noon = datetime.datetime(2020, 1, 2, 12, 30)
    for labels, kind, wanted in (
        (numbers, pa.float64(), names),
        (numbers, pa.float32(), names),
        (days, pa.date32(), ["2020-01-02", "2021-01-02"]),
        (
            [datetime.datetime(d.year, 1, 2) for d in days],
            pa.timestamp("us"),
            ["2020-01-02", "2021-01-02"],
        ),
        ([noon], pa.timestamp("ms"), ["2020-01-02 12:30:00"]),
        ([Decimal("4.50"), Decimal("3.00")], pa.decimal128(5, 2), ["4.5", "3"]),
    ):
        table = pa.table({"text": [LONG] * len(labels), "label": pa.array(labels, kind)})
        pa.parquet.write_table(table, tmp_path / "data.parquet")
        assert [row["label"] for row in read(tmp_path / "data.parquet")[0]] == wanted


def test_sets_and_tuples_in_cells_are_several_labels(tmp_path: Path) -> None:
    cells = ["['x', 'y']", "('x', 'y')", "{'x', 'y'}", "frozenset({'x', 'y'})", "x|y", "set()"]
    names = ["(other)", "{odd", "('a')", "('x', 1.5)"]
    data = tmp_path / "data.csv"
    data.write_text("text,labels\n" + "".join(f'a,"{cell}"\n' for cell in [*cells, *names]))
    rows, skipped, _ = read(data)
    wanted = [["x", "y"]] * 5 + [[], ["(other)"], ["{odd"], ["('a')"], ["x", "1.5"]]
    assert [sorted(row["label"]) for row in rows] == [sorted(labels) for labels in wanted]
    assert not skipped.total


def test_lists_in_the_column_of_the_label_are_several_labels(tmp_path: Path) -> None:
    lists = [["x", "y"], [], ["y"], None]
    file = write([{"text": LONG, "label": labels} for labels in lists], tmp_path)
    for named in ({}, {"label": "label"}, {"labels": "label"}):
        rows, skipped, _ = read(file, **named)
        assert [row["label"] for row in rows] == lists[:3]
        assert skipped.counts == {"missing field": 1}
    (tmp_path / "data.csv").write_text("text,label\na,\"['x', 'y']\"\nb,['y']\n")
    assert [row["label"] for row in read(tmp_path / "data.csv")[0]] == [["x", "y"], ["y"]]
    mixed = write([{"text": LONG, "label": label} for label in ("[sic]", ["x"], "z")], tmp_path)
    said: list[events.Event] = []
    with events.listening(said.append):
        rows, skipped, _ = read(mixed)
        assert [row["label"] for row in rows] == ["[sic]", "z"]
        match(TASK, sources(mixed)[0], {})
    assert any("--columns.labels label reads" in str(event) for event in said)


def test_texts_in_folders_of_their_classes(tmp_path: Path) -> None:
    for label in ("pos", "neg"):
        (tmp_path / "train" / label).mkdir(parents=True)
        (tmp_path / "train" / label / "0_1.txt").write_text(f"so {label}\n")
    rows, skipped, _ = read(tmp_path)
    assert rows == [{"text": f"so {label}\n", "label": label} for label in ("neg", "pos")]
    assert not skipped.total


def test_missing_ones_of_several_labels(tmp_path: Path) -> None:
    labels = ("1.0|2", "nan", "", float("nan"))
    rows, skipped, _ = read(write([{"text": LONG, "labels": given} for given in labels], tmp_path))
    assert [row["label"] for row in rows] == [["1", "2"], []]
    assert skipped.counts == {"missing field": 2}
