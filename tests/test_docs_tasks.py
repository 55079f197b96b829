"""The commands of the pages on `classify` and `relations` are run on small data, two steps each."""

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest

import nano
from mainspring import cli

PAGES = Path(__file__).resolve().parent.parent / "docs" / "tasks"
SHORT = ["--steps", "2", "--metric-rows", "2", "--vocabulary", "330", "--tokenizer", "byte-bpe"]


def blocks(page: str, language: str) -> list[str]:
    text = (PAGES / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.M | re.S)


def reviews(file: Path) -> None:
    rows = [f"The room was {word} {n}.,{label}" for n in range(12) for word, label in WORDS]
    file.write_text("text,label\n" + "\n".join(rows) + "\n", encoding="utf-8")


WORDS = (("lovely", "good"), ("awful", "bad"))
SENTENCES = [
    {"text": f"In {year} <e1>Anna</e1> {verb} <e2>Bert</e2>.", "relation": relation}
    for year in range(1990, 2002)
    for verb, relation in (("paid", "pays"), ("left", "leaves"), ("saw", "Other"))
]


@pytest.mark.slow
@pytest.mark.parametrize("page", ["classify.md", "relations.md"])
def test_the_commands_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("reviews.csv", "test.csv", "new.csv"):
        reviews(tmp_path / name)
    for name in ("company.jsonl", "test.jsonl", "new.jsonl"):
        nano.write_jsonl(SENTENCES, tmp_path / name)
    commands = [line for block in blocks(page, "bash") for line in block.splitlines()]
    assert len(commands) == 4
    for command in commands:
        words = shlex.split(command.replace("bert-mini", "bert-tiny"))[1:]
        words += SHORT if words[0] == "fit" else []
        code: object = 0
        with contextlib.redirect_stdout(io.StringIO()) as out:
            try:
                cli.main(words)
            except SystemExit as stop:
                code = stop.code
        assert not code, command
        assert out.getvalue() or "--out" in words
    assert (tmp_path / ("labelled.csv" if page == "classify.md" else "found.jsonl")).is_file()


@pytest.mark.slow
def test_the_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    reviews(tmp_path / "reviews.csv")
    [code] = blocks("classify.md", "python")
    exec(code.replace("balance=", "steps=2, vocabulary=330, tokenizer='byte-bpe', balance="), {})
    assert capsys.readouterr().out.split()[0] in ("good", "bad")
