"""Passages: nothing lost but blanks, and every place exact."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring.graph.passages import PARAGRAPHS, passages


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.text(st.sampled_from("ab .!?\n\t 。居里😀\u0301"), max_size=400), st.integers(40, 120))
def test_between_passages_there_are_blanks_only(text: str, limit: int) -> None:
    spans = passages(text, limit)
    ends = [0, *itertools.chain.from_iterable(spans), len(text)]
    assert ends == sorted(ends)
    assert all(not text[a:b].strip() for a, b in zip(ends[::2], ends[1::2], strict=True))
    assert all(text[a:b].strip() == text[a:b] and 0 < b - a <= limit for a, b in spans)


def test_sentences_are_kept_whole() -> None:
    text = "One sentence is here. " * 20
    pieces = [text[a:b] for a, b in passages(text, 100)]
    assert all(piece.endswith("here.") and piece.startswith("One") for piece in pieces)


def test_a_long_text_without_a_sentence_end_is_cut_at_blanks() -> None:
    text = "word " * (3 * PARAGRAPHS // 5)
    pieces = [text[a:b] for a, b in passages(text, 600)]
    assert " ".join(pieces) == text.strip() and max(map(len, pieces)) <= 600
