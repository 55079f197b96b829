"""Units: where each stands in the text as it was given, and windows that lose none."""

import itertools
import unicodedata
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_tokenizers import SAMPLE, TOKENIZERS

from mainspring.data.entities import join_words
from mainspring.formulations import units as units_module
from mainspring.formulations.units import overlapping_windows, read_units, unit_tags
from mainspring.text import word_spans

QUICK = settings(max_examples=25, deadline=None, derandomize=True, database=None)

ANY = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.lists(
        st.sampled_from(
            (
                "é",
                "é",
                "\u200d",
                "👩\u200d👩\u200d👧",
                "👍🏽",
                "🇩🇪",
                "北京",
                "  ",
                "\t",
                "\n",
                "\u3000",
                "Merkel",
                "Paris",
                "ﬁ",
                "Å",
                "️",
                "ក្",
                "นี้",
                "हिन्दी",
                "１",
                "\xa0",
                ".",
            )
        )
    ).map("".join),
)


@pytest.mark.parametrize("kind", TOKENIZERS)
@QUICK
@given(text=ANY)
def test_units_stand_in_the_text_as_given(kind: str, text: str) -> None:
    for by in ("words", "tokens"):
        [units] = read_units([text], [None], TOKENIZERS[kind], by)
        places = list(zip(units.starts, units.ends, strict=True))
        assert all(0 <= start < end <= len(text) for start, end in places)
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(places))
        assert all(text[start:end].strip() == text[start:end] for start, end in places)
        assert list(units.at) == sorted(set(units.at))
        assert not units.at or units.at[-1] < len(units.ids)
        # A unit never ends between a character and its mark.
        assert not any(
            end < len(text) and unicodedata.category(text[end])[0] == "M"
            for _, end in places
            if by == "tokens"
        )


@pytest.mark.parametrize("kind", TOKENIZERS)
@QUICK
@given(
    words=st.lists(
        st.sampled_from(["Merkel", "北京", "工作", "Cafe\u0301", "👍🏽", "2004", "."]), min_size=1
    )
)
def test_every_word_of_the_data_is_in_a_unit(kind: str, words: list[str]) -> None:
    text, spans = join_words(words)
    [units] = read_units([text], [spans], TOKENIZERS[kind])
    places = list(zip(units.starts, units.ends, strict=True))
    assert all(any(a <= start and end <= b for a, b in places) for start, end in spans)
    if kind != "byte-bpe":  # which may write a character of one word and one of another as one
        assert places == spans


def test_a_word_is_read_at_its_first_token() -> None:
    [units] = read_units(["Merkel  in\tParis!"], [None], TOKENIZERS["wordpiece"], "words")
    tokens = TOKENIZERS["wordpiece"].tokens(units.ids)
    assert [tokens[at] for at in units.at] == ["merk", "i", "paris", "[UNK]"]
    assert list(zip(units.starts, units.ends, strict=True)) == [(0, 6), (8, 10), (11, 16), (16, 17)]


def test_blanks_at_the_ends_of_a_token_are_in_no_unit() -> None:
    class Blanks:
        """A tokenizer whose tokens hold the blanks before and after them."""

        def offsets_many(self, texts: list[str]) -> list[tuple[list[int], list[tuple[int, int]]]]:
            return [([5, 6, 7], [(0, 9), (9, 11), (11, 18)]) for _ in texts]

    [units] = read_units([" Merkel  \t spoke\n "], [None], cast(Any, Blanks()))
    assert list(zip(units.starts, units.ends, units.at, strict=True)) == [(1, 7, 0), (11, 16, 2)]


def test_words_without_a_token_are_in_no_unit() -> None:
    [units] = read_units(["a\u200b b"], [[(0, 1), (1, 2), (3, 4)]], TOKENIZERS["wordpiece"])
    assert list(zip(units.starts, units.ends, strict=True)) == [(0, 1), (3, 4)]


def test_tags_of_units() -> None:
    text = "Angela Merkel in Paris"
    [units] = read_units([text], [None], TOKENIZERS["wordpiece"], "words")
    person = {"label": "PER", "start": 0, "end": 13}
    paris = {"label": "LOC", "start": 17, "end": 22}
    assert unit_tags(units, [person, paris]) == (["B-PER", "I-PER", "O", "B-LOC"], 0)
    assert unit_tags(units, [{**paris, "end": 20}]) == (["O", "O", "O", "B-LOC"], 1)
    assert unit_tags(units, []) == (["O"] * 4, 0)


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_a_long_text_is_cut_into_parts_without_a_trace(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The units of a text that goes to the tokenizer in parts are those of the whole."""
    text = "\n".join(SAMPLE[:1] * 40)
    [whole] = read_units([text], [None], TOKENIZERS[kind], "words")
    monkeypatch.setattr(units_module, "BLOCK", 200)
    [parts] = read_units([text], [None], TOKENIZERS[kind], "words")
    assert (parts.starts, parts.ends) == (whole.starts, whole.ends)
    assert list(zip(parts.starts, parts.ends, strict=True)) == list(word_spans(text))


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(st.integers(0, 400), st.integers(1, 50), st.integers(0, 25))
def test_windows_lose_nothing(count: int, size: int, overlap: int) -> None:
    overlap = min(overlap, size // 2)
    windows = list(overlapping_windows(count, size, overlap))
    assert windows[0].own_start == windows[0].start == 0
    assert windows[-1].own_end == windows[-1].end == count
    assert all(w.start <= w.own_start <= w.own_end <= w.end <= w.start + size for w in windows)
    for a, b in itertools.pairwise(windows):
        assert a.own_end == b.own_start
        assert a.end - b.start >= overlap
        assert min(a.end - a.own_end, b.own_start - b.start) >= overlap // 2
    # One window less could not hold them all, with what neighbours have in common.
    fewer = len(windows) - 1
    assert fewer * size - (fewer - 1) * overlap < count or not fewer
