"""The contestants of the LoRA benchmark learn the same; no test here measures time."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.entry import QUICK, Context
from benchmarks.lora_contestants import ROWS, LoraSetup
from benchmarks.training_contestants import Steps, Trained

import nano
from benchmarks import lora_contestants, lora_speed, material
from mainspring import registry
from mainspring.checkpoints import bundle
from mainspring.checkpoints.bundle import Bundle
from mainspring.core.init import build
from mainspring.errors import Missing
from mainspring.formulations import Limits, Setup
from mainspring.formulations.causal import FORMULATION
from mainspring.training.rows import EncodedRows


class Asked:
    """Turns in this process: two requests, and what was answered."""

    def __init__(self) -> None:
        self.answers: list[Any] = []

    def answer(self, reply: Any) -> None:
        self.answers.append(reply)

    def __iter__(self) -> Iterator[Steps]:
        yield from (Steps(1), Steps(7))


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> LoraSetup:
    family, tokenizer = registry.find("families", "llama"), nano.tokenizer()
    config = {
        **material.SMOLLM2_135M,
        "vocab_size": tokenizer.vocabulary,
        "hidden_size": 36,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "eos_token_id": tokenizer.eos_id,
        "bos_token_id": None,
    }
    folder = tmp_path_factory.mktemp("lora") / "model"
    model = build(family.spec(config, ()), seed=0).eval()
    Bundle(model, config, family, tokenizer).save(folder)
    pairs = [{"text": row["article"], "target": row["summary"]} for row in nano.pairs(40)]
    rows = EncodedRows(FORMULATION.encode(pairs, tokenizer, Setup(Limits(80, 20), suffix=":")))
    return LoraSetup(folder, rows, 600, rank=4, rate=1e-2)


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore")
def test_ours_and_peft_begin_at_the_same_loss_and_learn(setup: LoraSetup) -> None:
    first, last = [], []
    for play in (lora_contestants.mainspring, lora_contestants.peft):
        asked = Asked()
        play(setup, asked)
        how, (start,), learned = asked.answers[0], asked.answers[1].losses, asked.answers[2]
        assert "rank 4" in how and learned.tokens > 0
        first.append(start)
        last.append(sum(learned.losses[-3:]) / 3)
    torch.testing.assert_close(first[0], first[1], rtol=0.02, atol=0)
    assert all(end < start for start, end in zip(first, last, strict=True))


def test_batches_without_a_plan_hold_sixteen_rows(setup: LoraSetup) -> None:
    drawn = iter(LoraSetup(setup.folder, setup.rows, None).batches())
    epoch = [next(drawn) for _ in range(3)]
    assert [len(rows) for rows in epoch] == [ROWS, ROWS, 8]
    assert sorted(row for rows in epoch for row in rows) == list(range(40))
    assert setup.lengths([(0, 1)]) == [(len(setup.rows[i].source), 0) for i in (0, 1)]


def test_the_result_tells_ratios_and_checks() -> None:
    def block(seconds: float, loss: float = 2.0) -> Trained:
        return Trained(seconds, [loss] * 3, [(30, 0)] * 3)

    names = (lora_speed.OURS, lora_speed.SIXTEEN, lora_speed.SAME)
    done = {
        name: [block(9.0, 3.0), block(s), block(s, 1.0)]
        for name, s in zip(names, (1, 4, 3), strict=True)
    }
    found = lora_speed.result(
        done, dict.fromkeys(names, "how"), dict.fromkeys(names, 10**9), "Fresh weights"
    )
    assert [ratio.spread.median for ratio in found.ratios] == [4.0, 3.0, 1.0, 1.0]
    assert all(check.holds for check in found.checks) and len(found.tables[0].rows) == 3


def test_without_the_starter_a_fresh_model_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> Bundle:
        raise Missing(name)

    tokenizer = nano.tokenizer()
    sizes = {"vocab_size": 256, "hidden_size": 36, "num_hidden_layers": 1}
    monkeypatch.setattr(bundle, "load", absent)
    monkeypatch.setattr(material, "corpus", lambda context: None)
    monkeypatch.setattr(material, "tokenizer", lambda context, texts: tokenizer)
    monkeypatch.setattr(material, "SMOLLM2_135M", {**material.SMOLLM2_135M, **sizes})
    context = Context(QUICK, 1, None, tmp_path, lambda line: None)
    made, weights = material.starter(context)
    assert (made.config["bos_token_id"], made.config["eos_token_id"]) == (None, tokenizer.eos_id)
    assert weights == "Fresh weights of its shape"
    folder, _ = material.chat_model(context)
    config = json.loads((folder / "config.json").read_text())
    assert (folder.name, config["bos_token_id"]) == ("chat-135m", tokenizer.pad_id)


def test_the_shape_is_that_of_smollm2_135m() -> None:
    family = registry.find("families", "llama")
    model = build(family.spec(material.SMOLLM2_135M, ()))
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
