"""Exports of annotation tools, and data sets of the hub, as `entities` reads them."""

import json
from pathlib import Path
from typing import Any

import pytest

from mainspring.data import delimited
from mainspring.data.readers import sources
from mainspring.data.skipped import SkipLog
from mainspring.errors import BadData
from mainspring.tasks.classify import TASK as CLASSIFY
from mainspring.tasks.entities import TASK
from mainspring.tasks.reading import checked, match
from mainspring.tasks.relations import TASK as RELATIONS

PARIS = "Paris is in France."
PLACES = [("LOC", "Paris"), ("LOC", "France")]


def label_studio(**changes: Any) -> dict:
    result = [
        {
            "id": "a",
            "type": "labels",
            "value": {"start": 0, "end": 5, "text": "Paris", "labels": ["LOC"]},
        },
        {
            "id": "b",
            "type": "labels",
            "value": {"start": 12, "end": 18, "text": "France", "labels": ["LOC"]},
        },
        {
            "type": "relation",
            "from_id": "a",
            "to_id": "b",
            "direction": "right",
            "labels": ["in"],
        },
    ]
    annotations = [
        {"was_cancelled": True, "result": []},
        {"was_cancelled": False, "result": result},
    ]
    return {"id": 1, "annotations": annotations, "data": {"text": PARIS}, **changes}


def read(file: Path, task: Any = TASK) -> tuple[list[dict], SkipLog]:
    [source] = sources(file)
    with SkipLog() as skipped:
        rows = [e.values for e in checked(task, source, match(task, source, {}), skipped, {})]
    return rows, skipped


def found(row: dict) -> list[tuple[str, str]]:
    return [(e["label"], row["text"][e["start"] : e["end"]]) for e in row["entities"]]


SPAN = {"start": 0, "end": 5, "label": "LOC"}
FORMS: dict[str, tuple[Any, list[tuple[str, str]]]] = {
    "label studio": ([label_studio()], PLACES),
    "label studio, short": (
        [{"text": PARIS, "label": [{"start": 0, "end": 5, "text": "Paris", "labels": ["LOC"]}]}],
        PLACES[:1],
    ),
    "doccano": ([{"id": 1, "text": PARIS, "label": [[0, 5, "LOC"], [12, 18, "LOC"]]}], PLACES),
    "spacy": ([[PARIS, {"entities": [[0, 5, "LOC"]]}]], PLACES[:1]),
    "a list of spacy's": (
        {"classes": ["LOC"], "annotations": [[PARIS, {"entities": [[0, 5, "LOC"]]}]]},
        PLACES[:1],
    ),
    "spacy 2": (
        [
            {
                "id": 0,
                "paragraphs": [
                    {"sentences": [{"tokens": [{"orth": "Paris", "ner": "U-LOC"}, {"orth": "is"}]}]}
                ],
            }
        ],
        PLACES[:1],
    ),
    "doc.to_json": ([{"text": PARIS, "ents": [SPAN], "tokens": [{"id": 0}]}], PLACES[:1]),
    "prodigy": (
        [{"text": PARIS, "_input_hash": 1, "spans": [SPAN], "answer": "accept"}],
        PLACES[:1],
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_exports_are_read_by_themselves(name: str, tmp_path: Path) -> None:
    written, expected = FORMS[name]
    file = tmp_path / "data.json"
    file.write_text(json.dumps(written))
    [row], skipped = read(file)
    assert found(row) == expected and not skipped.total


def test_relations_of_label_studio(tmp_path: Path) -> None:
    file = tmp_path / "data.json"
    file.write_text(json.dumps([label_studio()]))
    [row], _ = read(file, RELATIONS)
    [relation] = row["relations"]
    ends = relation["head"]["text"], relation["type"], relation["tail"]["text"]
    assert ends == ("Paris", "in", "France")


def test_what_the_annotator_rejected_is_left_out_and_counted(tmp_path: Path) -> None:
    rejected = {"text": PARIS, "_input_hash": 1, "spans": [SPAN], "answer": "reject"}
    file = tmp_path / "data.jsonl"
    file.write_text("\n".join(map(json.dumps, [rejected, {**rejected, "answer": "accept"}])))
    rows, skipped = read(file)
    assert len(rows) == 1 and skipped.counts == {"not accepted": 1}


@pytest.mark.parametrize("tags", ["B_PER I_PER O", "B:PER E:PER O", "B-PER I-PER O", "PER PER O"])
@pytest.mark.parametrize("kind", ["jsonl", "conll"])
def test_tags_are_parted_by_more_than_a_dash(tags: str, kind: str, tmp_path: Path) -> None:
    words, file = ["Angela", "Merkel", "slept"], tmp_path / f"data.{kind}"
    if kind == "jsonl":
        file.write_text(json.dumps({"tokens": words, "ner_tags": tags.split()}))
    else:
        file.write_text("".join(f"{w} {t}\n" for w, t in zip(words, tags.split(), strict=True)))
    [row], _ = read(file)
    assert found(row) == [("PER", "Angela Merkel")]


CARD = """---
license: mit
dataset_info:
- config_name: en
  features:
  - name: tokens
    sequence: string
  - name: ner_tags
    {key}:
      class_label:
        names:
          '0': O
          '1': B-PER
          '2': I-PER
---
# Names
"""


@pytest.mark.parametrize("key", ["sequence", "list"])
def test_numbers_get_their_names_from_the_card(key: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "README.md").write_text(CARD.replace("{key}", key))
    file = tmp_path / "data" / "train.jsonl"
    file.write_text(json.dumps({"tokens": ["Angela", "Merkel", "slept"], "ner_tags": [1, 2, 0]}))
    [row], _ = read(file)
    assert found(row) == [("PER", "Angela Merkel")]


def test_numbers_get_their_names_from_the_older_description(tmp_path: Path) -> None:
    feature = {"feature": {"_type": "ClassLabel", "names": ["O", "B-PER"]}, "_type": "Sequence"}
    infos = {"default": {"features": {"ner_tags": feature}}}
    (tmp_path / "dataset_infos.json").write_text(json.dumps(infos))
    file = tmp_path / "train.jsonl"
    rows = [{"tokens": ["Ann", "slept"], "ner_tags": tags} for tags in ([1, 0], [7, 0])]
    file.write_text("\n".join(map(json.dumps, rows)))
    [row], skipped = read(file)
    assert found(row) == [("PER", "Ann")] and skipped.counts == {"tags out of range": 1}


def classes(names: list[str], configuration: str = "en") -> str:
    listed = "".join(f"\n          '{number}': '{name}'" for number, name in enumerate(names))
    return f"""
- config_name: {configuration}
  features:
  - name: text
    dtype: string
  - name: label
    dtype:
      class_label:
        names:{listed}"""


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_classes_of_texts_get_their_names_from_the_card(kind: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(f"---\ndataset_info:{classes(['bad', 'good'])}\n---\n")
    file = tmp_path / f"train.{kind}"
    labels = [1, 0, -1, "good"]
    if kind == "csv":
        file.write_text("text,label\n" + "".join(f"t{label},{label}\n" for label in labels))
    else:
        rows = [{"text": f"t{label}", "label": label} for label in labels]
        file.write_text("\n".join(map(json.dumps, rows)))
    rows, skipped = read(file, CLASSIFY)
    assert [row["label"] for row in rows] == ["good", "bad", "good"]
    assert skipped.counts == {"missing field": 1}


def test_of_configurations_that_disagree_the_folder_decides(tmp_path: Path) -> None:
    both = classes(["bad", "good"], "reviews") + classes(["no", "yes"], "questions")
    (tmp_path / "README.md").write_text(f"---\ndataset_info:{both}\n---\n")
    for folder, wanted in (("reviews", "good"), ("questions", "yes"), ("other", "1")):
        file = tmp_path / folder / "train.jsonl"
        file.parent.mkdir()
        file.write_text('{"text": "a", "label": 1}')
        [row], _ = read(file, CLASSIFY)
        assert row["label"] == wanted


# -- CLUENER ---------------------------------------------------------------------------------------


def test_types_with_words_and_places_whose_end_is_counted_in(tmp_path: Path) -> None:
    text = "浙商银行企业信贷部叶老桂博士"
    marked = {"name": {"叶老桂": [[9, 11]]}, "company": {"浙商银行": [[0, 3]]}}
    rows = [{"text": text, "label": marked}, {"text": text, "label": {}}]
    rows.append({"text": text, "label": {"name": {"叶老桂": [[8, 10]]}}})
    rows.append({"text": text, "label": {"name": {"叶老桂": [[9]]}}})
    file = tmp_path / "train.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    read_rows, skipped = read(file)
    assert [found(row) for row in read_rows] == [[("company", "浙商银行"), ("name", "叶老桂")], []]
    assert skipped.counts == {"entity not at its place": 1, "wrong type": 1}


# -- tables with a word a line ---------------------------------------------------------------------

KAGGLE = '''Sentence #,Word,POS,Tag
Sentence: 1,Angela,NNP,B-per
,Merkel,NNP,I-per
,"""",``,O
Sentence: 2,Paris,NNP,B-geo
,,NNP,O
,sleeps,VBZ,O
'''
NUMBERED = "sentence_id\twords\tlabels\n0\tAngela\tB-per\n0\tMerkel\tI-per\n1\tParis\tB-geo\n"


@pytest.mark.parametrize(
    ("name", "content", "texts", "without"),
    [
        ("ner.csv", KAGGLE, ['Angela Merkel "', "Paris sleeps"], 1),
        ("ner.tsv", NUMBERED, ["Angela Merkel", "Paris"], 0),
    ],
)
def test_tables_with_a_word_a_line(
    name: str, content: str, texts: list[str], without: int, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    rows, skipped = read(tmp_path / name)
    assert [row["text"] for row in rows] == texts
    assert [found(row) for row in rows] == [[("per", "Angela Merkel")], [("geo", "Paris")]]
    assert skipped.counts["no token"] == without == skipped.total


@pytest.mark.parametrize(
    ("line", "by", "left"),
    [
        (5, b"Sentence: 2,M\xff,NNP,B-per", "1 3 4"),  # the line tells its sentence
        (6, b",sle\xffps,VBZ,O", "1 3 4"),
        (3, b",Mer,kel,NNP,I-per", "2 3 4"),
        (5, b"Sentence: 2,Mer,kel,NNP,I-per", "1 3 4"),
        (5, b"Sent\xff: 2,Paris,NNP,B-geo", "3 4"),  # what follows may belong to either
        (5, b'Sentence: 2,"Pa"ris,NNP', "3 4"),
        (2, b"lost", "2 3 4"),
        (8, b"Sentence: 4", "1 2 3"),
    ],
)
def test_a_broken_line_costs_its_sentence_and_no_other(
    line: int, by: bytes, left: str, tmp_path: Path
) -> None:
    table = """Sentence #,Word,POS,Tag
Sentence: 1,Angela,NNP,B-per
,Merkel,NNP,I-per
,sings,VBZ,O
Sentence: 2,Paris,NNP,B-geo
,sleeps,VBZ,O
Sentence: 3,Rome,NNP,B-geo
Sentence: 4,Bonn,NNP,B-geo
"""
    texts = ["Angela Merkel sings", "Paris sleeps", "Rome", "Bonn"]
    lines = table.encode().splitlines()
    lines[line - 1] = by
    (tmp_path / "ner.csv").write_bytes(b"\n".join(lines) + b"\n")
    rows, skipped = read(tmp_path / "ner.csv")
    assert [row["text"] for row in rows] == [texts[int(number) - 1] for number in left.split()]
    assert skipped.total == 1


def test_a_broken_line_between_two_numbers_costs_both_sentences(tmp_path: Path) -> None:
    lines = ["1,a,O", "2,b,O", "2,c,O", "lost", "3,d,O", "3,e,O", "4,f,O", "4", "4,g,O", "5,h,O"]
    (tmp_path / "ner.csv").write_text("\n".join(["sent_id,word,tag", *lines]))
    rows, skipped = read(tmp_path / "ner.csv")
    assert [row["text"] for row in rows] == ["a", "h"]
    assert skipped.counts == {"ragged row": 2, "broken sentence": 1}
    assert "ner.csv:6: the line before cannot be read" in skipped.summary()


def test_sentences_that_never_end_are_told(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(delimited, "MOST_WORDS", 2)
    lines = [f"{number},{word},O" for number, word in [(1, "a"), (1, "b"), (1, "c"), (2, "d")]]
    (tmp_path / "ner.csv").write_text("\n".join(["sentence_id,word,tag", *lines]))
    [row], skipped = read(tmp_path / "ner.csv")
    assert row["text"] == "d" and skipped.counts == {"too long": 1}


def test_lists_of_words_beside_a_number_stay_as_they_are(tmp_path: Path) -> None:
    rows = ["sentence_id,tokens,ner_tags", "1,\"['Paris', 'sleeps']\",\"['B-geo', 'O']\""]
    (tmp_path / "ner.csv").write_text("\n".join(rows))
    [row], _ = read(tmp_path / "ner.csv")
    assert found(row) == [("geo", "Paris")]


# -- cards that say nothing ------------------------------------------------------------------------


@pytest.mark.parametrize("card", ["---\na: [b\n---\n", CARD.replace("'0'", "zero"), "# Names\n"])
def test_a_card_that_says_nothing_is_no_end(card: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(card.replace("{key}", "sequence"))
    file = tmp_path / "train.jsonl"
    file.write_text(json.dumps({"tokens": ["Ann", "slept"], "ner_tags": [1, 0]}))
    with pytest.raises(BadData, match=r"1 tags are numbers .*labels\.txt"):
        read(file)


@pytest.mark.parametrize(
    ("span", "reason", "detail"),
    [
        ({**SPAN, "end": 4, "text": "Paris"}, "entity not at its place", "one past the last"),
        ({**SPAN, "start": 1, "end": 6, "text": "Paris"}, "entity not at", "is number 0"),
        (
            {**SPAN, "text": "Rome"},
            "entity not at",
            "`Rome` is said to stand at 0-5, where `Paris`",
        ),
        ({**SPAN, "end": 4.5}, "wrong type", "whole numbers"),
        ({**SPAN, "start": 0.0, "end": 5.0, "text": "Paris"}, "", ""),
        ({**SPAN, "start": "0", "end": "5.0"}, "", ""),
    ],
)
def test_a_span_must_hold_what_it_says(
    span: dict, reason: str, detail: str, tmp_path: Path
) -> None:
    file = tmp_path / "data.jsonl"
    rows = [{"text": PARIS, "entities": given} for given in ([SPAN], [span])]
    file.write_text("\n".join(map(json.dumps, rows)))
    rows, skipped = read(file)
    assert found(rows[0]) == PLACES[:1]
    if reason:
        assert reason in skipped.summary() and detail in skipped.summary()
        assert f"{file}:2" in skipped.summary()
    else:
        assert found(rows[1]) == PLACES[:1] and not skipped.total
