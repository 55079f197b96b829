"""`translate` on data as people bring it."""

import json
from pathlib import Path
from typing import Any

import pytest

import mainspring
import nano
from mainspring import events
from mainspring.data.kinds import Flaw
from mainspring.data.readers import sources
from mainspring.data.rows import Row
from mainspring.data.skipped import SkipLog
from mainspring.errors import BadData, BadOption
from mainspring.tasks.reading import by_columns, checked, match
from mainspring.tasks.settings import remembered
from mainspring.tasks.translate import TASK, unfold

PAIR = {"text": "one", "target": "eins"}


def read(path: Path, named: dict[str, str] | None = None, **options: str) -> list[dict[str, Any]]:
    """The rows of a file or folder as the task reads them."""
    [source] = sources(path)
    task, _ = by_columns(TASK, options, source, named or {})
    matched = match(task, source, named or {})
    return [row.values for row in checked(task, source, matched, SkipLog(), {})]


def jsonl(folder: Path, *rows: Any) -> Path:
    return nano.write_jsonl(rows, folder / "data.jsonl")


def test_the_languages_are_columns(tmp_path: Path) -> None:
    file = jsonl(tmp_path, {"id": 1, "en": "one", "de": "eins", "en_author": "x"})
    assert read(file, source_language="en", target_language="de") == [PAIR]
    assert read(file, source_language="de", target_language="en") == [
        {"text": "eins", "target": "one"}
    ]
    # Where there are two, one tells the other.
    assert read(file, source_language="en") == [PAIR]
    assert read(file, target_language="de") == [PAIR]
    table = tmp_path / "data.tsv"
    table.write_text("EN-US\tde_AT\none\teins\n", encoding="utf-8")
    assert read(table, source_language="en", target_language="de") == [PAIR]


@pytest.mark.parametrize(
    "row",
    [
        {"translation": {"en": "one", "de": "eins"}},
        {"id": 3, "translation": '{"en": "one", "de": "eins"}'},
        {"source": "one", "target": "eins"},
        {"text": "one", "translation": "eins"},
        {"src": "one", "tgt": "eins"},
    ],
)
def test_other_columns_people_bring(tmp_path: Path, row: dict[str, Any]) -> None:
    assert read(jsonl(tmp_path, row), source_language="en", target_language="de") == [PAIR]


def test_files_side_by_side_and_translation_memories(tmp_path: Path) -> None:
    (tmp_path / "train.en").write_text("one\n")
    (tmp_path / "train.de").write_text("eins\n")
    assert read(tmp_path / "train.en", source_language="en") == [PAIR]
    unit = '<tu><tuv xml:lang="{}"><seg>{}</seg></tuv><tuv xml:lang="{}"><seg>{}</seg></tuv></tu>'
    memory = tmp_path / "a.tmx"
    body = unit.format("en-GB", "one", "de-DE", "eins")
    memory.write_text(f'<tmx version="1.4"><body>{body}</body></tmx>')
    assert read(memory, source_language="en", target_language="de") == [PAIR]


def test_columns_named_by_the_user_win_and_tell_their_languages(tmp_path: Path) -> None:
    file = jsonl(tmp_path, {"en": "one", "de": "eins", "de2": "ein"})
    named = {"text": "en", "target": "de2"}
    assert read(file, named) == [{"text": "one", "target": "ein"}]
    [source] = sources(file)
    both = {"text": "de", "target": "en"}
    found = by_columns(TASK, {}, source, both)[1]
    assert found == {"source_language": "de", "target_language": "en"}
    assert TASK.read_options({"source-language": "de"}, ()) == {"source_language": "de"}


def test_data_that_does_not_say_which_way(tmp_path: Path) -> None:
    file = jsonl(tmp_path, {"en": "one", "de": "eins"})
    with pytest.raises(BadOption, match="--source-language en --target-language de or the other"):
        read(file)
    with pytest.raises(BadOption, match="are the same: en"):
        read(file, source_language="en", target_language="EN")
    with pytest.raises(BadData, match="--target-language fr: the languages are `en`, `de`;"):
        read(file, source_language="en", target_language="fr")
    three = jsonl(tmp_path, {"en": "one", "de": "eins", "fr": "un"})
    with pytest.raises(BadData, match=r"--target-language is not said: .* `en`, `de`, `fr`;"):
        read(three, source_language="en")
    with pytest.raises(BadData, match="no column for the text"):
        read(jsonl(tmp_path, {"a": "one", "target": "eins"}), source_language="en")


def memory(folder: Path, *units: dict[str, str]) -> Path:
    file = folder / "a.tmx"
    body = "".join(
        "<tu>"
        + "".join(f'<tuv xml:lang="{code}"><seg>{t}</seg></tuv>' for code, t in unit.items())
        + "</tu>"
        for unit in units
    )
    file.write_text(f'<tmx version="1.4"><body>{body}</body></tmx>')
    return file


def test_variants_of_a_language_are_one_where_that_is_clear(tmp_path: Path) -> None:
    units = [{"en-US": "one", "de-DE": "eins"}, {"en": "one", "de": "eins"}]
    file = memory(tmp_path, *units, {"en_GB": "one", "de-AT": "eins"})
    assert read(file, source_language="en", target_language="de") == [PAIR] * 3
    assert read(file, source_language="en-GB", target_language="de") == [PAIR]
    both = memory(tmp_path, {"en-US": "color", "en-GB": "colour", "de": "Farbe"})
    with pytest.raises(BadData, match=r"several variants of a language .* en-us, en-gb: ask"):
        read(both, source_language="en", target_language="de")
    asked = read(both, source_language="en-GB", target_language="de")
    assert asked == [{"text": "colour", "target": "Farbe"}]


def test_another_variant_than_the_one_asked_for_is_told(tmp_path: Path) -> None:
    file = memory(tmp_path, {"zh-CN": "one", "de": "eins"})
    seen: list[events.Event] = []
    with events.listening(seen.append):
        assert read(file, source_language="zh-TW", target_language="de") == [PAIR]
    assert events.Warn("`zh-TW` is not there: `zh-cn` is taken") in seen


def test_rows_that_lack_a_language_are_skipped(tmp_path: Path) -> None:
    rows = [
        {"translation": {"en": "one", "de": "eins"}},
        {"translation": {"en": "two"}},
        {"translation": {"en": "three", "de": " "}},
        {"translation": {"en": "four", "de": None}},
        {"translation": {"en": 5, "de": "fünf"}},
    ]
    [source] = sources(jsonl(tmp_path, *rows))
    options = {"source_language": "en", "target_language": "de"}
    task, _ = by_columns(TASK, options, source, {})
    log = SkipLog()
    found = list(checked(task, source, match(task, source, {}), log, {}))
    assert [row.values for row in found] == [PAIR]
    assert log.counts == {
        "missing partner": 1,
        "empty text": 1,
        "missing field": 1,
        "wrong type": 1,
    }


def test_a_translation_that_is_a_text_stays_one() -> None:
    row = Row({"text": "a", "translation": "{b} is no JSON"}, "f", 1)
    assert list(unfold(row)) == [row]
    with pytest.raises(Flaw, match="missing partner"):
        list(unfold(Row({"translation": {"en": "a"}}, "f", 1)))


# -- the whole way ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that `fit translate` wrote, `test.jsonl` beside it."""
    folder = tmp_path_factory.mktemp("translate")
    texts = [row["summary"] for row in nano.pairs(100)]
    rows = [{"en": text, "de": " ".join(w[::-1] for w in text.split())} for text in texts]
    nano.write_jsonl(rows[:90], folder / "train.jsonl")
    nano.write_jsonl(rows[90:], folder / "test.jsonl")
    with nano.size() as name:
        mainspring.fit(
            "translate",
            folder / "train.jsonl",
            out=folder / "model",
            from_scratch=name,
            source_language="en",
            steps=12,
            learning_rate=1e-2,
            max_source=30,
            max_target=14,
            batch_tokens=1024,
            vocabulary=300,
            metric_rows=2,
            precision="float32",
        )
    return folder / "model"


def test_the_model_remembers_its_languages(model: Path) -> None:
    stored = json.loads((model / "mainspring.json").read_text())["options"]
    assert stored == {"source_language": "en", "target_language": "de", "split_at": "line"}
    assert remembered(str(model), TASK) == stored
    assert json.loads((model / "run.json").read_text())["options"]["task_options"] == {
        "source_language": "en",
        "target_language": "de",
    }


def test_another_language_than_the_one_that_was_taught_is_warned_of(model: Path) -> None:
    for language, warned in (("de", 0), ("fr", 1)):
        seen: list[events.Event] = []
        with events.listening(seen.append):
            mainspring.run("translate", "River.", model=str(model), target_language=language)
        told = [e.text for e in seen if isinstance(e, events.Warn) and "was taught with" in e.text]
        assert len(told) == warned
    assert "--target-language fr" in told[0] and "taught with de" in told[0]


def test_evaluation_finds_the_columns_by_what_the_model_remembers(model: Path) -> None:
    from sacrebleu.metrics import BLEU, CHRF

    data, out = model.parent / "test.jsonl", model.parent / "scored"
    found = mainspring.evaluate("translate", data, model=str(model), out=out, precision="float32")
    rows = nano.read_jsonl(out / "predictions.jsonl")
    hypotheses = [row["predicted_translation"] for row in rows]
    references = [row["de"] for row in rows]
    assert found.scores == {
        "bleu": pytest.approx(BLEU().corpus_score(hypotheses, [references]).score, abs=1e-4),
        "chrf2": pytest.approx(CHRF().corpus_score(hypotheses, [references]).score, abs=1e-4),
    }
    copied = CHRF().corpus_score([row["en"] for row in rows], [references]).score
    assert found.baseline["copy"]["chrf2"] == pytest.approx(copied, abs=1e-4)
    low, high = found.interval["chrf2"]
    assert low <= found.scores["chrf2"] <= high
    assert "tok:13a" in found.signature
    same = mainspring.evaluate(
        "translate", data, model=str(model), against=str(model), limit=4, precision="float32"
    )
    assert same.against["p"] == {"bleu": 1.0, "chrf2": 1.0}


def test_a_document_keeps_its_lines(model: Path, tmp_path: Path) -> None:
    file, terms = tmp_path / "letter.txt", tmp_path / "terms.tsv"
    file.write_text("River bridge.\n\n  Quiet early market.\nDoctor.\n")
    # A term in every line: a model of twelve steps may well write nothing of its own.
    terms.write_text("River\tengine\nmarket\tengine river\nDoctor\tgarden\n")
    [row] = mainspring.run(
        "translate", file, model=str(model), precision="float32", terms=str(terms)
    )
    first, blank, third, fourth, end = row["translation"].split("\n")
    assert "engine" in first and "garden" in fourth
    assert third.startswith("  ") and "engine river" in third
    assert blank == end == ""


def test_a_table_with_the_source_alone_is_translated(model: Path, tmp_path: Path) -> None:
    table = jsonl(tmp_path, {"en": "River."}, {"en": "Doctor."})
    rows = mainspring.run("translate", table, model=str(model), precision="float32")
    assert [row["en"] for row in rows] == ["River.", "Doctor."]
    assert all(isinstance(row["translation"], str) for row in rows)


def test_options_that_cannot_be(model: Path) -> None:
    with pytest.raises(BadOption, match="--split-at"):
        mainspring.run("translate", "x", model=str(model), split_at="word")
    with pytest.raises(BadOption, match="--source-language"):
        mainspring.run("translate", "x", model=str(model), source_lang="en")
