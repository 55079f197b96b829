"""Error rates against jiwer's own over whole sets."""

import jiwer
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring.metrics.words import METRIC, normalised

texts = st.lists(st.sampled_from(["the", "cat's", "sat,", "On", "mat"]), min_size=1, max_size=6)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=5))
def test_scores_of_a_set_are_those_of_jiwer(pairs: list[tuple[list[str], list[str]]]) -> None:
    made, wanted = ([" ".join(words) for words in side] for side in zip(*pairs, strict=True))
    scores = METRIC.scores(METRIC.score_rows(made, wanted, ""))
    assert scores["wer_raw"] == pytest.approx(100 * jiwer.wer(wanted, made))
    assert scores["cer_raw"] == pytest.approx(100 * jiwer.cer(wanted, made))
    plain = [[normalised(text) for text in side] for side in (wanted, made)]
    assert scores["wer"] == pytest.approx(100 * jiwer.wer(*plain))
    assert scores["cer"] == pytest.approx(100 * jiwer.cer(*plain))


def test_what_is_not_heard_does_not_count() -> None:
    assert normalised("  Don’t — “Stop”!\n'Tis ½ past TWO…") == "don't stop tis 1 2 past two"
    assert normalised("今天天气。") == "今 天 天 气"
    assert normalised("...") == ""
    scores = METRIC.scores(METRIC.score_rows(["hello WORLD"], ["Hello, world."], ""))
    assert scores == {"wer": 0.0, "cer": 0.0, "wer_raw": 100.0, "cer_raw": pytest.approx(800 / 13)}


def test_nothing_said_and_nothing_written() -> None:
    rows = METRIC.score_rows(["", "", "a b"], ["", "a b c", "…"], "")
    assert [row["wer_edits"] for row in rows] == [0, 3, 2]
    assert METRIC.scores(rows)["wer"] == pytest.approx(500 / 3)
    assert METRIC.scores(rows[:1])["wer"] == 0
    assert METRIC.signature("").startswith("jiwer ")
