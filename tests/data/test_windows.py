"""Windows over long texts: nothing lost, nothing too long."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring.data.windows import pack, text_windows, token_windows
from mainspring.errors import BadOption

TEXTS = st.lists(
    st.sampled_from(
        ["A short one. ", "Dr. No said so! ", "好的。", "wordwordwordword", "\n\n", " "]
    ),
    max_size=60,
).map("".join)


def characters(texts: Sequence[str]) -> list[int]:
    """A tokenizer that adds one special token and cuts into characters."""
    return [len(text) + 1 for text in texts]


def letters_cost_more_together(texts: Sequence[str]) -> list[int]:
    """Token counts that grow faster than the text, as no tokenizer should but some do a little."""
    return [len(text) + len(text) // 10 for text in texts]


@settings(deadline=None, max_examples=60, derandomize=True)
@given(TEXTS, st.integers(3, 80), st.sampled_from([characters, letters_cost_more_together]))
def test_windows_tile_the_text_and_fit(text: str, limit: int, count) -> None:
    spans = text_windows(text, count, limit)
    assert "".join(text[start:end] for start, end in spans) == text
    assert all(count([text[start:end]])[0] <= limit for start, end in spans)


def test_windows_end_with_sentences() -> None:
    text = "One two three. " * 10
    spans = text_windows(text, characters, 40)
    assert all(text[start:end].endswith(". ") for start, end in spans)
    chinese = "今天天气很好。" * 10
    assert all(chinese[:end].endswith("。") for _, end in text_windows(chinese, characters, 20))


def test_a_long_sentence_is_cut_at_blanks() -> None:
    text = "word " * 50
    spans = text_windows(text, characters, 30)
    assert all(text[start:end].endswith(" ") for start, end in spans)


def test_a_short_text_is_one_window() -> None:
    assert text_windows("Short.", characters, 10) == [(0, 6)]
    assert text_windows("", characters, 10) == []


def test_a_limit_that_holds_nothing() -> None:
    with pytest.raises(BadOption, match="cannot hold the character"):
        text_windows("ab", characters, 1)


def test_groups_are_few_and_even() -> None:
    assert pack([5] * 10, 20) == [(0, 4), (4, 8), (8, 10)]
    assert pack([1] * 11, 10) == [(0, 6), (6, 11)]  # not ten and one
    assert pack([30, 1, 1], 10) == [(0, 1), (1, 3)]
    assert pack([], 10) == []


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.integers(0, 300), st.integers(1, 50), st.lists(st.integers(-5, 320), max_size=20))
def test_token_windows_tile(count: int, limit: int, ends: list[int]) -> None:
    spans = token_windows(count, limit, sorted(ends))
    assert [position for start, end in spans for position in range(start, end)] == list(
        range(count)
    )
    assert all(0 < end - start <= limit for start, end in spans)


def test_token_windows_like_the_ends() -> None:
    assert token_windows(20, 10, [8, 16]) == [(0, 8), (8, 16), (16, 20)]


def test_a_real_play(shared_data: Path) -> None:
    text = (shared_data / "text_generation" / "tiny_shakespeare" / "test.txt").read_text()
    spans = text_windows(text, characters, 2000)
    assert "".join(text[start:end] for start, end in spans) == text
    assert max(end - start for start, end in spans) < 2000
    assert min(end - start for start, end in spans) > 1000
