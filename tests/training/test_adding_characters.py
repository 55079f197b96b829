"""`fit --add-characters`: text in another script is told of, and read once it is asked for."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

import mainspring
import nano
from mainspring import events
from mainspring.checkpoints.bundle import load
from mainspring.errors import BadOption

TEXT = "东方航空与上航合并"
OPTIONS: dict[str, Any] = {
    "steps": 4,
    "batch_tokens": 600,
    "max_source": 40,
    "max_target": 12,
    "metric_rows": 0,
    "evaluate_every": 2,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [{"article": f"{TEXT} {n % 7}", "summary": TEXT[: 3 + n % 4]} for n in range(40)]
    return nano.write_jsonl(rows, tmp_path_factory.mktemp("data") / "pairs.jsonl")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("base") / "model"
    nano.bundle().save(folder)
    return str(folder)


def preflight(seen: list[Any]) -> dict[str, str]:
    [block] = [e for e in seen if isinstance(e, events.Block) and e.title.startswith("Pre")]
    return dict(block.lines)


@pytest.mark.parametrize("task", ["summarize", "pretrain"])
def test_what_is_unknown_is_counted_before_training(
    task: str, data: Path, base: str, tmp_path: Path
) -> None:
    seen: list[Any] = []
    named = {"columns": {"text": "article"}} if task == "pretrain" else {}
    with events.listening(seen.append):
        mainspring.fit(task, data, out=tmp_path / "out", model=base, **named, **OPTIONS)
    told = preflight(seen)["unknown"]
    assert "--add-characters helps" in told
    count, of = int(told.split()[0]), int(told.split()[2])
    assert 0 < count < of


def test_each_character_becomes_a_token_that_learns(data: Path, base: str, tmp_path: Path) -> None:
    seen: list[Any] = []
    out = tmp_path / "out"
    with events.listening(seen.append):
        mainspring.fit("summarize", data, out=out, model=base, add_characters=True, **OPTIONS)
    assert "unknown" not in preflight(seen)
    made, was = load(out), load(base)
    assert made.tokenizer is not None and was.tokenizer is not None
    ids = made.tokenizer.encode(TEXT, special=False)
    assert made.tokenizer.unk_id not in ids and TEXT in made.tokenizer.decode(ids)
    assert len(ids) - 1 <= len(TEXT) <= len(ids)  # one each, perhaps a mark of the beginning
    assert was.tokenizer.unk_id in was.tokenizer.encode(TEXT)


def test_a_stopped_run_goes_on_to_the_same_bits(data: Path, base: str, tmp_path: Path) -> None:
    def stop(event: events.Event) -> None:
        match event:
            case events.Progress("training", 2, 4, stopped=False):
                os.kill(os.getpid(), signal.SIGTERM)

    options = {**OPTIONS, "model": base, "add_characters": True}
    mainspring.fit("summarize", data, out=tmp_path / "whole", **options)
    with events.listening(stop):
        first = mainspring.fit("summarize", data, out=tmp_path / "parts", **options)
    assert first.steps == 2 and first.resume
    mainspring.fit("summarize", data, out=tmp_path / "parts", resume=True)
    whole, parts = (load(tmp_path / name).model.state_dict() for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_it_is_for_tokenizers_that_are_there_and_can_grow(
    data: Path, base: str, tmp_path: Path
) -> None:
    with pytest.raises(BadOption, match="--add-characters is for a tokenizer that is there"):
        mainspring.fit(
            "summarize", data, out=tmp_path / "a", from_scratch="t5-tiny", add_characters=True
        )
    with pytest.raises(BadOption, match="an adapter cannot hold new tokens"):
        mainspring.fit(
            "summarize", data, out=tmp_path / "b", model=base, lora=4, add_characters=True
        )
