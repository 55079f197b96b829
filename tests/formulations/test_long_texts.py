"""The tokens of long texts are those of one call of the tokenizer."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_tokenizers import SAMPLE, TOKENIZERS

from mainspring.formulations import long_texts
from mainspring.formulations.long_texts import tokens_of

QUICK = settings(max_examples=60, deadline=None, derandomize=True, database=None)
PIECES = (
    *("Merkel", "Paris", "im Januar", "2004", "1,000", ".", "\n", " ", "  ", "\t", "\u3000"),
    *(
        "北京大学在北京",
        "中。",
        "Cafe\u0301",
        "ﬁ",
        "👩\u200d👩\u200d👧",
        "👍🏽",
        "🇩🇪",
        "हिन्दी",
        "นี้",
    ),
    *("a" * 90, "xy" * 60, " " * 150, "\n" * 40, "北" * 150),
)
TEXTS = st.lists(st.sampled_from(PIECES), max_size=120).map("".join)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_texts, "BLOCK", 200)
    monkeypatch.setattr(long_texts, "OVERLAP", 80)
    monkeypatch.setattr(long_texts, "TOGETHER", 300)


def check(texts: list[str], kind: str) -> None:
    whole = TOKENIZERS[kind].offsets_many(texts)
    found = list(tokens_of(texts, TOKENIZERS[kind]))
    for tokens, (ids, places) in zip(found, whole, strict=True):
        assert list(tokens.ids) == ids and tokens.places.shape == (len(ids), 2)
        assert [(start, end) for start, end in tokens.places.tolist()] == places


@pytest.mark.parametrize("kind", TOKENIZERS)
@settings(QUICK)
@given(texts=st.lists(TEXTS, max_size=3))
def test_blocks_leave_no_trace(kind: str, texts: list[str]) -> None:
    check(texts, kind)


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize(
    "text", ["x" * 3000, " " * 3000, "北" * 3000, " ".join(SAMPLE * 20), "\n".join(SAMPLE * 20)]
)
def test_texts_of_one_word_of_blanks_and_of_sentences(kind: str, text: str) -> None:
    check([text, "short", text[:2000]], kind)


def test_no_block_is_larger_than_it_must_be(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, sizes = TOKENIZERS["unigram"], []
    real = tokenizer.offsets_many
    monkeypatch.setattr(
        tokenizer, "offsets_many", lambda texts: sizes.append(sum(map(len, texts))) or real(texts)
    )
    list(tokens_of([" ".join(SAMPLE * 40), *["short text"] * 90], tokenizer))
    assert max(sizes) <= 320 and len(sizes) > 20
