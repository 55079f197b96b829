"""`fit --lora`: only the adapter learns, a stopped run goes on to the same bits, and what comes out
opens everywhere."""

import json
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import mainspring
import nano
from mainspring import events, registry
from mainspring.checkpoints.bundle import Bundle
from mainspring.core.init import build
from mainspring.errors import BadData, BadOption, Mismatch
from mainspring.training import checkpointing
from mainspring.verbs.fit import FitResult

STEPS = 6
OPTIONS: dict[str, Any] = {
    "lora": 4,
    "steps": STEPS,
    "batch_tokens": 600,
    "learning_rate": 2e-2,
    "max_source": 40,
    "max_target": 8,
    "evaluate_every": 3,
    "metric_rows": 2,
    "precision": "bfloat16",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nano.write_jsonl(nano.pairs(30), tmp_path_factory.mktemp("data") / "pairs.jsonl")


def decoder() -> Bundle:
    """A Llama of some thousand weights."""
    family, tokenizer = registry.find("families", "llama"), nano.tokenizer()
    config = {
        **family.examples[0],
        "vocab_size": tokenizer.vocabulary,
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 32,
        "max_position_embeddings": 512,
        "pad_token_id": tokenizer.pad_id,
        "eos_token_id": tokenizer.eos_id,
        "bos_token_id": None,
    }
    model = build(family.spec(config, ()), seed=2)
    return Bundle(model.eval(), config, family, tokenizer, {"eos_token_id": tokenizer.eos_id})


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bases")
    nano.bundle(dropout=0.1).save(folder / "t5")
    decoder().save(folder / "llama")
    return {name: folder / name for name in ("t5", "llama")}


def run(data: Path, out: Path, base: Path, **options: Any) -> FitResult:
    chosen = {**OPTIONS, "model": str(base), **options}
    return mainspring.fit("summarize", data, out=out, **chosen)


def stop_at(step: int) -> Any:
    """Listens to a run and asks it to stop after one step."""
    import os
    import signal

    def listener(event: events.Event) -> None:
        match event:
            case events.Progress("training", done, total, stopped=False) if done == step != total:
                os.kill(os.getpid(), signal.SIGTERM)

    return listener


def kept(out: Path) -> dict[str, Any]:
    [state] = checkpointing.saved_states(out)
    files = [*state.glob("*.safetensors"), out / "adapter_model.safetensors"]
    rows = nano.read_jsonl(out / "metrics.jsonl")
    logged = [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
    return {file.name: file.read_bytes() for file in files} | {"metrics": logged}


@pytest.mark.parametrize("name", [pytest.param("t5", marks=pytest.mark.slow), "llama"])
def test_stops_change_no_bit(data: Path, bases: dict[str, Path], tmp_path: Path, name: str) -> None:
    run(data, tmp_path / "straight", bases[name])
    for number, step in enumerate((1, 4)):
        with events.listening(stop_at(step)):
            stopped = run(data, tmp_path / "run", bases[name], resume=number > 0)
        assert stopped.steps == step
    mainspring.fit("summarize", data, out=tmp_path / "run", resume=True)
    found, expected = kept(tmp_path / "run"), kept(tmp_path / "straight")
    for key in expected:
        assert found[key] == expected[key], key
    [state] = checkpointing.saved_states(tmp_path / "run")
    from safetensors import safe_open

    with safe_open(state / "weights.safetensors", framework="pt") as weights:
        assert all(".low_rank." in key for key in weights.keys())  # noqa: SIM118


def test_what_comes_out_opens_everywhere(
    data: Path, bases: dict[str, Path], tmp_path: Path
) -> None:
    import transformers

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its import
        import peft

    out = tmp_path / "out"
    result = run(data, out, bases["llama"], steps=20, lora_alpha=4.0, max_source=300)
    losses = [row["loss"] for row in nano.read_jsonl(out / "metrics.jsonl") if "loss" in row]
    assert result.steps == 20 and losses[-1] < losses[0]
    there = {file.name for file in out.iterdir()}
    assert {"adapter_model.safetensors", "tokenizer.json", "mainspring.json", "README.md"} <= there
    assert not {"model.safetensors", "config.json"} & there
    config = json.loads((out / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (4, 4)
    assert config["base_model_name_or_path"] == str(bases["llama"].resolve())
    assert 'library_name: "peft"' in (out / "README.md").read_text()

    opened, base = mainspring.load(out), mainspring.load(bases["llama"])
    ids = torch.randint(3, 90, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = opened.model(input_ids=ids).logits
        assert (logits - base.model(input_ids=ids).logits).abs().max() > 0.1
        theirs = transformers.AutoModelForCausalLM.from_pretrained(bases["llama"])
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
            theirs = peft.PeftModel.from_pretrained(theirs, out).eval()
        torch.testing.assert_close(logits, theirs(input_ids=ids).logits, atol=1e-5, rtol=1e-5)
    [answer] = mainspring.run("summarize", "Early winter river.", model=str(out))
    assert isinstance(answer["summary"], str)
    merged = tmp_path / "merged"
    opened.save(merged)
    with torch.no_grad():
        again = mainspring.load(merged).model(input_ids=ids).logits
    assert torch.equal(again, logits)


def test_a_changed_base_model_is_noticed(data: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    decoder().save(base)
    out = tmp_path / "run"
    with events.listening(stop_at(2)):
        run(data, out, base)
    changed = decoder()
    with torch.no_grad():
        changed.model.decoder.final_norm.weight.mul_(1.5)
    changed.save(base)
    with pytest.raises(BadData, match="the model is not what this run was started with"):
        mainspring.fit("summarize", data, out=out, resume=True)


def test_options_that_cannot_be(data: Path, bases: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(BadOption, match="--lora must be at least 1"):
        run(data, tmp_path / "a", bases["t5"], lora=0)
    with pytest.raises(BadOption, match="--lora-alpha has no meaning without --lora"):
        run(data, tmp_path / "b", bases["t5"], lora=None, lora_alpha=4.0)
    with pytest.raises(BadOption, match=r"--lora adapts a model that is there"):
        mainspring.fit("summarize", data, out=tmp_path / "c", from_scratch="t5-tiny", lora=4)


def test_an_adapter_is_no_base_model(data: Path, bases: dict[str, Path], tmp_path: Path) -> None:
    run(data, tmp_path / "first", bases["t5"], steps=1)
    with pytest.raises(Mismatch, match="is an adapter, and another cannot belong to it; merge"):
        run(data, tmp_path / "second", tmp_path / "first")
    full = run(data, tmp_path / "third", tmp_path / "first", lora=None, steps=1)
    assert (Path(full.out) / "model.safetensors").is_file()


def test_the_python_of_the_docs_runs(
    bases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (Path(__file__).parents[2] / "docs" / "lora.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, flags=re.M | re.S)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "MODEL").symlink_to(bases["llama"])
    (tmp_path / "runs").mkdir()
    # The last block first: what it saves is what the others open.
    for block in (blocks[-1], *blocks[:-1]):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of PEFT's import
            exec(block.replace('"adapter"', '"runs/lora"'), {})
    assert mainspring.load(tmp_path / "merged").spec == mainspring.load(bases["llama"]).spec


def test_a_classifier_learns_its_head_beside_the_adapter(tmp_path: Path) -> None:
    family, tokenizer = registry.find("families", "bert"), nano.tokenizer()
    config = {
        **family.examples[4],
        "vocab_size": tokenizer.vocabulary,
        "max_position_embeddings": 128,
        "pad_token_id": tokenizer.pad_id,
    }
    model = build(family.spec(config, ()), seed=1).eval()
    Bundle(model, config, family, tokenizer).save(tmp_path / "base")
    rows = [
        {"text": row["article"], "label": "long" if len(row["article"]) > 120 else "short"}
        for row in nano.pairs(60)
    ]
    data = nano.write_jsonl(rows, tmp_path / "rows.jsonl")
    options = {**OPTIONS, "steps": 24, "learning_rate": 2e-3, "max_source": 100, "metric_rows": 5}
    options.pop("max_target")
    out = tmp_path / "out"
    mainspring.fit("classify", data, out=out, model=str(tmp_path / "base"), **options)
    losses = [row["loss"] for row in nano.read_jsonl(out / "metrics.jsonl") if "loss" in row]
    assert sum(losses[-4:]) < sum(losses[:4])
    written = json.loads((out / "adapter_config.json").read_text())
    assert written["modules_to_save"] == ["bert.pooler.dense", "classifier"]
    opened = mainspring.load(out)
    assert opened.config["id2label"] == {"0": "long", "1": "short"}
    [answer] = mainspring.run("classify", rows[0]["text"], model=str(out))
    assert answer["label"] in ("long", "short")
