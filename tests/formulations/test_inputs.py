"""Rows are cut and taken a few at a time; none is lost or turned around."""

from collections.abc import Iterator
from itertools import chain, pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring.formulations.inputs import common_end, cut_before_end, in_chunks


def test_a_full_chunk_does_not_wait_for_the_next_item() -> None:
    asked = 0

    def items() -> Iterator[int]:
        nonlocal asked
        while asked < 9:
            asked += 1
            yield asked

    chunks = in_chunks(items(), 3, length=lambda item: 1, total=100)
    assert next(chunks) == [1, 2, 3] and asked == 3
    assert list(chunks) == [[4, 5, 6], [7, 8, 9]]
    assert list(in_chunks("abcd", 3)) == [["a", "b", "c"], ["d"]]
    assert list(in_chunks((), 3)) == []


@given(st.lists(st.text("ab", max_size=12), max_size=30), st.integers(1, 6), st.integers(0, 20))
@settings(deadline=None, max_examples=50, derandomize=True)
def test_chunks_are_as_long_as_both_bounds_allow(texts: list[str], size: int, total: int) -> None:
    chunks = list(in_chunks(texts, size, length=len, total=total))
    assert list(chain.from_iterable(chunks)) == texts
    for chunk in chunks:
        assert len(chunk) <= size
        assert len(chunk) == 1 or sum(map(len, chunk)) <= total
    for chunk, after in pairwise(chunks):
        assert len(chunk) == size or sum(map(len, [*chunk, after[0]])) > total


@given(
    st.lists(st.integers(0, 2), max_size=12),
    st.lists(st.lists(st.integers(0, 2), max_size=12), max_size=2),
)
@settings(deadline=None, max_examples=50, derandomize=True)
def test_rows_end_alike(first: list[int], others: list[list[int]]) -> None:
    rows = [first, *others]
    same = common_end(*rows)
    ends = [row[len(row) - same :] for row in rows]
    assert all(end == ends[0] for end in ends)
    longer = [row[len(row) - same - 1] for row in rows if len(row) > same]
    assert len(longer) < len(rows) or len(set(longer)) > 1


@given(st.integers(0, 20), st.integers(1, 20), st.integers(0, 30))
@settings(deadline=None, max_examples=100, derandomize=True)
def test_what_stands_behind_a_text_is_kept(count: int, limit: int, behind: int) -> None:
    ids = list(range(count))
    read, lost = cut_before_end(ids, limit, min(behind, count))
    assert len(read) == min(count, limit) == count - lost
    kept = min(behind, count, limit - 1) if lost else count
    assert read[len(read) - kept :] == ids[count - kept :]
    assert read[: len(read) - kept] == ids[: len(read) - kept]
