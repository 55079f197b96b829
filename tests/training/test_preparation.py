from pathlib import Path

import numpy as np
import pytest

import nano
from mainspring import events
from mainspring.data.skipped import SkipLog
from mainspring.data.splits import row_id
from mainspring.errors import BadData
from mainspring.formulations import Limits, Setup
from mainspring.tasks.pretrain import TASK as PRETRAIN
from mainspring.tasks.summarize import TASK as SUMMARIZE
from mainspring.training.preparation import (
    DataSet,
    encode_rows,
    open_data,
    training_texts,
)


def opened(path: Path, *, valid: Path | None = None, seed: int = 1, **named: str) -> DataSet:
    with SkipLog() as skipped:
        return open_data(SUMMARIZE, path, valid=valid, named=named, seed=seed, skipped=skipped)


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return nano.write_jsonl(nano.pairs(40), tmp_path / "pairs.jsonl")


def test_rows_are_split_by_what_they_say(pairs: Path, tmp_path: Path) -> None:
    data = opened(pairs)
    assert [columns for _, columns in data.matched] == [{"text": "article", "target": "summary"}]
    train, valid = set(data.splits.train.tolist()), set(data.splits.validation.tolist())
    assert len(valid) == 2 and train | valid == set(range(40)) and not train & valid
    rows = nano.read_jsonl(pairs)
    shuffled = nano.write_jsonl(reversed(rows), tmp_path / "shuffled.jsonl")
    again = opened(shuffled)
    assert {39 - n for n in again.splits.validation.tolist()} == valid
    assert set(opened(pairs, seed=2).splits.validation.tolist()) != valid
    values = {"text": rows[0]["article"], "target": rows[0]["summary"]}
    assert int(data.splits.ids[0]) == row_id(values, 1)


def test_texts_come_in_the_order_of_the_data(pairs: Path) -> None:
    data, rows = opened(pairs), nano.read_jsonl(pairs)
    chosen = list(data.rows(np.array([7, 3, 21])))
    assert [row["text"] for row in chosen] == [rows[n]["article"] for n in (3, 7, 21)]
    assert [row["target"] for row in chosen] == [rows[n]["summary"] for n in (3, 7, 21)]
    learnt = list(training_texts(data))
    train = data.splits.train.tolist()
    assert sorted(learnt) == sorted(rows[n][c] for n in train for c in ("article", "summary"))


def test_broken_rows_are_counted_and_stay_out(tmp_path: Path) -> None:
    rows = nano.pairs(10)
    rows[4]["summary"] = ""
    path = nano.write_jsonl(rows, tmp_path / "pairs.jsonl")
    data = opened(path)
    assert data.skipped == {"empty text": 1}
    assert len(data.splits.ids) == 9
    assert [values["text"] for values in data.values()] == [
        row["article"] for row in rows if row["summary"]
    ]


def test_given_splits_are_kept_and_test_rows_left_alone(tmp_path: Path) -> None:
    for name, seed, count in (("train", 0, 12), ("valid", 1, 5), ("test", 2, 7)):
        nano.write_jsonl(nano.pairs(count, seed=seed), tmp_path / f"{name}.jsonl")
    data = opened(tmp_path)
    assert data.splits.counts() == {"train": 12, "validation": 5}
    assert data.splits.origin == "as given"
    other = nano.write_jsonl(nano.pairs(4, seed=3), tmp_path.parent / "other.jsonl")
    data = opened(tmp_path, valid=other)
    assert data.splits.counts() == {"train": 12, "validation": 4}
    assert [source.split for source, _ in data.sources] == ["train", None]


def test_only_a_test_split_is_trained_on_rather_than_nothing(tmp_path: Path) -> None:
    nano.write_jsonl(nano.pairs(12), tmp_path / "test.jsonl")
    with pytest.raises(BadData, match="no training rows: only test"):
        opened(tmp_path)


def test_encoded_rows_are_those_of_the_formulation(pairs: Path) -> None:
    data, tokenizer = opened(pairs), nano.tokenizer()
    seen: list[events.Event] = []
    form, setup = SUMMARIZE.formulations[0], Setup(Limits(12, 6), "early ")
    train = data.splits.train
    with events.listening(seen.append):
        rows = encode_rows(data, train, form, tokenizer, setup, "encoding")
    expected = form.encode(list(data.rows(train)), tokenizer, setup)
    assert [rows[n] for n in range(len(rows))] == expected
    assert seen == [events.Progress("encoding", len(train), len(train), "rows")]


def test_plain_text_is_read_in_pieces_without_loss(tmp_path: Path) -> None:
    text = "\n".join(row["article"] for row in nano.pairs(300))
    path = tmp_path / "text.txt"
    path.write_text(text, encoding="utf-8")
    with SkipLog() as skipped:
        data = open_data(PRETRAIN, path, valid=None, named={}, seed=1, skipped=skipped)
    pieces = [values["text"] for values in data.values()]
    assert len(pieces) > 1 and "".join(pieces) == text
    assert set(next(data.values())) == {"text"}
