"""Pairs of entities marked in a text and classified."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_encoders import encoder, shaken, tokenizer

from mainspring import events
from mainspring.checkpoints.growing import with_tokens
from mainspring.checkpoints.heads import with_head
from mainspring.data.relations import relation_values
from mainspring.errors import BadData, BadOption
from mainspring.formulations import Inference, Limits, Setup, classification
from mainspring.formulations import relation_pairs as form
from mainspring.training.rows import EncodedRows

lean = settings(max_examples=30, deadline=None, derandomize=True, database=None)

ROWS = [
    relation_values(dict(row))
    for row in (
        {"text": "<e1>film</e1> was <e2>food</e2>", "relations": "eats(e1,e2)"},
        {"text": "The <e2>room</e2> <e1>today</e1>.", "relations": "eats(e2,e1)"},
        {"text": "<e1>film</e1>, <e2>room</e2>", "relations": "Other"},
        {
            "text": "film room food",
            "entities": [
                {"start": 0, "end": 4, "label": "ART"},
                {"start": 5, "end": 9, "label": "PLACE"},
                {"start": 10, "end": 14},
            ],
            "relations": [
                {"head": 0, "tail": 1, "type": "in"},
                {"head": 0, "tail": 1, "type": "x"},
            ],
        },
    )
]
LABELS = ("eats(e1,e2)", "eats(e2,e1)", "in", "no_relation")
OPTIONS = {"types": ["ART", "PLACE"], "problem_type": classification.ONE}
SETUP = Setup(Limits(40, 2), labels=LABELS, options=OPTIONS)


def bundle():
    return shaken(with_tokens(encoder(LABELS), form.tokens(SETUP), 0), 0.2)


# -- marking -----------------------------------------------------------------------------------


def test_markers_stand_around_head_and_tail_and_tell_their_types() -> None:
    film, room, food = (ROWS[3]["pairs"][at][0] for at in (0, 2, 4))
    types = ("ART", "PLACE")
    assert (
        form.marked("film room food", (film, room), types)
        == "[E1:ART]film[/E1:ART][E2:PLACE] room[/E2:PLACE] food"
    )
    assert (
        form.marked("film room food", (food, film), types)
        == "[E2:ART]film[/E2:ART] room[E1] food[/E1]"
    )
    assert form.marked("film room food", (film, food), ()) == "[E1]film[/E1] room[E2] food[/E2]"


@lean
@given(st.text("ab 东🙂", max_size=6), st.text("ab 东🙂", max_size=6), st.booleans())
def test_what_is_left_without_the_markers_is_the_text(before: str, between: str, turned) -> None:
    text = f"{before}x🙂{between}y!"
    x = {"text": "x🙂", "start": len(before), "end": len(before) + 2, "label": "A"}
    y = {"text": "y", "start": len(text) - 2, "end": len(text) - 1, "label": ""}
    found = form.marked(text, (y, x) if turned else (x, y), ["A"])
    for mark in form.tokens(replace(SETUP, options={"types": ["A"]})):
        found = found.replace(mark, "")
    assert found == text


def test_markers_are_one_token_each_and_words_are_cut_as_before() -> None:
    words = bundle().tokenizer
    text = "The film was good"
    film = {"text": "film", "start": 4, "end": 8, "label": ""}
    good = {"text": "good", "start": 13, "end": 17, "label": ""}
    marks = {words.id_of(token) for token in form.tokens(SETUP)}
    assert None not in marks and len(marks) == 12
    ids = words.encode(form.marked(text, (film, good), ()))
    assert len([token for token in ids if token in marks]) == 4
    assert [token for token in ids if token not in marks] == words.encode(text)


# -- learning ----------------------------------------------------------------------------------


def test_labels_and_types_are_learnt() -> None:
    setup = form.learn(ROWS, Setup(Limits(40, 2)))
    assert setup.labels == LABELS
    assert setup.options["types"] == ["ART", "PLACE"]
    assert setup.options["counts"] == {
        "eats(e1,e2)": 1,
        "eats(e2,e1)": 1,
        "in": 1,  # the first of two relations of one pair
        "no_relation": 6,
    }
    with pytest.raises(BadData, match="pairs of entities"):
        form.learn([{"text": "a", "relations": []}], Setup(Limits(40, 2)))


def test_without_pairs_that_have_no_relation_it_is_said_what_comes_of_it() -> None:
    rows = [
        relation_values({"text": f"<e1>{a}</e1> {verb} <e2>{b}</e2>", "relations": verb})
        for a, verb, b in (("cat", "eats", "mouse"), ("dog", "sees", "bone"))
    ]
    heard: list[object] = []
    with events.listening(heard.append):
        setup = form.learn(rows, Setup(Limits(40, 2)))
    assert form.finds_everywhere(setup)
    assert any("one between any two" in str(event) for event in heard)
    heard.clear()
    with events.listening(heard.append):
        assert not form.finds_everywhere(form.learn(ROWS, Setup(Limits(40, 2))))
    assert not heard


def test_every_pair_is_an_example() -> None:
    words = bundle().tokenizer
    examples = form.encode(ROWS, words, SETUP)
    assert [LABELS[e.target[0]] for e in examples] == [
        *("eats(e1,e2)", "eats(e2,e1)", "no_relation"),
        *("in", *["no_relation"] * 5),
    ]
    assert words.tokens(examples[0].source)[:2] == ["[CLS]", "[E1]"]


def test_the_places_of_the_opening_markers_are_kept() -> None:
    words = bundle().tokenizer
    examples = form.encode(ROWS, words, SETUP)
    flat = EncodedRows(examples)
    for number, example in enumerate(examples):
        assert list(flat[number].places) == list(example.places)
        shown = words.tokens([example.source[at] for at in example.places])
        assert [mark[:3] for mark in shown] == ["[E1", "[E2"]


@lean
@given(st.integers(2, 12), st.integers(0, 30), st.integers(0, 30), st.integers(0, 30))
def test_of_a_long_text_the_entities_stay(room: int, before: int, between: int, after: int) -> None:
    marks = frozenset({100, 101, 102, 103})
    inside = [100, 7, 101, *[1] * between, 102, 8, 103]
    ids = [*range(10, 10 + before), *inside, *range(50, 50 + after)]
    if len(ids) <= room:
        return
    kept = form.around(marks, ids, room)
    assert len(kept) == room
    if room >= len(inside):
        at = kept.index(100)
        assert kept[at : at + len(inside)] == inside
    else:
        assert kept[0] == 100 and kept[-1] == 103
    assert form.around(marks, [1] * 50, room) == [1] * room


# -- answers -----------------------------------------------------------------------------------


def predictions(rows: list[dict], **how):
    return list(form.predict(bundle(), rows, SETUP, Inference(**how)))


def test_relations_come_with_their_entities_and_a_score() -> None:
    inputs = [{k: v for k, v in row.items() if k != "relations"} for row in ROWS]
    found = predictions(inputs)
    assert len(found) == 4
    for row, one in zip(ROWS, found, strict=True):
        for relation in one.value:
            assert relation["type"] in LABELS and relation["type"] != form.NONE
            assert 0 < relation["score"] <= 1
            for end in (relation["head"], relation["tail"]):
                assert row["text"][end["start"] : end["end"]] == end["text"]
    assert set(found[0].details["scores"]) == set(LABELS)
    assert found[3].details == {}
    again = predictions(inputs, chunk=2, tokens=20)
    assert [one.value for one in again] == [
        [{**r, "score": pytest.approx(r["score"], abs=1e-5)} for r in one.value] for one in found
    ]


def test_rows_without_pairs_keep_their_place() -> None:
    lone = {"text": "film", "entities": [{"start": 0, "end": 4, "text": "film", "label": "ART"}]}
    rows = [lone, {"text": "no entities"}, ROWS[0], lone, ROWS[3], {"text": "none"}]
    done: list[int] = []
    found = list(form.predict(bundle(), rows, SETUP, Inference(), done.append))
    assert len(found) == 6
    assert [one.error is not None for one in found] == [False, True, False, False, False, True]
    assert found[0].value == found[3].value == [] and found[2].source_tokens > 0
    assert "<e1>" in found[1].error
    assert list(form.predict(bundle(), [], SETUP, Inference())) == []


def test_the_cut_of_a_long_text_is_told() -> None:
    text = "film " * 40 + "room"
    ends = [{"start": 0, "end": 4}, {"start": 200, "end": 204}]
    row = relation_values({"text": text, "entities": ends})
    [found] = predictions([row])
    assert found.source_tokens_unread == found.source_tokens - 40 > 0


def test_long_texts_may_be_refused() -> None:
    ends = [{"start": 0, "end": 4}, {"start": 200, "end": 204}]
    long = relation_values({"text": "film " * 40 + "room", "entities": ends})
    refused, read = predictions([long, ROWS[0]], on_long="refuse")
    assert refused.value == [] and "the model reads 40" in refused.error
    assert refused.source_tokens_unread == refused.source_tokens > 40 and read.error is None


def test_nothing_is_put_before_a_text_of_pairs() -> None:
    with pytest.raises(BadOption, match="--prefix"):
        form.learn(ROWS, replace(SETUP, prefix="read: "))


def test_a_new_type_is_read_as_none() -> None:
    row = relation_values(
        {
            "text": "film room",
            "entities": [{"start": 0, "end": 4, "label": "NEW"}, {"start": 5, "end": 9}],
        }
    )
    bare = relation_values(
        {"text": "film room", "entities": [{"start": 0, "end": 4}, {"start": 5, "end": 9}]}
    )
    one, other = predictions([row, bare])
    assert [r["score"] for r in one.value] == [r["score"] for r in other.value]
    assert one.counts == {"entities of unknown types": 1} and not other.counts


def test_the_text_that_places_count_in_is_told_where_it_was_made() -> None:
    marked = relation_values({"text": "The <e1>film</e1> in the <e2>room</e2>."})
    entities = [{"start": 1, "end": 2}, {"start": 4, "end": 5}]
    words = relation_values({"words": ["The", "film", "in", "the", "room"], "entities": entities})
    given = relation_values({"text": "film room", "head": "film", "tail": "room"})
    found = [one.details for one in predictions([marked, words, given])]
    assert [one.get("plain_text") for one in found] == ["The film in the room.", None, None]
    assert [one.get("text") for one in found] == [None, "The film in the room", None]


def test_the_head_reads_the_opening_markers_of_head_and_tail(tmp_path) -> None:
    """Computed once more with the parts of `transformers`' model."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    made = bundle()
    made.save(tmp_path)
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    read = AutoTokenizer.from_pretrained(tmp_path)
    [found] = form.predict(made, [ROWS[0]], SETUP, Inference())
    inputs = read(form.marked(ROWS[0]["text"], ROWS[0]["pairs"][0], ()), return_tensors="pt")
    ids = inputs.input_ids[0].tolist()
    places = [ids.index(read.convert_tokens_to_ids(mark)) for mark in ("[E1]", "[E2]")]
    with torch.no_grad():
        hidden = theirs.bert(**inputs).last_hidden_state[0, places].mean(0)
        pooled = torch.tanh(theirs.bert.pooler.dense(hidden))
        shares = theirs.classifier(pooled).softmax(-1)
    expected = {theirs.config.id2label[i]: float(share) for i, share in enumerate(shares)}
    assert found.details["scores"] == pytest.approx(expected, abs=1e-5)


def test_the_head_is_kept_where_the_relations_are_the_same() -> None:
    made = bundle()
    assert with_head(made, "classes", LABELS, 0) is made
    assert form.FORMULATION.tokens(SETUP)[0] == "[E1]"
    assert tokenizer().id_of("[E1]") is None
