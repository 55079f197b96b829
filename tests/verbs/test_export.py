"""`export`: what other programs open is the model that was there, an adapter merged into it."""

import json
import re
from pathlib import Path

import pytest
import torch
import transformers

import mainspring
import nano
from mainspring import cli, registry
from mainspring.checkpoints.bundle import Bundle, load
from mainspring.checkpoints.exporting import FORMATS
from mainspring.checkpoints.tokenizer import train_tokenizer
from mainspring.core.init import build
from mainspring.errors import BadOption, Missing

IDS = torch.tensor([[7, 8, 9, 10, 4]])
CLOSE = {"rtol": 1e-4, "atol": 1e-5}
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter whose base model is a GGUF file, as one on the starter has."""
    folder = tmp_path_factory.mktemp("adapter")
    texts = [text for row in nano.pairs(20) for text in (row["article"], row["summary"])]
    tokenizer = train_tokenizer(texts * 3, 420, "byte-bpe")
    tokenizer.files["chat_template.jinja"] = TEMPLATE.encode()
    family = registry.find("families", "llama")
    config = {**family.examples[0], "vocab_size": tokenizer.vocabulary, "rope_scaling": None}
    generation = {"eos_token_id": tokenizer.eos_id, "pad_token_id": tokenizer.pad_id}
    model = build(family.spec(config, ()), 0).eval()
    bundle = Bundle(model, {**config, **generation}, family, tokenizer, generation)
    bundle.save_gguf(folder / "base.gguf", "f32")
    data = nano.write_jsonl(nano.pairs(20), folder / "pairs.jsonl")
    options = {"model": str(folder / "base.gguf"), "lora": 2, "steps": 2, "metric_rows": 1}
    mainspring.fit("summarize", data, out=folder / "lora", max_source=60, max_target=8, **options)
    return folder / "lora"


def logits(bundle: Bundle) -> torch.Tensor:
    with torch.inference_mode():
        found = bundle.model(IDS).logits
    assert found is not None
    return found


def test_an_adapter_becomes_a_folder_that_transformers_opens(adapter: Path, tmp_path: Path) -> None:
    done = mainspring.export("huggingface", model=adapter, out=tmp_path / "plain")
    ours = load(adapter)
    assert not torch.equal(logits(ours), logits(load(adapter.parent / "base.gguf")))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "plain")
    with torch.inference_mode():
        torch.testing.assert_close(theirs(IDS).logits, logits(ours), **CLOSE)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "plain")
    assert ours.tokenizer is not None
    assert tokenizer("Quiet river.")["input_ids"] == ours.tokenizer.encode("Quiet river.")
    assert tokenizer.chat_template == TEMPLATE
    weights = tmp_path / "plain" / "model.safetensors"
    assert (done.type, done.bytes) == ("f32", weights.stat().st_size)
    parts = (adapter / "adapter_model.safetensors", adapter.parent / "base.gguf")
    assert done.bytes_before == sum(part.stat().st_size for part in parts)
    card = (tmp_path / "plain" / "README.md").read_text()
    assert "the task `summarize`, fine-tuned from" in card and "LoRA" not in card
    [row] = mainspring.run("summarize", "Quiet river.", model=str(tmp_path / "plain"))
    assert row["stop"] in ("eos", "length")


@pytest.mark.parametrize(("type", "near"), [("f32", 1e-5), ("q8_0", 0.05)])
def test_an_adapter_becomes_a_gguf_file(
    adapter: Path, tmp_path: Path, type: str, near: float
) -> None:
    done = mainspring.export("gguf", model=adapter, out=tmp_path / "m.gguf", type=type)
    ours, again = logits(load(adapter)), logits(load(tmp_path / "m.gguf"))
    assert (ours - again).abs().max() <= near * ours.abs().max()
    assert done.bytes == (tmp_path / "m.gguf").stat().st_size


def test_a_base_that_moved_is_named(adapter: Path, tmp_path: Path) -> None:
    base = tmp_path / "elsewhere.gguf"
    (adapter.parent / "base.gguf").rename(base)
    try:
        with pytest.raises(Missing, match="which is needed too"):
            mainspring.export("huggingface", model=adapter, out=tmp_path / "plain")
        mainspring.export("huggingface", model=adapter, out=tmp_path / "plain", base=base)
        expected = logits(load(adapter, base=base))
    finally:
        base.rename(adapter.parent / "base.gguf")
    torch.testing.assert_close(logits(load(tmp_path / "plain")), expected)


def test_a_fitted_folder_keeps_what_it_knows_in_half_the_size(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "half"
    words = ["export", "huggingface", "--model", trained, "--out", out, "--type", "bf16"]
    with pytest.raises(SystemExit, match="0"):
        cli.main([*map(str, words), "--json"])
    printed = json.loads(capsys.readouterr().out)
    assert list(printed) == ["out", "format", "type", "bytes", "model", "bytes_before"]
    assert printed["bytes"] < 0.6 * printed["bytes_before"]
    assert json.loads((out / "config.json").read_text())["torch_dtype"] == "bfloat16"
    for name in ("README.md", "mainspring.json"):
        assert (out / name).read_bytes() == (trained / name).read_bytes()
    theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(out)
    assert theirs.dtype == torch.bfloat16
    for name, tensor in load(out).model.state_dict().items():
        torch.testing.assert_close(
            tensor, load(trained).model.state_dict()[name].bfloat16().float(), rtol=0, atol=0
        )


def test_what_cannot_be_exported(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    words = ["export", "gguf", "--model", trained, "--out", tmp_path / "m.gguf"]
    with pytest.raises(SystemExit, match="2"):
        cli.main([*map(str, words)])
    said = capsys.readouterr().err
    assert "a `t5` model cannot be written as GGUF; can: llama, mistral" in said
    assert not (tmp_path / "m.gguf").exists()
    (tmp_path / "there.gguf").write_text("before")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("before")
    for form, name, more, message in [
        ("onnnx", "x", {}, "unknown --format `onnnx`"),
        ("huggingface", "x", {"type": "q8_0"}, "--type q8_0: `huggingface` stores f32, bf16, f16"),
        ("gguf", "x", {}, "name a file that ends in .gguf"),
        ("gguf", "there.gguf", {}, "is already there"),
        ("huggingface", "there.gguf", {}, "is already there"),
        ("huggingface", "full", {}, "is not empty"),
    ]:
        with pytest.raises(BadOption, match=message):
            mainspring.export(form, model=trained, out=tmp_path / name, **more)
    large = load(trained)
    large.model.tables["tokens"].weight.data[3, 3] = 7e4
    large.save(tmp_path / "large")
    with pytest.raises(BadOption, match=r"`tables.tokens.weight` has numbers beyond float16's"):
        mainspring.export("huggingface", model=tmp_path / "large", out=tmp_path / "x", type="f16")
    mainspring.export("huggingface", model=tmp_path / "large", out=tmp_path / "x", type="bf16")


def test_the_page(adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "export.md"
    text = page.read_text(encoding="utf-8")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "lora").symlink_to(adapter)
    monkeypatch.chdir(tmp_path)
    [block] = re.findall(r"^```python\n(.*?)^```", text, flags=re.M | re.S)
    exec(compile(block, str(page), "exec"), {})
    assert load("merged").config["torch_dtype"] == "bfloat16"
    for name, form in FORMATS.items():
        assert f"| `{name}` |" in text
        assert f"| {', '.join(f'`{type}`' for type in form.types)} |" in text
