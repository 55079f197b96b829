"""The Python of docs/decoding.md runs, on a small model."""

import json
import re
from pathlib import Path

import pytest
import torch

import mainspring
from mainspring import registry
from mainspring.checkpoints.bundle import Bundle
from mainspring.checkpoints.tokenizer import train_tokenizer
from mainspring.core.init import build

PAGE = Path(__file__).resolve().parents[2] / "docs" / "decoding.md"


def small() -> Bundle:
    """A Llama of random weights that reads any text."""
    page = PAGE.read_text(encoding="utf-8")
    tokenizer = train_tokenizer([page] * 3, 500, "byte-bpe")
    family = registry.find("families", "llama")
    config = {**family.examples[0], "vocab_size": tokenizer.vocabulary}
    config |= {"max_position_embeddings": 512, "rope_scaling": None}
    model = build(family.spec(config, ()), 0).eval()
    generation = {"eos_token_id": tokenizer.eos_id, "pad_token_id": tokenizer.pad_id}
    return Bundle(model, config, family, tokenizer, generation)


def test_the_page(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setattr(mainspring, "load", lambda name: small())
    small().save(tmp_path / "runs" / "chat")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(
        r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.M | re.S
    )
    names = {"mainspring": mainspring, "torch": torch}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
        if "constraint=" in block:
            ids = names["made"][0, names["ids"].shape[1] :].tolist()
            found = json.loads(names["bundle"].tokenizer.decode(ids))
            assert set(found) == {"name", "age"} and found["age"] <= 30
    assert names["people"][0]["generated_text"] in ('"Ada"', "36")
    said = capsys.readouterr().out
    assert "positions were not read again" in said and "of the draft's tokens were kept" in said
