"""`relations` from the user's table to a score: pairs by an encoder, triples by a model that
writes."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mainspring
import nano
from mainspring import events
from mainspring.checkpoints.tokenizer import train_tokenizer
from mainspring.errors import BadOption, Mismatch
from mainspring.families.bert import FAMILY as BERT
from mainspring.families.llama import FAMILY as LLAMA
from mainspring.testing import check_task

NAMES = ("Anna", "Bert", "Clara", "东方", "上航", "Dora")
VERBS = {"owns": "Owner(e1,e2)", "sold": "Owner(e2,e1)", "收购": "Buys(e1,e2)", "met": "Other"}


def sentences(count: int, seed: int = 0) -> list[dict]:
    """The verb between two names tells the relation."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        head, tail = draw.sample(NAMES, 2)
        verb = draw.choice(list(VERBS))
        text = f"today <e1>{head}</e1> {verb} <e2>{tail}</e2> again"
        rows.append({"id": number, "sentence": text, "relation": VERBS[verb]})
    return rows


@pytest.fixture(autouse=True, scope="module")
def _size() -> Iterator[None]:
    """BERT has one more size, which a test trains in seconds."""
    sizes = BERT.sizes
    assert isinstance(sizes, dict)
    small = {"hidden_size": 48, "num_attention_heads": 3, "intermediate_size": 96}
    sizes["bert-nano"] = {**sizes["bert-tiny"], **small}
    yield
    del sizes["bert-nano"]


def fit(data: Path, out: Path, **options):
    given = {"from_scratch": "bert-nano", "tokenizer": "byte-bpe", "vocabulary": 330, **options}
    return mainspring.fit(
        "relations",
        data,
        out=out,
        learning_rate=3e-3,
        batch_tokens=512,
        precision="float32",
        evaluate_every=20,
        patience=0,
        **given,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model that reads relations off verbs, and its data."""
    folder = tmp_path_factory.mktemp("relations")
    nano.write_jsonl(sentences(200), folder / "train.jsonl")
    nano.write_jsonl(sentences(40, seed=1), folder / "test.jsonl")
    fit(folder / "train.jsonl", folder / "model", steps=100)
    return folder


@pytest.mark.slow
def test_it_learns_and_beats_the_majority(folder: Path, tmp_path: Path) -> None:
    model = str(folder / "model")
    found = mainspring.evaluate(
        "relations", folder / "test.jsonl", model=model, out=tmp_path / "out"
    )
    assert found.rows == 40 and found.scores["micro_f1"] > 90
    assert found.baseline["majority"]["micro_f1"] < 50
    assert set(found.report["labels"]) == {"Owner", "Buys"}
    files = {file.name for file in (tmp_path / "out").iterdir()}
    assert files == {"predictions.jsonl", "relations.csv"}
    setup = json.loads((folder / "model" / "mainspring.json").read_text())
    assert setup["labels"] == ["Buys(e1,e2)", "Owner(e1,e2)", "Owner(e2,e1)", "no_relation"]


@pytest.mark.slow
def test_texts_and_tables_of_all_kinds_are_answered(folder: Path, tmp_path: Path) -> None:
    model = str(folder / "model")
    text = "today <e1>东方</e1> 收购 <e2>上航</e2> again"
    [marked] = mainspring.run("relations", text, model=model)
    [relation] = marked["relations"]
    assert relation["type"] == "Buys(e1,e2)" and relation["head"]["text"] == "东方"
    assert marked["text"] == text and marked["score"] == relation["score"]
    plain = "today 东方 收购 上航 again"
    table = nano.write_jsonl(
        [
            {"text": plain, "head": "东方", "tail": "上航"},
            {"text": plain, "head": "东方", "tail": "Anna"},
        ],
        tmp_path / "ends.jsonl",
    )
    seen: list[events.Event] = []
    with events.listening(seen.append):
        [row] = mainspring.run("relations", table, model=model)
    assert row["relations"] == [{**relation, "head": {**relation["head"], "start": 6, "end": 8}}]
    assert any("entity not in the text" in e.text for e in seen if isinstance(e, events.Warn))
    ends = [{"start": 6, "end": 8, "label": "ORG"}, {"start": 12, "end": 14, "label": "ORG"}]
    several = nano.write_jsonl([{"text": plain, "entities": ends}], tmp_path / "entities.jsonl")
    [row] = mainspring.run("relations", several, model=model)
    assert ("东方", "上航") in [(r["head"]["text"], r["tail"]["text"]) for r in row["relations"]]
    seen.clear()
    with events.listening(seen.append):
        [row] = mainspring.run("relations", plain, model=model)
    assert row["relations"] == [] and "<e1>" in row["error"]
    assert any("1 inputs refused" in e.text for e in seen if isinstance(e, events.Warn))


@pytest.mark.slow
@pytest.mark.slow
def test_a_model_of_another_task_is_no_model_of_this(folder: Path) -> None:
    for verb in (mainspring.run, mainspring.evaluate):
        with pytest.raises(Mismatch, match="was taught `relations` and cannot do `classify`"):
            data = nano.write_jsonl([{"text": "a", "label": "b"}], folder / "labels.jsonl")
            verb("classify", data, model=str(folder / "model"))


def test_the_contract_of_a_task_is_kept() -> None:
    check_task("relations", sentences(20), from_scratch="bert-nano", tokenizer="byte-bpe")


@pytest.mark.slow
def test_unknown_relations_at_test_time_are_told(folder: Path, tmp_path: Path) -> None:
    rows = [*sentences(5, seed=3), {"sentence": "<e1>a</e1> is <e2>b</e2>", "relation": "Odd"}]
    data = nano.write_jsonl(rows, tmp_path / "test.jsonl")
    seen: list[events.Event] = []
    with events.listening(seen.append):
        found = mainspring.evaluate("relations", data, model=str(folder / "model"))
    assert any("`Odd` (1)" in e.text for e in seen if isinstance(e, events.Warn))
    assert found.report["labels"]["Odd"]["recall"] == 0


@pytest.mark.slow
def test_a_model_that_writes_learns_triples(nano_size: str, tmp_path: Path) -> None:
    rows = [
        {"text": f"{a} owns {b}", "triples": [{"head": a, "relation": "owns", "tail": b}]}
        for a in NAMES
        for b in NAMES
        if a != b
    ]
    data = nano.write_jsonl(rows * 4, tmp_path / "train.jsonl")
    fit(
        data,
        tmp_path / "model",
        from_scratch=nano_size,
        vocabulary=400,
        steps=60,
        metric_rows=4,
        max_target=40,
    )
    found = mainspring.evaluate("relations", data, model=str(tmp_path / "model"), limit=6)
    assert set(found.scores) == {"precision", "recall", "micro_f1", "macro_f1"}
    looked_up = found.baseline["gazetteer"]  # these are training rows, and so are the reverse
    assert looked_up["recall"] > 80 and 50 <= looked_up["precision"] < 60
    rows = mainspring.run("relations", "Anna owns Bert", model=str(tmp_path / "model"))
    assert isinstance(rows[0]["relations"], list) and rows[0]["stop"] in ("eos", "length")
    config = json.loads((tmp_path / "model" / "tokenizer.json").read_text())
    assert "<triplet>" in json.dumps(config["added_tokens"])


def test_an_adapter_spells_the_marks_of_triples(tmp_path: Path) -> None:
    rows = [
        {"text": f"Anna owns {name}", "relations": [{"head": "Anna", "type": "o", "tail": name}]}
        for name in ("Bert", "Carl", "Dora") * 12
    ]
    data = nano.write_jsonl(rows, tmp_path / "train.jsonl")
    nano.decoder().save(tmp_path / "unigram")
    few: dict[str, Any] = {"steps": 2, "lora": 2, "max_source": 300, "form": "triples"}
    with pytest.raises(BadOption, match=r"`<triplet>`.* cannot hold; leave --lora out"):
        mainspring.fit(
            "relations", data, model=str(tmp_path / "unigram"), out=tmp_path / "a", **few
        )
    words = train_tokenizer([row["text"] for row in rows], 300, "byte-bpe", LLAMA.tokens)
    nano.decoder(tokenizer=words).save(tmp_path / "bytes")
    mainspring.fit("relations", data, model=str(tmp_path / "bytes"), out=tmp_path / "b", **few)
    tokenizer = json.loads((tmp_path / "b" / "tokenizer.json").read_text())
    assert "<triplet>" not in json.dumps(tokenizer["added_tokens"])
    [row] = mainspring.run("relations", "Anna owns Bert", model=str(tmp_path / "b"))
    assert isinstance(row["relations"], list)


# -- what users may get wrong ------------------------------------------------------------------


def test_broken_rows_are_listed_with_their_reasons(tmp_path: Path) -> None:
    bad = [
        {"sentence": "<e1>a <e2>b</e1> c</e2>", "relation": "r"},
        {"sentence": "no marks", "relation": "r"},
        {"sentence": "<e1>a</e1> b", "relation": "r"},
        {"sentence": "<e1>a</e1> <e2>b</e2>", "relation": None},
    ]
    data = nano.write_jsonl([*sentences(30), *bad], tmp_path / "train.jsonl")
    fit(data, tmp_path / "model", steps=1)
    skipped = nano.read_jsonl(tmp_path / "model" / "skipped.jsonl")
    assert [(row["line"], row["reason"]) for row in skipped] == [
        (31, "overlapping spans"),
        (32, "no entities"),
        (33, "broken marks"),
        (34, "missing field"),
    ]


def test_an_encoder_without_the_head_and_an_adapter_are_refused(tmp_path: Path) -> None:
    from mainspring.checkpoints.bundle import new_bundle

    data = nano.write_jsonl(sentences(30), tmp_path / "train.jsonl")
    new_bundle("bert-nano", nano.tokenizer(), 0).save(tmp_path / "bert")
    with pytest.raises(Mismatch, match="mainspring fit relations"):
        mainspring.run("relations", "<e1>a</e1> <e2>b</e2>", model=str(tmp_path / "bert"))
    with pytest.raises(BadOption, match="--lora"):
        mainspring.fit(
            "relations", data, model=str(tmp_path / "bert"), out=tmp_path / "out", lora=4, steps=1
        )
