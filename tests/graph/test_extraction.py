"""Models as extractors: what they answer becomes mentions and relations at exact places."""

from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from mainspring.errors import Mismatch
from mainspring.formulations import Prediction, Values
from mainspring.graph.extraction import Predict, by_models, occurrences, read_relations
from mainspring.graph.records import Mention, Relation

TEXT = "Marie Curie was born in Warsaw. Marie  Curie knew Bob."
CURIE, WARSAW = Mention(0, 11, "Marie Curie", "PER", 0.9), Mention(24, 30, "Warsaw", "LOC", 0.8)


def entity(mention: Mention) -> dict[str, Any]:
    return {"label": mention.type, "start": mention.start, "end": mention.end} | {
        "text": mention.text,
        "score": mention.score,
    }


def answering(answers: dict[str, Any], asked: list[Values], error: str | None = None) -> Predict:
    def predict(rows: Iterable[Values]) -> Iterator[Prediction]:
        for row in rows:
            asked.append(row)
            yield Prediction(answers.get(row["text"], []), error=error)

    return predict


def test_an_entity_model_and_a_relation_model() -> None:
    head, tail = entity(CURIE), entity(WARSAW)
    related = [{"head": head, "type": "born in", "tail": tail, "score": 0.7}]
    seen: list[Values] = []
    asked: list[Values] = []
    entities = answering({TEXT: [head, tail], "Bob.": [entity(Mention(0, 3, "Bob", "PER"))]}, seen)
    extract = by_models(entities, answering({TEXT: related}, asked))
    first, second, third = extract([TEXT, "Bob.", "Nobody."])
    assert first.mentions == (CURIE, WARSAW)
    assert [(r.head.text, r.name, r.tail.text, r.score) for r in first.relations] == [
        ("Marie Curie", "born in", "Warsaw", 0.7)
    ]
    assert len(second.mentions) == 1 and third.mentions == ()
    assert [row["text"] for row in seen] == [TEXT, "Bob.", "Nobody."]
    # A relation needs two: only passages with as many are asked about.
    [row] = asked
    assert [(e["start"], e["end"], e["label"]) for e in row["entities"]] == [
        (0, 11, "PER"),
        (24, 30, "LOC"),
    ]


def test_entities_alone() -> None:
    [found] = by_models(answering({TEXT: [entity(CURIE)]}, []), None)([TEXT])
    assert found.mentions == (CURIE,) and found.relations == ()


def test_a_model_that_writes_triples() -> None:
    written = [
        {"head": "marie curie", "type": "born in", "tail": "Warsaw"},
        {"head": "Marie Curie", "type": "knew", "tail": "Bob"},
        {"head": "Marie Curie", "type": "knew", "tail": "Alice"},
        {"head": "", "type": "knew", "tail": "Bob"},
        {"head": "Bob", "type": "", "tail": "Warsaw"},
        {"head": "Bob", "type": "is", "tail": "Bob"},
    ]
    [found] = by_models(None, answering({TEXT: written}, []))([TEXT])
    told = [(r.head.start, r.head.text, r.name, r.tail.text) for r in found.relations]
    assert told == [(0, "Marie Curie", "born in", "Warsaw"), (0, "Marie Curie", "knew", "Bob")]
    assert found.lost == 4


def test_a_model_that_needs_entities_says_so() -> None:
    extract = by_models(None, answering({}, [], error="no two entities are given"))
    with pytest.raises(Mismatch, match="entities that are given: name a model"):
        list(extract([TEXT]))


def relations(*answers: dict[str, Any], mentions: tuple[Mention, ...] = ()) -> tuple[Relation, ...]:
    return read_relations(answers, TEXT, mentions).relations


def test_ends_may_be_numbers_of_entities() -> None:
    known = (CURIE, WARSAW)
    [made] = relations({"head": 0, "type": "r", "tail": 1}, mentions=known)
    assert (made.head, made.tail) == known
    assert relations({"head": 0, "type": "r", "tail": 2}, mentions=known) == ()


def test_the_tail_nearest_to_the_head_is_meant() -> None:
    text = "Bob met Ann. Later Ann left. Ann wrote to Eve."
    found = read_relations([{"head": "Eve", "type": "knows", "tail": "Ann"}], text)
    assert found.relations[0].tail.start == 29


def test_directions_in_names_are_followed() -> None:
    pair = {"head": "Marie Curie", "tail": "Warsaw"}
    [one] = relations({**pair, "type": "Entity-Origin(e1,e2)"})
    [two] = relations({**pair, "type": "Entity-Origin(e2,e1)"})
    assert one.name == two.name == "Entity-Origin"
    assert (one.head, one.tail) == (two.tail, two.head)


def test_an_entity_that_is_not_there() -> None:
    wrong = {"start": 0, "end": 4, "text": "Anna", "label": "PER"}
    with pytest.raises(Mismatch, match="'Anna' does not stand at 0 to 4"):
        relations({"head": wrong, "type": "r", "tail": "Bob"})


def test_where_names_stand() -> None:
    assert occurrences("marie curie", TEXT) == [(0, 11), (32, 44)]
    assert occurrences("Ann", "Anna and Ann") == [(9, 12)]
    assert occurrences("居里", "玛丽居里夫人") == [(2, 4)]
    assert occurrences("(a+b)*", "x (a+b)* y") == [(2, 8)]
    assert occurrences("nobody", TEXT) == []
