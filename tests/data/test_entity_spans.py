"""Words, tags and spans: each into the other, and what is wrong with them."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring.data.entities import (
    checked_entities,
    join_words,
    parse_tag,
    repair_tags,
    scheme_of,
    spans_to_tags,
    tagged_entities,
    tags_to_spans,
    utf16_places,
)
from mainspring.data.kinds import Flaw, as_spans, as_tags, as_words
from mainspring.text import word_spans

QUICK = settings(max_examples=30, deadline=None, derandomize=True, database=None)

LABELS = st.sampled_from(["PER", "LOC", "a-b", "地点"])
TAGS = st.lists(
    st.one_of(
        st.just("O"),
        LABELS,
        st.builds("{}-{}".format, st.sampled_from("BIESLU"), LABELS),
    )
)
WORD = st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]), min_size=1, max_size=6)


# -- words -----------------------------------------------------------------------------------------


@QUICK
@given(st.lists(WORD))
def test_words_are_where_they_are_said_to_be(words: list[str]) -> None:
    text, spans = join_words(words)
    assert [text[start:end] for start, end in spans] == words
    assert "".join(text.split(" ")) == "".join(words)


def test_chinese_words_stand_together() -> None:
    words = ["我", "用", "iPhone", "15", "去", "New", "York", "，", "2004", "年", "上海"]
    assert join_words(words)[0] == "我用iPhone 15去New York，2004年上海"
    assert join_words(["Angela", "Merkel", "in", "北京", "."])[0] == "Angela Merkel in 北京 ."


def test_the_words_of_a_plain_text() -> None:
    text = "The U.S. paid $3.5, says O'Brien (@o_brien) at https://a.b/c?d=1 – 北京cafe\u0301!"
    assert [text[start:end] for start, end in word_spans(text)] == [
        *("The", "U.S", ".", "paid", "$", "3.5", ",", "says", "O'Brien", "(", "@o_brien", ")"),
        *("at", "https://a.b/c?d=1", "–", "北", "京", "cafe\u0301", "!"),
    ]


# -- tags ------------------------------------------------------------------------------------------


def test_tags_in_their_parts() -> None:
    assert parse_tag("B-PER") == ("B", "PER")
    assert parse_tag("I-a-b") == ("I", "a-b")
    assert parse_tag("O") == ("O", "")
    assert parse_tag("PER") == ("", "PER")
    assert parse_tag("X-PER") == ("", "X-PER")
    assert parse_tag("b-per") == parse_tag("per_b", "behind") == ("B", "per")
    assert (parse_tag("M-PER"), parse_tag("W-PER"), parse_tag("o")) == (
        *(("I", "PER"), ("S", "PER"), ("O", "")),
    )
    assert parse_tag("B-PER", "bare") == ("", "B-PER")


@pytest.mark.parametrize(
    ("tags", "scheme"),
    [
        ("O B-X I-X", "front"),
        ("I-X O", "front"),
        ("o b-x i-x", "front"),
        ("X-B X-I O", "behind"),
        ("x_b y_b x_i", "behind"),
        ("X-B X-I Y", "behind"),
        ("B-X X-I", "front"),
        ("B-X Y Y Y", "bare"),
        ("X Y O", "bare"),
        ("e-mail phone O", "bare"),
        ("vitamin-B vitamin-C O", "bare"),
        ("B I O", "alone"),
        ("P L O", "bare"),
        ("B P O", "bare"),
        ("O o", None),
    ],
)
def test_the_scheme_of_tags(tags: str, scheme: str | None) -> None:
    assert scheme_of(tags.split()) == scheme


SCHEMES = {  # first, inside, last, single; of entities of several words and of one
    "BIO": "BIIB",
    "BIOES": "BIES",
    "BILOU": "BILU",
    "BMES": "BMES",
    "BMEWO": "BMEW",
}


def written(spans, count: int, scheme: str, behind: bool, small: bool) -> list[str]:
    first, inside, last, single = SCHEMES[scheme]
    tags = ["O"] * count
    for label, start, end in spans:
        prefixes = [first, *inside * (end - start - 2), last] if end - start > 1 else [single]
        tags[start:end] = [f"{label}-{p}" if behind else f"{p}-{label}" for p in prefixes]
    return [tag.lower() for tag in tags] if small else tags


@QUICK
@given(
    st.lists(st.tuples(st.sampled_from(["per", "loc", "地点"]), st.integers(1, 4)), min_size=1),
    st.sampled_from(sorted(SCHEMES)),
    st.booleans(),
    st.booleans(),
)
def test_entities_are_the_same_from_tags_of_any_scheme(parts, scheme, behind, small) -> None:
    ends = list(itertools.accumulate(length + 1 for _, length in parts))
    spans = [(n, end - 1 - size, end - 1) for (n, size), end in zip(parts, ends, strict=True)]
    spans = [("one", 0, 1), ("one", 1, 3), *((n, a + 3, b + 3) for n, a, b in spans)]
    tags = written(spans, ends[-1] + 3, scheme, behind, small)
    fixed, repairs = repair_tags(tags, scheme_of(tags))
    assert (tags_to_spans(fixed), repairs) == (spans, [])


def test_entities_without_a_label_have_one_by_default() -> None:
    words = join_words(["APC", "2", "gene", "x"])[1]
    entities, mended = tagged_entities(words, ["B", "I", "O", "B"])
    assert [(e["label"], e["start"], e["end"]) for e in entities] == [
        *(("entity", 0, 5), ("entity", 11, 12)),
    ]
    assert not mended


def test_tags_of_two_schemes_are_refused() -> None:
    words = join_words(["Anna", "Li", "left"])[1]
    for tags, scheme in (
        (["B-PER", "PER-I", "O"], "front"),
        (["PER-B", "B-PER", "O"], "behind"),
        (["B-PER", "PER", "O"], None),
        (["PER", "I-PER", "O"], "bare"),
    ):
        with pytest.raises(Flaw, match="tag of another scheme") as error:
            tagged_entities(words, tags, scheme)
        assert "at word" in error.value.detail


@pytest.mark.parametrize(
    ("tags", "wanted", "repairs"),
    [
        ("O I-X I-X O", "O B-X I-X O", 1),
        ("B-X I-Y I-Y", "B-X B-Y I-Y", 1),
        ("B-X B-X I-X", "B-X B-X I-X", 0),
        ("S-X B-X E-X O U-Y", "B-X B-X I-X O B-Y", 0),
        ("B-X L-X I-X E-X", "B-X I-X B-X I-X", 1),
        ("X X O Y X", "B-X I-X O B-Y B-X", 0),
    ],
)
def test_tags_of_any_scheme_become_bio(tags: str, wanted: str, repairs: int) -> None:
    fixed, repaired = repair_tags(tags.split())
    assert (fixed, len(repaired)) == (wanted.split(), repairs)


@QUICK
@given(TAGS)
def test_what_is_repaired_needs_no_repair(tags: list[str]) -> None:
    fixed, _ = repair_tags(tags)
    assert len(fixed) == len(tags)
    assert repair_tags(fixed) == (fixed, [])
    assert [parse_tag(tag)[1] for tag in fixed] == [parse_tag(tag)[1] for tag in tags]


@QUICK
@given(TAGS)
def test_tags_become_spans_and_tags_again(tags: list[str]) -> None:
    fixed, _ = repair_tags(tags)
    spans = tags_to_spans(fixed)
    assert spans_to_tags(spans, len(tags)) == fixed
    assert all(first < end for _, first, end in spans)
    assert tags_to_spans(spans_to_tags(spans, len(tags))) == spans


def test_words_with_tags_are_entities() -> None:
    text, words = join_words(["Angela", "Merkel", "in", "Paris"])
    entities, mended = tagged_entities(words, ["I-PER", "I-PER", "O", "B-LOC"])
    assert [(text[e["start"] : e["end"]], e["label"]) for e in entities] == [
        ("Angela Merkel", "PER"),
        ("Paris", "LOC"),
    ]
    assert tagged_entities(words, ["S-PER", "S-PER", "I-X", "O"])[1][0].detail.endswith(
        "the first `I-X` at word 3"
    )
    [flaw] = mended
    assert (flaw.reason, flaw.detail) == (
        "tags out of order",
        "1 of 4 tags, the first `I-PER` at word 1",
    )


def test_tags_that_do_not_fit_their_words() -> None:
    words = [(0, 1), (2, 3)]
    with pytest.raises(Flaw, match="tags of wrong length") as error:
        tagged_entities(words, ["O"])
    assert error.value.detail == "2 words and 1 tags"
    with pytest.raises(Flaw, match="tags are numbers"):
        tagged_entities(words, ["0", "3"])


# -- spans -----------------------------------------------------------------------------------------


def test_spans_of_many_tools_are_read() -> None:
    text = "Angela  Merkel in Paris"
    wanted = [{"label": "PER", "start": 0, "end": 14}, {"label": "LOC", "start": 18, "end": 23}]
    for spans in (
        [[0, 14, "PER"], [18, 23, "LOC"]],
        [(18, 23, "LOC"), (0, 14, "PER"), (0, 14, "PER")],
        [
            {"start_offset": 0, "end_offset": 15, "type": "PER"},
            {"start": 17, "end": 23, "tag": "LOC"},
        ],
        '[[0, 14, "PER"], [18, 23, "LOC"]]',
        "[{'start': 0, 'end': 14, 'label': 'PER'}, {'start': 18, 'end': 23, 'label': 'LOC'}]",
    ):
        assert checked_entities(text, as_spans(spans)) == (wanted, [])


EMOJI = "\U0001f600 John Smith lives \U0001f600 in \U0001d4d0 New York"


def in_utf16(text: str, words: str, label: str, *, said: bool = True) -> dict:
    before = text[: text.index(words)].encode("utf-16-le")
    start, end = len(before) // 2, len(before + words.encode("utf-16-le")) // 2
    return {"start": start, "end": end, "label": label} | ({"text": words} if said else {})


def test_places_in_utf16_are_put_right_where_words_tell() -> None:
    john, york = "John Smith", "\U0001d4d0 New York"
    spans = [in_utf16(EMOJI, john, "PER"), in_utf16(EMOJI, york, "LOC", said=False)]
    entities, mended = checked_entities(EMOJI, spans)
    assert [EMOJI[e["start"] : e["end"]] for e in entities] == [john, york]
    assert [flaw.reason for flaw in mended] == ["places in UTF-16 units"]
    at = EMOJI.index(john)
    right = {"start": at, "end": at + len(john), "label": "PER", "text": john}
    assert checked_entities(EMOJI, [right])[1] == []
    with pytest.raises(Flaw) as error:  # one by each way of counting
        checked_entities(EMOJI, [right, in_utf16(EMOJI, york, "LOC")])
    assert "characters" in error.value.detail and "UTF-16" in error.value.detail
    with pytest.raises(Flaw, match="offsets out of range") as error:
        checked_entities("\U0001f600" * 3 + "Bonn", [[6, 10, "LOC"]])
    assert "UTF-16" in error.value.detail


@QUICK
@given(st.lists(st.sampled_from(["Bonn", "\U0001f600", "a\U0001d4d0b", "é", "北"]), min_size=1))
def test_places_in_utf16_and_in_characters_are_the_same_words(words: list[str]) -> None:
    text, spans = join_words(words)
    at = utf16_places(text)
    for word, (start, end) in zip(words, spans, strict=True):
        units = [len(text[:place].encode("utf-16-le")) // 2 for place in (start, end)]
        first, last = (at.get(unit, unit) for unit in units)
        assert (first, last) == (start, end) and text[first:last] == word


@pytest.mark.parametrize(
    ("span", "reason"),
    [
        ([0, 40, "X"], "offsets out of range"),
        ([-3, 2, "X"], "offsets out of range"),
        ([3, 2, "X"], "offsets out of range"),
        ([3, 3, "X"], "empty entity"),
        ([3, 4, "X"], "empty entity"),
        ([0, 2, None], "wrong type"),
        ([0, 2.5, "X"], "wrong type"),
        ([True, 2, "X"], "wrong type"),
        ({"start": 0, "label": "X"}, "wrong type"),
        ([0, 2], "wrong type"),
        ("x", "wrong type"),
    ],
)
def test_spans_that_cannot_be_used(span, reason: str) -> None:
    with pytest.raises(Flaw, match=reason) as error:
        checked_entities("one two three", as_spans([span]))
    assert error.value.detail


def test_of_overlapping_spans_the_longest_stays() -> None:
    text = "Bank of China in China"
    entities, mended = checked_entities(
        text, [[8, 13, "LOC"], [0, 13, "ORG"], [17, 22, "LOC"], [5, 16, "X"]]
    )
    assert [(e["start"], e["end"], e["label"]) for e in entities] == [
        (0, 13, "ORG"),
        (17, 22, "LOC"),
    ]
    assert {flaw.reason for flaw in mended} == {"overlapping entity"}
    assert "`China` LOC 8-13 lies over `Bank of China` ORG 0-13" in mended[1].detail


@QUICK
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 8), LABELS)))
def test_what_stays_never_overlaps_and_nothing_goes_unsaid(spans) -> None:
    text = "x" * 40
    given_ = {(start, start + length, label) for start, length, label in spans}
    entities, mended = checked_entities(text, [list(span) for span in given_])
    assert len(entities) + len(mended) == len(given_)
    assert all(a["end"] <= b["start"] for a, b in itertools.pairwise(entities))


# -- lists in the cells of tables ------------------------------------------------------------------


def test_lists_that_were_written_into_cells() -> None:
    assert as_words("['EU', 'rejects']") == as_words('["EU", "rejects"]') == ["EU", "rejects"]
    assert as_words("[' ', \"'\", '\"']") == [" ", "'", '"']
    assert as_tags("[3, 0]") == ["3", "0"]
    for printed in ("['EU' 'rejects']", "['EU'\n 'rejects' 'a']"):
        with pytest.raises(Flaw) as error:
            as_words(printed)
        assert "without commas" in error.value.detail
    with pytest.raises(Flaw):
        as_tags("[3 0 7]")
