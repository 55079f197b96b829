"""Training and inference on a CUDA device, against the same on the CPU."""

import copy
import json
from pathlib import Path

import pytest
import torch

import mainspring
import nano
from mainspring.compute.precision import prepare
from mainspring.compute.training import prepare_for_training
from mainspring.core.model import Transformer
from mainspring.errors import BadOption
from mainspring.formulations.token_loss import token_nats
from mainspring.testing import tiny, tiny_inputs

pytestmark = pytest.mark.gpu
NAMES = ["t5", "llama", "gpt2", "bert", "bart", "gemma", "roberta"]


def hidden(model: Transformer, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """The last hidden states for the inputs, wherever the model is."""
    device = next(model.parameters()).device
    given = {name: value.to(device) for name, value in inputs.items()}
    ids = given["input_ids"]
    if model.decoder is None:
        return model.encode(ids)
    if model.encoder is None:
        return model.decode(ids)
    return model.decode(given["decoder_input_ids"], model.encode(ids))


def gradients(model: Transformer, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    model.zero_grad()
    hidden(model, inputs).float().square().mean().backward()
    return {n: p.grad.cpu() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", NAMES)
def test_training_has_the_gradients_of_the_cpu(name: str, precision: str) -> None:
    reference = tiny(name, 0)
    inputs = tiny_inputs(reference, 4, 16)
    expected = gradients(reference, inputs)
    model = copy.deepcopy(reference).to("cuda").train()
    prepared = prepare_for_training(model, precision)  # type: ignore[arg-type]
    found = gradients(model, inputs)
    prepared.restore()
    assert found.keys() == expected.keys()
    share = 1e-3 if precision == "float32" else 0.1
    for key, gradient in expected.items():
        error = (found[key] - gradient).abs().max()
        assert error <= share * gradient.abs().max() + 1e-7, (key, float(error))


@pytest.mark.parametrize("name", NAMES)
def test_inference_gives_the_hidden_states_of_the_cpu(name: str) -> None:
    reference = tiny(name, 0)
    inputs = tiny_inputs(reference, 4, 16)
    with torch.inference_mode():
        expected = hidden(reference, inputs)
        for precision, share in (("float32", 1e-3), ("bfloat16", 0.06)):
            model = prepare(copy.deepcopy(reference).to("cuda"), precision).model
            error = (hidden(model, inputs).float().cpu() - expected).abs().max()
            assert error <= share * expected.abs().max(), (precision, float(error))


def test_int8_is_refused_and_auto_is_bfloat16() -> None:
    with pytest.raises(BadOption, match="int8 is for CPUs"):
        prepare(tiny("t5", 0).to("cuda"), "int8")
    assert prepare(tiny("t5", 0).to("cuda"), "auto").precision == "bfloat16"


def test_the_loss_is_that_of_the_cpu() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden_BTD = torch.randn(3, 2100, 16, generator=generator)
    weight_VD = torch.randn(500, 16, generator=generator)
    labels_BT = torch.randint(0, 500, (3, 2100), generator=generator)
    labels_BT[1, 50:] = -100
    made = []
    for device in ("cpu", "cuda"):
        x = hidden_BTD.to(device).requires_grad_()
        weight = weight_VD.to(device).requires_grad_()
        nats = token_nats(x, weight, labels_BT.to(device), scale=0.5)
        nats.sum().backward()
        assert x.grad is not None and weight.grad is not None
        made.append([t.detach().cpu() for t in (nats, x.grad, weight.grad)])
    for cpu, cuda in zip(*made, strict=True):
        torch.testing.assert_close(cuda, cpu, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("options", [{}, {"lora": 4}, {"gradient_checkpointing": True}])
def test_a_run_from_data_to_scores(options: dict[str, int], tmp_path: Path, nano_size: str) -> None:
    data = tmp_path / "pairs.jsonl"
    rows = [{"text": row["article"], "summary": row["summary"]} for row in nano.pairs(240)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    start = {"from_scratch": nano_size, "vocabulary": 300}
    if "lora" in options:
        mainspring.fit("summarize", data, out=tmp_path / "base", steps=2, device="cuda", **start)
        start = {"model": str(tmp_path / "base")}
    out = tmp_path / "run"
    result = mainspring.fit(
        "summarize", data, out=out, steps=12, batch_tokens=700, device="cuda", **start, **options
    )
    losses = [r["loss"] for r in nano.read_jsonl(out / "metrics.jsonl") if "loss" in r]
    assert result.steps == 12 and losses[-1] < losses[0]
    found = {}
    for device in ("cpu", "cuda"):
        scores = mainspring.evaluate(
            "summarize", data, model=out, limit=20, device=device, precision="float32"
        ).scores
        found[device] = scores
    assert found["cuda"] == pytest.approx(found["cpu"], abs=2.0)
