"""The README's commands and Python are run, on small data and a small model.

What is changed before running: the hub name becomes a local folder (there may be no network), and
each `fit` is told to stop after two steps.
"""

import contextlib
import io
import json
import re
import shlex
from pathlib import Path

import pytest

from mainspring import cli
from mainspring.checkpoints.bundle import family_of_size, new_bundle
from mainspring.checkpoints.tokenizer import train_tokenizer

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
CHINESE = (ROOT / "README.zh-CN.md").read_text(encoding="utf-8")
HUB_NAME = "google-t5/t5-small"
SHORT = ["--steps", "2", "--metric-rows", "2", "--batch-tokens", "512"]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.M | re.S)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the README speaks of: news.csv, test.csv, new.csv, texts, a checkpoint."""
    folder = tmp_path_factory.mktemp("readme")
    sentences = [line.strip() for line in README.split(".") if 20 < len(line.strip()) < 200]
    plain = [" ".join(sentence.replace('"', "").split()) for sentence in sentences]
    rows = [f'"{text}. It is {i}.","{text[:30]}"' for i, text in enumerate(plain)]
    for name in ("news.csv", "test.csv", "new.csv"):
        (folder / name).write_text("text,summary\n" + "\n".join(rows) + "\n", encoding="utf-8")
    (folder / "article.txt").write_text(sentences[0], encoding="utf-8")
    (folder / "text.txt").write_text(README, encoding="utf-8")
    bundle = new_bundle("t5-tiny", train_tokenizer([README], 400), seed=0)
    bundle.save(folder / "checkpoint")
    size = "llama-tiny"  # in the starter's place
    tokenizer = train_tokenizer([README], 500, "byte-bpe", family_of_size(size).tokens)
    new_bundle(size, tokenizer, seed=0).save(folder / "starter")
    return folder


def adapted(command: str, place: Path) -> list[str]:
    words = shlex.split(command.replace(HUB_NAME, str(place / "checkpoint")))
    words = [word.replace("t5-mini", "t5-tiny") for word in words][1:]
    words = [str(place / "starter") if word == "starter" else word for word in words]
    if words[0] in ("run", "evaluate") and "--model" not in words:
        words += ["--model", str(place / "starter")]
    if words[0] == "fit":
        words += SHORT
        if "--from-scratch" in words:
            words += ["--vocabulary", "400"]
    return words


@pytest.mark.slow
def test_the_commands_run(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    commands = [line for block in blocks(README, "bash") for line in block.splitlines()]
    assert len(commands) >= 8
    for command in commands:
        if command.startswith("mainspring get "):
            continue  # needs the network; tests/verbs/test_get.py has a package of its own
        code: object = 0
        with contextlib.redirect_stdout(io.StringIO()) as out:
            try:
                cli.main(adapted(command, place))
            except SystemExit as stop:
                code = stop.code
        assert not code, command
        assert out.getvalue() or "summaries.jsonl" in command
    lines = (place / "summaries.jsonl").read_text(encoding="utf-8").splitlines()
    assert "summary" in json.loads(lines[0])


@pytest.mark.slow
def test_the_python_runs(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    [code] = blocks(README, "python")
    code = code.replace(HUB_NAME, str(place / "checkpoint"))
    code = code.replace(
        'out="runs/py")', 'out="runs/py", steps=2, metric_rows=2, batch_tokens=512)'
    )
    exec(compile(code, "README.md", "exec"), {})
    assert (place / "runs" / "copy" / "model.safetensors").is_file()


def test_the_verbs_table_is_the_truth() -> None:
    for name in cli.COMMANDS:
        assert f"`{name}`" in README, name
    assert "not yet" in README.split("`explain`")[1].splitlines()[0]


def test_both_languages_say_the_same() -> None:
    """Same commands, same code, same headings and table rows in number."""
    assert blocks(README, "bash") == blocks(CHINESE, "bash")
    for pattern in (r"^## ", r"^\| ", r"^- "):
        english, chinese = (len(re.findall(pattern, t, re.M)) for t in (README, CHINESE))
        assert english == chinese, pattern


def test_links_lead_somewhere() -> None:
    for text in (README, CHINESE):
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (ROOT / target).exists(), target
