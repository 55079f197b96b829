"""llama.cpp as a contestant: as many tokens as were asked for, those of our own model."""

from pathlib import Path

import pytest
import torch
from benchmarks.chat_contestants import LlamaSetup, llama_cpp
from benchmarks.generation_contestants import Job
from benchmarks.turns import Contestant, playing

import nano
from mainspring import registry
from mainspring.checkpoints.bundle import Bundle, load
from mainspring.checkpoints.tokenizer import train_tokenizer
from mainspring.core.init import build

pytest.importorskip("xllamacpp")

NEW = 12


def saved(folder: Path) -> Path:
    """A Llama of one layer, whose likeliest tokens are far ahead of the others."""
    texts = [row["article"] for row in nano.pairs(20)]
    tokenizer = train_tokenizer(texts, 400, "byte-bpe")
    family = registry.find("families", "llama")
    config = {**family.examples[0], "vocab_size": tokenizer.vocabulary, "rope_scaling": None}
    config |= {"num_hidden_layers": 1, "tie_word_embeddings": True}
    generation = {"eos_token_id": tokenizer.eos_id, "pad_token_id": tokenizer.pad_id}
    model = build(family.spec(config, ()), 0).eval()
    model.tables["tokens"].weight.data.normal_(generator=torch.Generator().manual_seed(0))
    Bundle(model, {**config, **generation}, family, tokenizer, generation).save(folder)
    return folder


@pytest.mark.slow
def test_one_row_and_several(tmp_path: Path) -> None:
    folder, file = saved(tmp_path / "model"), tmp_path / "model.gguf"
    load(folder).save_gguf(file, "q8_0")
    setup = LlamaSetup(file, threads=1, rows=3, length=16 + NEW)
    draw = torch.Generator().manual_seed(1)
    rows = tuple(tuple(row) for row in torch.randint(10, 300, (3, 16), generator=draw).tolist())
    contestant = Contestant("llama.cpp", llama_cpp, setup, ("xllamacpp",))
    with playing([contestant]) as team:
        assert not team.skipped
        alone = [team.ask("llama.cpp", Job((row,), NEW, forced=True)) for row in rows]
        together = team.ask("llama.cpp", Job(rows, NEW, forced=True))
        told = team.descriptions["llama.cpp"]
    assert (
        told.startswith("xllamacpp ") and "Q8_0, flash attention o" in told and "threads s" in told
    )
    assert team.peaks["llama.cpp"] > 0
    assert together.tokens == 3 * NEW and [len(row) for row in together.rows] == [NEW] * 3
    assert [one.rows[0] for one in alone] == together.rows and together.speed > 0
    written = load(file).generate(
        torch.tensor(rows), max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False
    )
    assert written[:, 16:].tolist() == together.rows
