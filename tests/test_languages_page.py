"""The commands of docs/languages.md run, one after the other, on small models."""

import shlex
from pathlib import Path

import pytest

import nano
from mainspring import cli
from mainspring.checkpoints.bundle import family_of_size, load, new_bundle
from mainspring.checkpoints.tokenizer import train_tokenizer
from test_readme import blocks

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "languages.md").read_text(encoding="utf-8")
SHORT = ["--steps", "2", "--metric-rows", "2", "--batch-tokens", "512", "--max-source", "48"]


def test_the_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    texts = [f"东方航空与上航合并{number}次" for number in range(40)]
    tags = ["B-ORG", "I-ORG", "I-ORG", "I-ORG", "O", "B-ORG", "I-ORG", *"OOOOO"]
    sentences = [
        "\n".join(f"{c}\t{tag}" for c, tag in zip(text, tags, strict=False)) for text in texts
    ]
    Path("train.conll").write_text("\n\n".join(sentences) + "\n", encoding="utf-8")
    Path("texts.txt").write_text("\n\n".join(texts * 40), encoding="utf-8")
    english = train_tokenizer(["a quiet river"] * 5, 300, layout=family_of_size("bert-tiny").tokens)
    new_bundle("bert-tiny", english, 0).save(tmp_path / "minilm")
    [block] = blocks(PAGE, "bash")
    commands = [shlex.split(line)[1:] for line in block.splitlines()]
    for words in commands:
        words = [word.replace("bert-mini", "bert-tiny") for word in words]
        words = [str(tmp_path / word) if word == "minilm" else word for word in words]
        more = ["--vocabulary", "400"] if "--from-scratch" in words else []
        with pytest.raises(SystemExit) as left:
            cli.main([*words, *SHORT, *more])
        assert left.value.code == 0
    grown, was = (load(name).tokenizer for name in (Path("runs/grown"), tmp_path / "minilm"))
    assert grown is not None and was is not None
    assert grown.id_of("航") and not grown.id_of("G") and not was.id_of("航")  # ORG is no text
    bodies = [load(Path("runs") / name).model.state_dict() for name in ("body", "names")]
    assert bodies[0].keys() != bodies[1].keys()  # the words' head has given way to the tags'
    assert nano.read_jsonl(Path("runs/names/metrics.jsonl"))
