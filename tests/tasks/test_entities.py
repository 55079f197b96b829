"""`entities`: every layout people bring, what is wrong in them, and the way from fit to run."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

import mainspring
import nano
from mainspring import events
from mainspring.data.readers import sources
from mainspring.data.skipped import SkipLog
from mainspring.errors import BadData
from mainspring.families.bert import FAMILY
from mainspring.tasks.entities import TASK, show
from mainspring.tasks.reading import checked, match

TEXT = "Angela Merkel in Paris"
SPANS = [{"label": "PER", "start": 0, "end": 13}, {"label": "LOC", "start": 17, "end": 22}]
TOKENS, TAGS = TEXT.split(), ["B-PER", "I-PER", "O", "B-LOC"]
NAMES = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
NUMBERS = [NAMES.index(tag) for tag in TAGS]


def read(path: Path, **named: str) -> tuple[list[dict[str, Any]], SkipLog]:
    [source] = sources(path)
    with SkipLog(path.parent / "skipped.jsonl") as skipped:
        rows = checked(TASK, source, match(TASK, source, named), skipped, {})
        return [row.values for row in rows], skipped


# -- data ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "row",
    [
        {"text": TEXT, "entities": SPANS},
        {"text": TEXT, "label": [[0, 13, "PER"], [17, 22, "LOC"]], "id": 7},  # doccano
        {"text": TEXT, "spans": SPANS, "tokens": [{"text": "Angela"}]},  # Prodigy
        {"text": TEXT, "ents": [{"start": 0, "end": 13, "type": "PER"}, SPANS[1]]},
        {"tokens": TOKENS, "ner_tags": TAGS},
        {"words": TOKENS, "labels": ["I-PER", "I-PER", "O", "I-LOC"]},
        {"tokens": TOKENS, "tags": ["B-PER", "L-PER", "O", "U-LOC"]},
        {  # SpERT
            "tokens": TOKENS,
            "entities": [
                {"type": "PER", "start": 0, "end": 2},
                {"type": "LOC", "start": 3, "end": 4},
            ],
            "relations": [{"type": "in", "head": 0, "tail": 1}],
        },
    ],
    ids=lambda row: ",".join(row),
)
def test_rows_as_people_bring_them(tmp_path: Path, row: dict[str, Any]) -> None:
    [values], skipped = read(nano.write_jsonl([row], tmp_path / "rows.jsonl"))
    assert (values["text"], values["entities"]) == (TEXT, SPANS)
    assert skipped.total == 0
    assert ("words" in values) == ("text" not in row)


def test_places_that_are_no_words_are_refused(tmp_path: Path) -> None:
    rows = [
        {"tokens": TOKENS, "entities": [{"type": "PER", "start": start, "end": end}]}
        for start, end in ((0, 2), (0, 5), (2, 2), (-1, 1), ("x", 1))
    ]
    found, skipped = read(nano.write_jsonl(rows, tmp_path / "rows.jsonl"))
    assert [row["entities"] for row in found] == [SPANS[:1]]
    assert skipped.counts == {"offsets out of range": 3, "wrong type": 1}
    assert "0-5 in 4 words" in skipped.summary()


def test_the_scheme_of_tags_is_told_from_many_rows(tmp_path: Path) -> None:
    """One row alone would be read as bare labels."""
    rows = [
        {"tokens": TOKENS, "tags": ["per-b", "per-i", "o", "loc-b"]},
        {"tokens": ["Paris"], "tags": ["O"]},
        {"tokens": ["Bonn", "II"], "tags": ["loc-i", "O"]},
        {"tokens": ["Rome"], "tags": ["B-LOC"]},
    ]
    said: list[object] = []
    with events.listening(said.append):
        found, skipped = read(nano.write_jsonl(rows, tmp_path / "rows.jsonl"))
    labels = [[e["label"] for e in row["entities"]] for row in found]
    assert labels == [["per", "loc"], [], ["loc"]]
    assert skipped.counts == {"tag of another scheme": 1}
    assert skipped.mended == {"tags out of order": 1}
    assert any("`per-b` is read as `B-per`" in str(event) for event in said)


def test_conll_files_by_other_names(tmp_path: Path) -> None:
    lines = "".join(f"{word}\t{tag}\n" for word, tag in zip(TOKENS, TAGS, strict=True))
    for name in ("train.txt", "train.tsv"):
        (tmp_path / name).write_text(lines)
        [values], skipped = read(tmp_path / name)
        assert (values["text"], values["entities"], skipped.total) == (TEXT, SPANS, 0)


def test_lists_in_the_cells_of_a_table(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerows(
            [["tokens", "tags"], [TOKENS, TAGS], [json.dumps(TOKENS), json.dumps(TAGS)]]
        )
        writer.writerow(["['Angela' 'Merkel']", "['B-PER' 'I-PER']"])
    rows, skipped = read(file)
    assert [row["entities"] for row in rows] == [SPANS, SPANS]
    assert skipped.counts == {"wrong type": 1} and "without commas" in skipped.summary()


def test_numbers_are_named_by_a_file_beside_the_data(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("\n".join(NAMES) + "\n")
    rows = [
        {"tokens": TOKENS, "ner_tags": NUMBERS},
        {"tokens": ["x"], "ner_tags": [9]},
        {"tokens": TOKENS, "ner_tags": str(NUMBERS)},
    ]
    found, skipped = read(nano.write_jsonl(rows, tmp_path / "rows.jsonl"))
    assert [row["entities"] for row in found] == [SPANS, SPANS]
    assert "tags out of range (first: " in skipped.summary() and "5 names" in skipped.summary()


def test_numbers_without_names_are_refused(tmp_path: Path) -> None:
    file = nano.write_jsonl([{"tokens": TOKENS, "ner_tags": NUMBERS}], tmp_path / "rows.jsonl")
    with pytest.raises(BadData, match=r"tags are numbers .*labels\.txt beside the data"):
        read(file)


def test_classes_of_a_parquet_file_have_their_names(tmp_path: Path) -> None:
    label = {"names": NAMES, "_type": "ClassLabel"}
    for number, feature in enumerate([{"feature": label, "_type": "Sequence"}, [label]]):
        info = {"info": {"features": {"tokens": {}, "ner_tags": feature, "kind": label}}}
        table = pa.table({"tokens": [TOKENS], "ner_tags": [NUMBERS], "kind": [-1]})
        file = tmp_path / f"{number}.parquet"
        pa.parquet.write_table(
            table.replace_schema_metadata({"huggingface": json.dumps(info)}), file
        )
        [values], _ = read(file)
        assert values["entities"] == SPANS


def test_what_is_wrong_is_counted_and_listed(tmp_path: Path) -> None:
    rows = [
        {"text": TEXT, "entities": SPANS},
        {"text": TEXT, "entities": [[17, 23, "LOC"]]},
        {"text": "", "entities": []},
        {"text": TEXT, "entities": [[3, 3, "LOC"]]},
        {"text": TEXT, "entities": [*SPANS, [7, 16, "X"]]},
        {"text": TEXT, "entities": "nothing"},
        {"text": TEXT, "entities": []},
        {"text": "Merkel\0", "entities": []},
    ]
    found, skipped = read(nano.write_jsonl(rows, tmp_path / "rows.jsonl"))
    assert [len(row["entities"]) for row in found] == [2, 2, 0]
    assert skipped.counts == {
        "offsets out of range": 1,
        "empty text": 1,
        "empty entity": 1,
        "wrong type": 1,
        "NUL characters": 1,
    }
    assert skipped.mended == {"overlapping entity": 1}
    listed = nano.read_jsonl(tmp_path / "skipped.jsonl")
    assert [entry["line"] for entry in listed] == [2, 3, 4, 5, 6, 8]
    assert listed[0]["detail"] == "LOC 17-23 in a text of 22 characters"
    assert "`Merkel in` X 7-16 lies over `Angela Merkel` PER 0-13" in listed[3]["detail"]


def test_tags_that_do_not_fit(tmp_path: Path) -> None:
    rows = [
        {"tokens": TOKENS, "tags": TAGS[:3]},
        {"tokens": TOKENS, "tags": ["O", "I-PER", "O", "I-LOC"]},
        {"tokens": [], "tags": []},
        {"tokens": [" "], "tags": ["O"]},
    ]
    found, skipped = read(nano.write_jsonl(rows, tmp_path / "rows.jsonl"))
    assert len(found) == 1
    assert skipped.counts == {"tags of wrong length": 1, "empty text": 2}
    assert skipped.mended == {"tags out of order": 1}


def test_entities_in_words() -> None:
    entity = {"text": "Angela \n Merkel", "label": "PER", "score": 0.987}
    assert show([entity, {"text": "Paris", "label": "LOC", "score": 1.0}]) == (
        "Angela Merkel (PER 0.99), Paris (LOC 1.00)"
    )
    assert show([]) == "no entities"


# -- from data to answers --------------------------------------------------------------------------


PEOPLE, PLACES = ("Anna", "Boris", "Clara", "David"), ("Rome", "Oslo", "Lima", "Cairo")
OTHER = ("the", "river", "is", "quiet", "today", "and", "near")


def sentence(i: int) -> list[tuple[str, str]]:
    person, place = PEOPLE[i % 4], PLACES[(i // 4) % 4]
    rest = [(OTHER[(i + k) % 7], "O") for k in range(3)]
    return [*rest[: i % 3], (person, "B-PER"), *rest[i % 3 :], ("in", "O"), (place, "B-LOC")]


def write_conll(file: Path, numbers: range, more: str = "") -> Path:
    blocks = ["".join(f"{word}\t{tag}\n" for word, tag in sentence(i)) for i in numbers]
    file.write_text("\n".join([*blocks, more]), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that `fit entities` wrote, its data beside it."""
    folder = tmp_path_factory.mktemp("entities")
    (folder / "data").mkdir()
    write_conll(folder / "data" / "train.conll", range(64))
    write_conll(folder / "data" / "validation.conll", range(64, 72))
    write_conll(folder / "data" / "test.conll", range(72, 84), "near\tO\nWien\tB-CITY\n\nbad\n")
    tiny = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FAMILY.sizes, "bert-nano", {**FAMILY.sizes["bert-tiny"], **tiny})
        mainspring.fit(
            "entities",
            folder / "data",
            out=folder / "model",
            from_scratch="bert-nano",
            vocabulary=300,
            steps=60,
            learning_rate=1e-2,
            batch_tokens=512,
            max_source=24,
            evaluate_every=30,
            precision="float32",
        )
    return folder / "model"


def test_what_is_learnt_is_evaluated(fitted: Path) -> None:
    out = fitted.parent / "evaluation"
    result = mainspring.evaluate(
        "entities", fitted.parent / "data", model=str(fitted), out=out, precision="float32"
    )
    assert (result.rows, result.skipped) == (13, 1)
    assert list(result.scores)[:3] == ["f1", "precision", "recall"]
    assert {"f1 CITY", "f1 LOC", "f1 PER"} < set(result.scores)
    assert result.scores["f1"] > 90
    assert result.scores["f1 CITY"] == 0
    assert result.baseline["gazetteer"]["recall"] == pytest.approx(100 * 24 / 25)
    assert result.counts["entities of unknown labels"] == 1
    assert "nervaluate" in result.signature
    rows = nano.read_jsonl(out / "predictions.jsonl")
    assert rows[0]["predicted_tags"] == rows[0]["tags"]
    assert nano.read_jsonl(out / "skipped.jsonl")[0]["reason"] == "no tag"


def test_a_folder_opens_in_transformers(fitted: Path) -> None:
    from transformers import AutoModelForTokenClassification

    model = AutoModelForTokenClassification.from_pretrained(fitted)
    assert model.config.id2label[1] == "B-LOC"


def test_entities_of_any_input(fitted: Path, tmp_path: Path) -> None:
    def run(*inputs: object, **options: Any) -> list[dict[str, Any]]:
        options = {"precision": "float32", **options}
        return mainspring.run("entities", *map(str, inputs), model=str(fitted), **options)

    text = "river  Boris\tis quiet in Rome"
    [answer] = run(text)
    assert [(e["text"], e["label"]) for e in answer["entities"]] == [
        ("Boris", "PER"),
        ("Rome", "LOC"),
    ]
    assert all(text[e["start"] : e["end"]] == e["text"] for e in answer["entities"])
    [again] = run(nano.write_jsonl([{"text": text, "entities": 3}], tmp_path / "a.jsonl"))
    assert again["entities"] == answer["entities"] and again["input_entities"] == 3
    rows = run(write_conll(tmp_path / "b.conll", range(3)))
    assert [row["predicted_tags"] for row in rows] == [
        [t for _, t in sentence(i)] for i in range(3)
    ]
    (tmp_path / "long.txt").write_text("\n".join([text] * 50))
    [long] = run(tmp_path / "long.txt")
    assert long["windows"] > 5 and long["source_tokens_unread"] == 0
    assert len(long["entities"]) >= 95
    assert long["entities"][-1]["end"] == 50 * (len(text) + 1) - 1
    (tmp_path / "lines.txt").write_bytes("\r\n".join([text] * 3).encode())
    [lines] = run(tmp_path / "lines.txt")
    whole = (tmp_path / "lines.txt").read_bytes().decode()
    assert all(whole[e["start"] : e["end"]] == e["text"] for e in lines["entities"])
    assert len(lines["entities"]) > 3 and lines["text"] == whole
    [refused] = run(tmp_path / "long.txt", on_long="refuse")
    assert refused["entities"] == [] and "the model reads 24" in refused["error"]


def test_a_table_of_answers_holds_json(fitted: Path, tmp_path: Path) -> None:
    out = tmp_path / "answers.csv"
    mainspring.run(
        "entities", "river Boris is quiet in Rome", model=str(fitted), out=out, precision="float32"
    )
    with out.open(newline="") as stream:
        [row] = csv.DictReader(stream)
    assert [e["label"] for e in json.loads(row["entities"])] == ["PER", "LOC"]


def test_a_fitted_model_is_taught_more(fitted: Path, tmp_path: Path) -> None:
    """Labels it has stay where they are; the names of people are not in its folder."""
    assert "Anna" not in (fitted / "mainspring.json").read_text()
    seen: list[events.Event] = []
    with events.listening(seen.append):
        mainspring.fit(
            "entities",
            fitted.parent / "data",
            model=str(fitted),
            out=tmp_path / "more",
            steps=1,
            metric_rows=2,
            precision="float32",
        )
    assert not any("fresh" in event.text for event in seen if isinstance(event, events.Note))
    assert json.loads((tmp_path / "more" / "mainspring.json").read_text())["labels"] == [
        *("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
    ]
