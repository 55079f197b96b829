from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring.formulations import EncodedRow
from mainspring.training.rows import EncodedRows

lean = settings(max_examples=30, deadline=None, derandomize=True, database=None)

ids = st.lists(st.integers(0, 2**31 - 1), max_size=8)
examples = st.lists(
    st.builds(EncodedRow, ids, ids, st.integers(0, 9), st.integers(0, 9)), max_size=6
)


@lean
@given(examples)
def test_rows_come_back_as_they_were(rows: list[EncodedRow]) -> None:
    kept = EncodedRows(rows)
    assert [kept[number] for number in range(len(kept))] == rows
    counts = [[len(row.source), len(row.target)] for row in rows]
    assert kept.token_counts.tolist() == counts


@lean
@given(examples, examples)
def test_the_hash_tells_rows_apart(first: list[EncodedRow], second: list[EncodedRow]) -> None:
    ours, theirs = ([(r.source, r.target) for r in rows] for rows in (first, second))
    same = EncodedRows(first).hash == EncodedRows(second).hash
    assert same == (ours == theirs)
