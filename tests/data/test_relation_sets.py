"""Relations as published data sets write them down, each in the layout of its own files."""

import contextlib
import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring import events
from mainspring.data.readers import sources
from mainspring.data.relation_sets import published
from mainspring.data.rows import Row
from mainspring.data.skipped import SkipLog
from mainspring.errors import BadData
from mainspring.tasks.reading import checked, match
from mainspring.tasks.relations import TASK

Triple = tuple[str, str, str]

TOM = "Tom Thabane resigned as leader of the ABC party .".split()  # noqa: SIM905
FLIGHT = ["Merpati", "flight", "106", "departed", "Jakarta", "(", "CGK", ")"]
SENTS = [
    ["Skai", "TV", "is", "a", "Greek", "channel", "."],
    ["It", "belongs", "to", "Skai", "Group", "in", "Piraeus", "."],
]
VERTICES = [
    [{"name": "Skai TV", "pos": [0, 2], "sent_id": 0, "type": "ORG"}],
    [{"name": "Skai Group", "pos": [3, 5], "sent_id": 1, "type": "ORG"}],
    [{"name": "Piraeus", "pos": [6, 7], "sent_id": 1, "type": "LOC"}],
]
PARIS = "Paris is in France."
IN = [("Paris", "in", "France")]


def read(file: Path) -> tuple[list[dict], SkipLog]:
    [source] = sources(file)
    with SkipLog() as skipped:
        rows = [e.values for e in checked(TASK, source, match(TASK, source, {}), skipped, {})]
    for row in rows:  # every entity stands where it says
        for relation in row.get("relations", ()):
            for end in (relation["head"], relation["tail"]):
                if isinstance(end, dict):  # else its words, which are not in the text
                    assert row["text"][end["start"] : end["end"]] == end["text"]
    return rows, skipped


def triples(row: dict) -> list[Triple]:
    return [(r["head"]["text"], r["type"], r["tail"]["text"]) for r in row["relations"]]


def write(folder: Path, rows: Any) -> Path:
    """A list as lines, anything else as one file."""
    file = folder / ("data.jsonl" if isinstance(rows, list) else "data.json")
    lines = map(json.dumps, rows) if isinstance(rows, list) else [json.dumps(rows)]
    file.write_text("\n".join(lines))
    return file


def tacred(subj: tuple[int, int], obj: tuple[int, int], relation: str = "org:founded_by") -> dict:
    places = dict(
        zip(("subj_start", "subj_end", "obj_start", "obj_end"), (*subj, *obj), strict=True)
    )
    types = {"subj_type": "ORGANIZATION", "obj_type": "PERSON"}
    return {"id": "e", "relation": relation, "token": TOM, **places, **types}


EXAMPLES: dict[str, tuple[Any, list[Triple]]] = {
    "docred": (
        [
            {
                "title": "Skai",
                "sents": SENTS,
                "vertexSet": VERTICES,
                "labels": [{"r": "P127", "h": 0, "t": 1, "evidence": [1]}],
            }
        ],
        [("Skai TV", "P127", "Skai Group")],
    ),
    "docred of the datasets library": (
        [
            {
                "sents": SENTS,
                "vertexSet": VERTICES,
                "labels": {"head": [1], "tail": [2], "relation_id": ["P159"], "evidence": [[1]]},
            }
        ],
        [("Skai Group", "P159", "Piraeus")],
    ),
    "rebel": (
        [
            {
                "id": "1-0",
                "title": "Paris",
                "context": PARIS,
                "triplets": "<triplet> Paris <subj> France <obj> in",
            }
        ],
        IN,
    ),
    "rebel with places, t-rex": (
        [
            {
                "text": PARIS,
                "entities": [
                    {"uri": "Q90", "boundaries": [0, 5], "surfaceform": "Paris"},
                    {"uri": "Q142", "boundaries": [12, 18], "surfaceform": "France"},
                ],
                "triples": [
                    {
                        "subject": {"uri": "Q90", "boundaries": [0, 5], "surfaceform": "Paris"},
                        "predicate": {"uri": "P17", "boundaries": None, "surfaceform": "in"},
                        "object": {"uri": "Q142", "boundaries": None, "surfaceform": "France"},
                    }
                ],
            }
        ],
        IN,
    ),
    "nyt": (
        [
            {
                "sentText": "In New York City , Ann left New York .",
                "relationMentions": [
                    {"em1Text": "Ann", "em2Text": "New York", "label": "/people/lived"},
                    {"em1Text": "Ann", "em2Text": "New York City", "label": "None"},
                ],
                "entityMentions": [
                    {"start": 0, "label": "LOCATION", "text": "New York"},
                    {"start": 1, "label": "LOCATION", "text": "New York City"},
                    {"start": 2, "label": "PERSON", "text": "Ann"},
                ],
            }
        ],
        [("Ann", "/people/lived", "New York")],
    ),
    "fewrel of the datasets library": (
        [
            {
                "relation": "P931",
                "tokens": FLIGHT,
                "head": {"text": "jakarta", "type": "Q1", "indices": [[4]]},
                "tail": {"text": "merpati flight", "type": "Q2", "indices": [[0, 1]]},
            }
        ],
        [("Jakarta", "P931", "Merpati flight")],
    ),
    "opennre by words": (
        [
            {
                "token": FLIGHT,
                "h": {"name": "Jakarta", "id": "Q1", "pos": [4, 5]},
                "t": {"name": "CGK", "id": "Q2", "pos": [6, 7]},
                "relation": "code",
            }
        ],
        [("Jakarta", "code", "CGK")],
    ),
    "opennre by characters": (
        [
            {
                "text": PARIS,
                "h": {"name": "Paris", "pos": [0, 5]},
                "t": {"name": "France", "pos": [12, 18]},
                "relation": "in",
            }
        ],
        IN,
    ),
    "nyt10": (
        [
            {
                "sentence": PARIS,
                "head": {"word": "Paris", "id": "m1", "type": "/location"},
                "tail": {"word": "France", "id": "m2", "type": "/location"},
                "relation": "in",
            }
        ],
        IN,
    ),
    "conll04 as spert has it": (
        [
            {
                "tokens": FLIGHT,
                "entities": [
                    {"type": "Loc", "start": 4, "end": 5},
                    {"type": "Org", "start": 0, "end": 1},
                ],
                "relations": [{"type": "From", "head": 1, "tail": 0}],
            }
        ],
        [("Merpati", "From", "Jakarta")],
    ),
    "casrel": ([{"text": PARIS, "triple_list": [["Paris", "in", "France"]]}], IN),
    "duie": (
        [
            {
                "text": PARIS,
                "spo_list": [
                    {"subject": "Paris", "predicate": "in", "object": {"@value": "France"}}
                ],
            }
        ],
        IN,
    ),
    "doccano": (
        [
            {
                "text": PARIS,
                "entities": [
                    {"id": 10, "label": "LOC", "start_offset": 0, "end_offset": 5},
                    {"id": 11, "label": "LOC", "start_offset": 12, "end_offset": 18},
                ],
                "relations": [{"id": 3, "from_id": 10, "to_id": 11, "type": "in"}],
            }
        ],
        IN,
    ),
    "prodigy": (
        [
            {
                "text": PARIS,
                "_input_hash": 1,
                "answer": "accept",
                "spans": [{"start": 0, "end": 5, "label": "LOC"}, {"start": 12, "end": 18}],
                "relations": [
                    {
                        "head": 0,
                        "child": 3,
                        "head_span": {"start": 0, "end": 5, "label": "LOC"},
                        "child_span": {"start": 12, "end": 18, "label": "LOC"},
                        "label": "in",
                    }
                ],
            }
        ],
        IN,
    ),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_published_layouts_are_read_by_themselves(name: str, tmp_path: Path) -> None:
    written, expected = EXAMPLES[name]
    [row], skipped = read(write(tmp_path, written))
    assert triples(row) == expected and not skipped.total


def test_tacred_counts_the_last_word_in(tmp_path: Path) -> None:
    rows, skipped = read(
        write(tmp_path, [tacred((7, 7), (0, 1)), tacred((7, 7), (0, 40)), tacred((0, 1), (7, 7))])
    )
    assert [triples(row) for row in rows] == [
        [("ABC", "org:founded_by", "Tom Thabane")],
        [("Tom Thabane", "org:founded_by", "ABC")],
    ]
    assert [end["label"] for end in rows[0]["pairs"][0]] == ["ORGANIZATION", "PERSON"]
    assert len(rows[0]["pairs"]) == 1, "only the pair that is asked for"
    assert skipped.counts == {"offsets out of range": 1}


def test_tacred_as_the_datasets_library_loads_it_does_not(tmp_path: Path) -> None:
    """Its loader adds one to both ends: then no entity begins where it ends."""
    seen: list[events.Event] = []
    with events.listening(seen.append):
        rows, _ = read(write(tmp_path, [tacred((7, 8), (0, 2))] * 10))
    assert triples(rows[0]) == [("ABC", "org:founded_by", "Tom Thabane")]
    assert any("not included" in e.text for e in seen if isinstance(e, events.Note))


def test_fewrel_keeps_rows_by_their_relation(tmp_path: Path) -> None:
    row = {"tokens": FLIGHT, "h": ["x", "Q1", [[4]]], "t": ["y", "Q2", [[0, 1]]]}
    rows, _ = read(write(tmp_path, {"P931": [row, row], "P17": [row]}))
    assert [triples(row)[0][1] for row in rows] == ["P931", "P931", "P17"]
    assert triples(rows[0]) == [("Jakarta", "P931", "Merpati flight")]


def test_a_file_with_all_splits_is_not_read_as_one(tmp_path: Path) -> None:
    row = {"text": PARIS, "head": "Paris", "tail": "France", "relation": "in"}
    with pytest.raises(BadData, match=r"splits `train`, `test`; put each into a file of its own"):
        read(write(tmp_path, {"train": [row], "test": [row]}))


def test_scierc_gives_a_row_for_each_sentence(tmp_path: Path) -> None:
    document = {
        "doc_key": "d",
        "sentences": [["a", "parser", "."], ["BERT", "uses", "attention", "."]],
        "ner": [[[1, 1, "Method"]], [[3, 3, "Method"], [5, 5, "Method"]]],
        "relations": [[], [[5, 5, 3, 3, "USED-FOR"]]],
    }
    rows, _ = read(write(tmp_path, [document]))
    assert [triples(row) for row in rows] == [[], [("attention", "USED-FOR", "BERT")]]
    unfolded = [one.values for one in published(Row(document, "a.jsonl", 1))]
    assert [(one["doc_key"], one["sentence_number"]) for one in unfolded] == [("d", 0), ("d", 1)]


def test_semeval_comes_as_text(tmp_path: Path) -> None:
    file = tmp_path / "TRAIN_FILE.TXT"
    file.write_text(
        '1\t"The <e1>lid</e1> of the <e2>box</e2>."\nComponent-Whole(e1,e2)\nComment: plain\n\n'
        '2\t"The <e1>child</e1> slept."\nOther\nComment:\n\n'
        '3\t"A <e1>man</e1> and a <e2>dog</e2>."\nOther\nComment:\n\n'
    )
    rows, skipped = read(file)
    assert [triples(row) for row in rows] == [[("lid", "Component-Whole(e1,e2)", "box")], []]
    assert skipped.summary().startswith(f"1 broken marks (first: {file}:5")


def test_an_entity_of_several_mentions_stands_apart_from_the_others(tmp_path: Path) -> None:
    mention = {"sent_id": 1, "type": "ORG", "name": "Skai"}
    vertices = [
        *VERTICES[1:],
        [{**mention, "pos": [3, 4]}, {**mention, "sent_id": 0, "pos": [0, 1]}],
    ]
    label = {"r": "P1", "h": 0, "t": 2, "evidence": []}
    row = {"sents": SENTS, "vertexSet": vertices, "labels": [label]}
    [found], _ = read(write(tmp_path, [row]))
    [relation] = found["relations"]
    assert (relation["tail"]["text"], relation["tail"]["start"]) == ("Skai", 0)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"sents": SENTS, "vertexSet": VERTICES, "labels": [{"r": "P1", "h": 0, "t": 9}]}, "unkn"),
        ({"sents": SENTS, "vertexSet": VERTICES, "labels": [{"r": "P1"}]}, "wrong type"),
        ({"sents": SENTS, "vertexSet": [["x"]], "labels": []}, "wrong type"),
        ({"sents": SENTS, "vertexSet": [[{**VERTICES[0][0], "pos": [0, 9]}]]}, "offsets out of"),
        ({**tacred((7, 7), (0, 1)), "subj_end": "last"}, "wrong type"),
        ({"context": PARIS, "triplets": "<triplet> Paris <obj> in"}, "broken triples"),
        (
            {
                "sentText": PARIS,
                "relationMentions": [],
                "entityMentions": [{"text": "Rome", "label": "L"}],
            },
            "entity not in the text",
        ),
        (
            {
                "token": FLIGHT,
                "h": {"name": "x", "pos": [4]},
                "t": {"name": "y", "pos": [0, 1]},
                "relation": "r",
            },
            "wrong type",
        ),
    ],
)
def test_rows_that_cannot_be_read_are_counted(row: dict, reason: str, tmp_path: Path) -> None:
    with pytest.raises(BadData, match=f"no usable row: 1 {reason}"):
        read(write(tmp_path, [row]))


def test_the_column_that_is_missing_is_that_of_the_nearest_layout(tmp_path: Path) -> None:
    """Test sets are published without their relations."""
    with pytest.raises(BadData, match="no column for the relations"):
        read(write(tmp_path, [{"sents": SENTS, "vertexSet": VERTICES}]))


def _places(value: Any, path: tuple = ()) -> list[tuple]:
    """The paths of all that a nested value holds."""
    inner: Any = value.items() if isinstance(value, dict) else ()
    inner = enumerate(value) if isinstance(value, list) else inner
    found = [path] if path else []
    for key, item in inner:
        found += _places(item, (*path, key))
    return found


@settings(max_examples=400, deadline=None, derandomize=True, database=None)
@given(st.data())
def test_no_wrong_value_inside_ends_the_reading(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    row = copy.deepcopy(data.draw(st.sampled_from([rows[0] for rows, _ in EXAMPLES.values()])))
    path = data.draw(st.sampled_from(_places(row)))
    holder = row
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = data.draw(st.sampled_from([None, -1, 1.5, "x", "", [], [[]], {}, [None]]))
    with contextlib.suppress(BadData):  # which names the row and the reason
        read(write(tmp_path_factory.mktemp("rows"), [row]))
