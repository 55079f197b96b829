"""Splits: as given, or drawn the same way every time."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring.data.splits import row_id, split_rows
from mainspring.errors import BadData, BadOption


def ids_of(texts: list[str], seed: int = 1) -> list[int]:
    return [row_id({"text": text}, seed) for text in texts]


def test_ids_depend_on_content_and_seed_alone() -> None:
    assert row_id({"a": "x", "b": "y"}) == row_id({"b": "y", "a": "x"})
    assert row_id({"a": "x"}) != row_id({"a": "y"})
    assert row_id({"a": "x"}, 1) != row_id({"a": "x"}, 2)
    assert row_id({"text": "stable"}, 42) == 0x9BFB750CEF2F0323


@settings(deadline=None, max_examples=30, derandomize=True)
@given(st.lists(st.sampled_from("abcdefghij"), min_size=2, max_size=60), st.integers(0, 9))
def test_every_row_once_and_twins_together(texts: list[str], seed: int) -> None:
    ids = ids_of(texts, seed)
    if len(set(texts)) < 2:
        with pytest.raises(BadData, match="two different rows"):
            split_rows(ids, seed=seed)
        return
    splits = split_rows(ids, seed=seed)
    assert sorted([*splits.train, *splits.validation]) == list(range(len(texts)))
    train = {texts[row] for row in splits.train}
    validation = {texts[row] for row in splits.validation}
    assert train
    assert validation
    assert not train & validation


def test_sizes() -> None:
    for rows, expected in ((20, 1), (200, 10), (30_000, 500)):
        splits = split_rows(ids_of([str(n) for n in range(rows)]), seed=1)
        assert splits.counts() == {"train": rows - expected, "validation": expected}
    assert len(split_rows(ids_of(list("abcdefghij")), seed=1, share=0.5).validation) == 5
    with pytest.raises(BadOption, match="between 0 and 1"):
        split_rows([1, 2], seed=1, share=1.0)


def test_the_order_of_the_rows_does_not_matter() -> None:
    texts = [str(n) for n in range(500)]
    forth = split_rows(ids_of(texts), seed=1)
    back = split_rows(ids_of(texts[::-1]), seed=1)
    assert {texts[row] for row in forth.validation} == {texts[::-1][row] for row in back.validation}
    other = split_rows(ids_of(texts, seed=2), seed=2)
    assert set(other.validation) != set(forth.validation)


def test_given_splits_are_kept_and_their_overlap_counted() -> None:
    ids = ids_of(["a", "b", "c", "a", "d"])
    splits = split_rows(ids, ["train", None, "test", "validation", "validation"], seed=1)
    assert splits.train.tolist() == [0, 1]
    assert splits.test.tolist() == [2]
    assert splits.validation.tolist() == [3, 4]
    assert (splits.origin, splits.shared) == ("as given", 1)
    # Without a validation split, one is drawn from the training rows.
    drawn = split_rows(ids, ["train", "train", "test", "train", "train"], seed=1)
    assert 2 not in [*drawn.train, *drawn.validation]
    with pytest.raises(BadData, match="no training rows: only test"):
        split_rows(ids, ["test"] * 5, seed=1)


def test_ids_are_saved(tmp_path: Path) -> None:
    ids = ids_of([str(n) for n in range(40)])
    splits = split_rows(ids, seed=7)
    splits.save(tmp_path / "splits.json")
    record = json.loads((tmp_path / "splits.json").read_text())
    assert record["rows"] == {"train": 38, "validation": 2}
    assert [int(i, 16) for i in record["validation"]] == [ids[row] for row in splits.validation]
    assert record["origin"] == "drawn with seed 7"
    assert splits.ids.dtype == np.uint64
