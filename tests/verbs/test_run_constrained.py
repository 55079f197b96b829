"""`run --schema`, `--grammar`, `--regex`, `--choices`: what is written fits, whatever writes it."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

import mainspring
import nano
from mainspring import cli, events, registry
from mainspring.checkpoints.bundle import Bundle
from mainspring.checkpoints.tokenizer import train_tokenizer
from mainspring.core.init import build
from mainspring.errors import BadOption, Missing

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 5},
        "ages": {"type": "array", "items": {"type": "integer", "maximum": 99, "minimum": 0}},
    },
    "required": ["name", "ages"],
    "additionalProperties": False,
}
SCHEMA["properties"]["ages"]["maxItems"] = 3


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of random weights that reads any text."""
    texts = [json.dumps({"name": word, "ages": [1, 23]}) for word in nano.WORDS]
    tokenizer = train_tokenizer([*texts, *nano.WORDS] * 3, 400, "byte-bpe")
    family = registry.find("families", "llama")
    config = {**family.examples[0], "vocab_size": tokenizer.vocabulary, "rope_scaling": None}
    config |= {"max_position_embeddings": 512}
    generation = {"eos_token_id": tokenizer.eos_id, "pad_token_id": tokenizer.pad_id}
    model = build(family.spec(config, ()), 0).eval()
    folder = tmp_path_factory.mktemp("writer") / "model"
    Bundle(model, {**config, **generation}, family, tokenizer, generation).save(folder)
    return folder


def generate(model: Path, *inputs: object, **options: Any) -> list[dict[str, Any]]:
    given = {"precision": "float32", "max_new_tokens": 90, **options}
    return mainspring.run("generate", *map(str, inputs), model=str(model), **given)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return nano.write_jsonl([{"text": f"{word} is"} for word in nano.WORDS], tmp_path / "r.jsonl")


@pytest.mark.parametrize("search", [{}, {"num_beams": 2}, {"do_sample": True, "seed": 3}])
def test_rows_of_a_file_fit_the_schema(
    writer: Path, rows: Path, tmp_path: Path, search: dict[str, Any]
) -> None:
    file = tmp_path / "person.json"
    file.write_text(json.dumps(SCHEMA))
    made = generate(writer, rows, schema=file, **search)
    assert [row["text"] for row in made] == [row["text"] for row in nano.read_jsonl(rows)]
    for row in made:
        assert row["stop"] == "eos"
        found = json.loads(row["generated_text"])
        assert set(found) == {"name", "ages"} and len(found["ages"]) <= 3
    assert made == generate(writer, rows, schema=SCHEMA, **search)


def test_grammars_and_patterns_with_a_decoder_and_an_encoder_decoder(
    writer: Path, trained: Path, rows: Path, tmp_path: Path
) -> None:
    file = tmp_path / "sum.lark"
    file.write_text('start: INT ("+" INT){1,2}\nINT: /[1-9][0-9]?/\n')
    for row in generate(writer, rows, grammar=file):
        assert re.fullmatch(r"[1-9]\d?(\+[1-9]\d?){1,2}", row["generated_text"])
    pattern = r"[a-z]{3}( [a-z]{2}){1,2} "
    for row in generate(writer, rows, regex=pattern):
        assert re.fullmatch(pattern, row["generated_text"])
    table = trained.parent / "test.jsonl"
    options: dict[str, Any] = {"model": str(trained), "num_beams": 2, "on_long": "cut"}
    [made, free] = [
        mainspring.run("summarize", table, max_new_tokens=40, **options, **fit)
        for fit in ({"regex": r"[A-Z][a-z]{1,8}( [a-z]{1,8}){1,2}\."}, {})
    ]
    assert {row["stop"] for row in made} == {"eos"}
    assert all(re.fullmatch(r"[A-Z][a-z]+( [a-z]+){1,2}\.", row["summary"]) for row in made)
    assert [row["summary"] for row in made] != [row["summary"] for row in free]


def test_the_command_line_streams_one_of_the_choices(
    writer: Path, capsys: pytest.CaptureFixture
) -> None:
    words = ["run", "generate", "Is it?", "--model", str(writer), "--choices", "yes", "not sure"]
    with pytest.raises(SystemExit, match="0"):
        cli.main([*words, "--quiet", "--precision", "float32"])
    assert capsys.readouterr().out in ("yes\n", "not sure\n")


def test_text_is_told_as_it_is_written(writer: Path) -> None:
    seen: list[events.Event] = []
    with events.listening(seen.append):
        [row] = generate(writer, "a", regex=" [a-z]{20} ")
    told = [event.text for event in seen if isinstance(event, events.Text)]
    assert len(told) > 1 and "".join(told) == row["generated_text"]
    assert re.fullmatch(" [a-z]{20} ", row["generated_text"])


def test_a_text_that_the_limit_cuts_is_told(writer: Path) -> None:
    seen: list[events.Event] = []
    with events.listening(seen.append):
        [row] = generate(writer, "a", regex="a{90}", max_new_tokens=3)
    assert row["stop"] == "length"
    assert any("1 of 1 texts end at the length limit" in str(event) for event in seen)


def test_windows_are_not_joined(trained: Path) -> None:
    long = " ".join(row["article"] for row in nano.pairs(9))
    options: dict[str, Any] = {"model": str(trained), "choices": ["River.", "Market."]}
    [row] = mainspring.run("summarize", long, **options)
    assert "--on-long cut reads the beginning" in row["error"] and not row["summary"]
    [row] = mainspring.run("summarize", long, on_long="cut", **options)
    assert row["summary"] in options["choices"] and row["source_tokens_unread"] > 0


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"schema": "persn.json"}, Missing, r"--schema .*no such file; did you mean .*person.json"),
        ({"schema": "person.json"}, BadOption, "person.json at /properties/a: Invalid type: strin"),
        ({"schema": "half.json"}, BadOption, r"half.json is no JSON.*\(line 1, column 10\)"),
        ({"schema": {"type": "objekt"}}, BadOption, "--schema: Invalid type: objekt"),
        ({"grammar": "g.lark"}, BadOption, r'(?s)--grammar .*g.lark: .*unknown name: "x"'),
        ({"grammar": "latin1.lark"}, BadOption, "not a text in UTF-8"),
        ({"regex": "(a"}, BadOption, "(?s)--regex: .*unclosed group"),
        ({"choices": []}, BadOption, "--choices must be texts"),
        ({"choices": ["a"], "regex": "a"}, BadOption, "--regex and --choices: give one of them"),
    ],
)
def test_what_is_wrong_is_said_before_a_model_is_opened(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    error: type[Exception],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("person.json").write_text('{"properties": {"a": {"type": "strin"}}}')
    Path("half.json").write_text('{"type": ')
    Path("g.lark").write_text("start: x\n")
    Path("latin1.lark").write_bytes('start: "ä"'.encode("latin-1"))
    with pytest.raises(error, match=said):
        mainspring.run("generate", "text", model="./nowhere", **options)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(Missing, match=r"pip install 'mainspring\[constrained\]'"):
        mainspring.run("generate", "text", model="./nowhere", regex="a")


def test_tasks_that_cannot_be_held_to_it(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(BadOption, match="--choices: translation does not write one text"):
        mainspring.run("translate", "River.", model=str(trained), choices=["a"])
    data = [{"text": word, "label": "long" if len(word) > 6 else "short"} for word in nano.WORDS]
    file = nano.write_jsonl(data * 2, tmp_path / "labels.jsonl")
    options: dict[str, Any] = {"from_scratch": "bert-tiny", "steps": 1, "vocabulary": 300}
    mainspring.fit("classify", file, out=tmp_path / "out", metric_rows=1, **options)
    with pytest.raises(BadOption, match=r"--choices: .*classification does not write one text"):
        mainspring.run("classify", "River.", model=str(tmp_path / "out"), choices=["a"])
