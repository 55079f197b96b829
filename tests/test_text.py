"""Sentences, scripts and words."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring.text import (
    language_of,
    non_ascii_share,
    sentence_texts,
    sentences,
    shorten,
    words,
)

PIECES = st.sampled_from(
    [
        "Dr. Smith left. ",
        "好的。",
        "是的！",
        "\n",
        "\n\n",
        "\r\n",
        " ",
        "a",
        ".",
        "\t",
        "3.5",
        "é",
        "😀",
    ]
)
TEXTS = st.one_of(st.lists(PIECES, max_size=30).map("".join), st.text(max_size=60))


@settings(deadline=None, max_examples=50, derandomize=True)
@given(TEXTS)
def test_sentences_tile_any_text(text: str) -> None:
    spans = sentences(text)
    assert "".join(text[start:end] for start, end in spans) == text
    assert all(start < end for start, end in spans)
    assert all(text[start:end].strip() for start, end in spans) or not text.strip()


def test_blank_lines_at_any_distance_are_kept() -> None:
    """The library drops a paragraph break every ten thousand characters or so."""
    text = "A sentence of some words.\n\n" * 3000
    spans = sentences(text)
    assert "".join(text[start:end] for start, end in spans) == text
    assert len(spans) == 3000


def test_sentences_know_abbreviations_and_chinese() -> None:
    english = "Dr. Smith went to Washington, e.g. by train. He left! Why?"
    assert sentence_texts(english) == [
        "Dr. Smith went to Washington, e.g. by train.",
        "He left!",
        "Why?",
    ]
    assert sentence_texts("我来了。你呢？他走了！") == ["我来了。", "你呢？", "他走了！"]


def test_line_ends_end_a_sentence() -> None:
    assert sentence_texts("one\ntwo\n\n three ") == ["one", "two", "three"]
    assert sentence_texts(" \n ") == []


def test_language_is_told_by_script() -> None:
    assert language_of("Plain English.") == "en"
    assert language_of("这是一个句子。") == "zh"
    assert language_of("これは文です。") == "ja"
    assert language_of("English with one 字 in a long line of words") == "en"
    assert language_of("") == "en"


def test_words_of_any_script() -> None:
    assert words("Größe, naïve don't") == ["größe", "naïve", "don", "t"]
    assert words("我用GPT-4模型") == ["我", "用", "gpt", "4", "模", "型"]
    assert words("हिन्दी भाषा") == ["हिन्दी", "भाषा"]
    assert words("Привет, мир!") == ["привет", "мир"]
    assert words("２０２０年") == ["2020", "年"]
    assert words("_ … !") == []


def test_non_ascii_share() -> None:
    assert non_ascii_share(["abc", "d é"]) == pytest.approx(1 / 5)
    assert non_ascii_share([]) == 0
    assert non_ascii_share(["!?"]) == 0


def test_shorten() -> None:
    assert shorten("abc", 3) == "abc"
    assert shorten("abcd", 3) == "ab…"
