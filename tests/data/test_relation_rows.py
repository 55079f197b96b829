"""The forms in which relations are written down, and what may be wrong with each."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring.data.kinds import Flaw
from mainspring.data.relations import is_none, related_pairs, relation_values

lean = settings(max_examples=40, deadline=None, derandomize=True, database=None)

CHILD = {"text": "child", "start": 4, "end": 9, "label": ""}
CRADLE = {"text": "cradle", "start": 21, "end": 27, "label": ""}
TEXT = "The child lay in the cradle."
IN = "Entity-Destination(e1,e2)"


def triples(values: dict) -> list[tuple[str, str, str]]:
    return [(r["head"]["text"], r["type"], r["tail"]["text"]) for r in values["relations"]]


# -- the forms ---------------------------------------------------------------------------------


def test_marked_text() -> None:
    text = "The <e1>child</e1> lay in the <e2>cradle</e2>."
    found = relation_values({"text": text, "relations": IN})
    assert found == {
        "text": TEXT,
        "adds": {"plain_text": TEXT},
        "pairs": [(CHILD, CRADLE)],
        "relations": [{"head": CHILD, "type": IN, "tail": CRADLE}],
    }
    assert "relations" not in relation_values({"text": text})
    backwards = relation_values({"text": "A <e2>b</e2> <e1> c </e1>d", "relations": "r"})
    [(head, tail)] = backwards["pairs"]
    assert (head["text"], head["start"], tail["text"], tail["start"]) == ("c", 5, "b", 2)
    assert backwards["text"] == "A b  c d"


@pytest.mark.parametrize(
    "spans",
    [
        {"head_span": [4, 9], "tail_span": [21, 27]},
        {"head_span": "[4, 9]", "tail_span": "(21, 27)"},
        {"head_span": {"start": 4, "end": 9}, "tail_span": {"start": 21, "end": 27}},
        {},
    ],
)
def test_head_and_tail(spans: dict) -> None:
    row = {"text": TEXT, "head": "child", "tail": "cradle", "relations": IN, **spans}
    found = relation_values(dict(row))
    assert found["pairs"] == [(CHILD, CRADLE)] and triples(found) == [("child", IN, "cradle")]
    typed = relation_values({**row, "head_type": "PER"})
    assert typed["pairs"][0][0]["label"] == "PER"


def test_entities_are_called_by_their_ids_where_all_are() -> None:
    text = "Tom saw Ann in Paris"
    places = ((0, 3), (8, 11), (15, 20))

    def read(ids: tuple, head: object, tail: object, names=("head", "tail")) -> list:
        entities = [{"id": i, "start": a, "end": b} for i, (a, b) in zip(ids, places, strict=True)]
        one = {names[0]: head, names[1]: tail, "type": "saw"}
        return triples(
            relation_values({"text": text, "entities": entities, "relations": [dict(one)]})
        )

    assert read((1, 2, 3), 1, 2) == [("Tom", "saw", "Ann")]
    assert read((10, 11, 1), 10, 1, ("head_id", "tail_id")) == [("Tom", "saw", "Paris")]
    assert read(("1", "2", "3"), "1", "3") == [("Tom", "saw", "Paris")]
    assert read(("x", "y", "z"), 0, 2) == read((1, 2, 3), 0, 2) == [("Tom", "saw", "Paris")]
    with pytest.raises(Flaw, match="unknown entity"):
        read((10, 11, 12), 10, 5)


def test_a_span_may_be_written_with_a_dash() -> None:
    row = {"text": TEXT, "head": "child", "tail": "cradle", "relations": IN}
    found = relation_values({**row, "head_span": "4-9", "tail_span": "21–27"})
    assert found["pairs"] == [(CHILD, CRADLE)]


def test_words_are_looked_for_as_words_and_apart_from_each_other() -> None:
    found = relation_values({"text": "cartoon car", "head": "car", "tail": "cartoon"})
    assert [end["start"] for end in found["pairs"][0]] == [8, 0]
    found = relation_values(
        {"text": "东方航空公司并购东方航空", "head": "东方航空", "tail": "东方航空公司"}
    )
    assert [end["start"] for end in found["pairs"][0]] == [8, 0]


def test_entities_and_relations_in_characters_and_in_words() -> None:
    entities = [{"start": 4, "end": 9, "type": "PER"}, {"start": 21, "end": 27, "label": "OBJ"}]
    relations = [{"head": 0, "tail": 1, "type": "in"}]
    found = relation_values({"text": TEXT, "entities": entities, "relations": relations})
    assert triples(found) == [("child", "in", "cradle")]
    assert [(h["label"], t["label"]) for h, t in found["pairs"]] == [("PER", "OBJ"), ("OBJ", "PER")]
    words = ["The", "child", "lay", "in", "the", "cradle", "."]
    places = [{"start": 1, "end": 2, "type": "PER"}, {"start": 5, "end": 6, "type": "OBJ"}]
    in_words = relation_values({"words": words, "entities": places, "relations": relations})
    assert in_words["text"].startswith(TEXT[:-1]) and triples(in_words) == triples(found)


@pytest.mark.parametrize(
    "ends",
    [
        {"head": 0, "tail": 1},
        {"head": "x", "tail": "y"},
        {"head": "child", "tail": "cradle"},
        {"subject": {"start": 4, "end": 9}, "object": {"text": "cradle"}},
    ],
)
def test_relations_name_their_ends_in_many_ways(ends: dict) -> None:
    entities = [{"id": "x", "start": 4, "end": 9}, {"id": "y", "start": 21, "end": 27}]
    row = {"text": TEXT, "entities": entities, "relations": [{**ends, "relation": "in"}]}
    assert triples(relation_values(row)) == [("child", "in", "cradle")]


def test_triples_without_entities() -> None:
    relations = [{"head": "child", "type": "in", "tail": "cradle"}]
    found = relation_values({"text": TEXT, "relations": json.dumps(relations)})
    assert triples(found) == [("child", "in", "cradle")] and len(found["pairs"]) == 2
    loose = relation_values({"text": TEXT, "relations": [{**relations[0], "head": "infant"}]})
    assert loose["relations"][0]["head"] == "infant" and "pairs" not in loose
    assert relation_values({"text": TEXT, "relations": []}) == {"text": TEXT, "relations": []}
    assert relation_values({"text": TEXT}) == {"text": TEXT}


# -- no relation -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Other", "no_relation", "NA", "unknown", "None", "No-Relation"])
def test_the_usual_names_for_no_relation(name: str) -> None:
    assert is_none(name, None)
    row = {"text": TEXT, "head": "child", "tail": "cradle", "relations": name}
    found = relation_values(row)
    assert found["relations"] == [] and len(found["pairs"]) == 1
    entities = [{"start": 4, "end": 9}, {"start": 21, "end": 27}]
    relations = [{"head": 0, "tail": 1, "type": name}]
    assert (
        relation_values({"text": TEXT, "entities": entities, "relations": relations})["relations"]
        == []
    )


def test_a_name_of_ones_own_for_no_relation() -> None:
    row = {"text": TEXT, "head": "child", "tail": "cradle"}
    assert relation_values({**row, "relations": "nope", "no_relation": "nope"})["relations"] == []
    kept = relation_values({**row, "relations": "Other", "no_relation": "nope"})
    assert triples(kept) == [("child", "Other", "cradle")]


# -- what may be wrong -------------------------------------------------------------------------

ENTITIES = [{"start": 4, "end": 9}, {"start": 21, "end": 27}]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"text": "The <e1>child</e1> lay"}, "broken marks"),
        ({"text": "<e1>a</e1> <e1>b</e1> <e2>c</e2>"}, "broken marks"),
        ({"text": "<e1>a <e2>b</e1> c</e2>"}, "overlapping spans"),
        ({"text": "<e1> </e1> <e2>c</e2>"}, "empty entity"),
        ({"text": TEXT, "head": "infant", "tail": "cradle"}, "entity not in the text"),
        ({"text": TEXT, "head": "child", "tail": "child"}, "overlapping spans"),
        (
            {"text": TEXT, "head": "a", "head_span": [4, 99], "tail": "cradle"},
            "offsets out of range",
        ),
        (
            {"text": TEXT, "head": "a", "head_span": [9, 4], "tail": "cradle"},
            "offsets out of range",
        ),
        ({"text": TEXT, "head": "a", "head_span": "x", "tail": "cradle"}, "wrong type"),
        ({"text": TEXT, "head": "child", "head_span": [4, 8], "tail": "cradle"}, "entity not at"),
        ({"text": TEXT, "head": "a", "head_span": [1.5, 2], "tail": "cradle"}, "wrong type"),
        ({"text": TEXT, "relations": "in"}, "no entities"),
        ({"text": TEXT, "relations": None}, "no entities"),
        ({"text": TEXT, "relations": [{"head": 0, "tail": 1, "type": "in"}]}, "unknown entity"),
        ({"text": TEXT, "entities": [{"start": -1, "end": 4}]}, "offsets out of range"),
        ({"text": TEXT, "entities": [{"start": 4, "end": 9, "text": "cradle"}]}, "entity not at"),
        ({"words": ["a"], "entities": [{"start": 0, "end": 2}]}, "offsets out of range"),
        ({"words": ["a"], "entities": [{"start": 0}]}, "wrong type"),
        ({"text": TEXT, "entities": ENTITIES, "relations": ["in"]}, "wrong type"),
        ({"text": TEXT, "entities": ENTITIES, "relations": [{"head": 0, "tail": 1}]}, "wrong type"),
        (
            {
                "text": TEXT,
                "entities": [*ENTITIES, {"start": 4, "end": 12}],
                "relations": [{"head": 0, "tail": 2, "type": "in"}],
            },
            "overlapping spans",
        ),
        (
            {
                "text": TEXT,
                "entities": ENTITIES,
                "relations": [{"head": 0, "tail": 7, "type": "in"}],
            },
            "unknown entity",
        ),
    ],
)
def test_what_is_wrong_is_told(row: dict, reason: str) -> None:
    with pytest.raises(Flaw) as flaw:
        relation_values(row)
    assert flaw.value.reason.startswith(reason)


def test_entities_that_lie_over_each_other_are_not_paired() -> None:
    places = [{"start": 0, "end": 5}, {"start": 3, "end": 8}, {"start": 8, "end": 9}]
    assert [(a["start"], b["start"]) for a, b in related_pairs(places)] == [
        (0, 8),
        (3, 8),
        (8, 0),
        (8, 3),
    ]


@lean
@given(st.text("ab 东🙂<>", max_size=12), st.text("ab 东🙂", max_size=8), st.booleans())
def test_marks_come_out_and_places_stay_right(before: str, between: str, turned: bool) -> None:
    names = ("e2", "e1") if turned else ("e1", "e2")
    text = f"{before}<{names[0]}>x🙂y</{names[0]}>{between}<{names[1]}>东</{names[1]}>!"
    found = relation_values({"text": text})
    assert found["text"] == f"{before}x🙂y{between}东!"
    [(head, tail)] = found["pairs"]
    for end in (head, tail):
        assert found["text"][end["start"] : end["end"]] == end["text"]
    assert {head["text"], tail["text"]} == {"x🙂y", "东"} and (head["text"] == "东") == turned
