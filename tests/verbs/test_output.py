import json

from hypothesis import given
from hypothesis import strategies as st

from mainspring.verbs.output import holds, joined

NAMES = st.sampled_from(("text", "score", "input_score", "input_input_score", "tokens"))
ROWS = st.dictionaries(NAMES, st.integers() | st.text(max_size=3) | st.just(float("nan")))


@given(ROWS, ROWS)
def test_no_column_is_lost_where_names_are_the_same(row: dict, added: dict) -> None:
    made = joined(row, added)
    assert len(made) == len(row) + len(added)
    assert {name: made[name] for name in added} == added
    assert [str(value) for value in [*row.values(), *added.values()]] == list(
        map(str, made.values())
    )


@given(ROWS, ROWS)
def test_what_was_written_is_known_again(row: dict, added: dict) -> None:
    written = json.loads(json.dumps(joined(row, added)))
    assert holds(written, row)
    assert not holds(written, {**row, "id": "another"})


def test_another_row_is_told_apart() -> None:
    written = joined({"text": "a", "score": 1}, {"score": 0.5})
    assert written == {"text": "a", "input_score": 1, "score": 0.5}
    assert not holds(written, {"text": "a", "score": 2}) and not holds(written, {"text": "b"})
