"""The steps that a GPU plays from a recording, computed on whatever device there is."""

import copy
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from test_steps import LENGTH, SHARE, stepwise, writers

from mainspring.compute import graphed
from mainspring.compute.decoder import StepDecoder
from mainspring.compute.graphed import GraphedDecoder, StaticStep
from mainspring.compute.native import library
from mainspring.compute.precision import prepare
from mainspring.compute.swap import place
from mainspring.core.model import Transformer
from mainspring.generation.options import GenerationOptions
from mainspring.generation.search import generate
from mainspring.testing import tiny, tiny_inputs

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many rows each static step was run for; every step that can be is one."""
    rows: list[int] = []
    real = StaticStep.run

    def run(self: StaticStep, ids: torch.Tensor, *rest: object) -> torch.Tensor:
        rows.append(len(ids))
        return real(self, ids, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(StaticStep, "run", run)
    monkeypatch.setattr(library, "kernels", lambda: None)  # they are for CPUs' own steps
    monkeypatch.setattr(graphed, "WORTH", 1)
    yield rows


def prepared(reference: Transformer, precision: str, device: str) -> Transformer:
    model = prepare(copy.deepcopy(reference).to(device), precision).model
    if device == "cpu":
        assert type(model.decoder) is StepDecoder
        dtype = torch.float32 if precision == "float32" else torch.bfloat16
        assert model.spec.decoder is not None
        static = GraphedDecoder(model.decoder.stack, model.spec.decoder, dtype)
        place(model, "decoder", static.eval())
    assert isinstance(model.decoder, GraphedDecoder)
    return model


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("name", "number"), writers())
def test_static_steps_equal_the_full_pass(
    name: str, number: int, device: str, played: list[int]
) -> None:
    reference = tiny(name, number)
    inputs = tiny_inputs(reference, 3, LENGTH)
    ids = inputs["decoder_input_ids" if reference.encoder is not None else "input_ids"]
    keep = torch.ones_like(ids, dtype=torch.bool)
    keep[1, :3] = keep[2, :5] = False
    with torch.inference_mode():
        expected = stepwise(reference, ids, None, LENGTH)
        for precision in ("float32", "bfloat16"):
            model = prepared(reference, precision, device)
            for prompt in (1, 5):
                found = stepwise(model, ids.to(device), None, prompt).cpu()
                error = (found - expected).abs().max()
                assert error <= 3 * SHARE[precision] * expected.abs().max(), (precision, prompt)
            if precision == "float32" and reference.encoder is None:
                found = stepwise(model, ids.to(device), keep.to(device), 7).cpu()
                whole = stepwise(reference, ids, keep, LENGTH)
                error = (found - whole)[keep].abs().max()
                assert error <= 3 * SHARE[precision] * whole.abs().max(), float(error)
    assert len(played) >= 8


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["t5", "llama", "bart"])
@pytest.mark.parametrize("beams", [1, 3])
def test_batches_that_rows_leave_are_written_alike(
    name: str, beams: int, device: str, played: list[int]
) -> None:
    reference = tiny(name, 0)
    crossed = reference.encoder is not None
    ids = tiny_inputs(reference, 6, LENGTH)["input_ids"]
    keep = torch.ones_like(ids)
    for row in range(1, 6):  # padding on the side where it stands
        keep[row, slice(LENGTH - row, None) if crossed else slice(0, row)] = 0
    plain = prepare(copy.deepcopy(reference), "float32").model
    options = GenerationOptions(
        max_new_tokens=24,
        num_beams=beams,
        no_repeat_ngram_size=1,
        pad_token_id=0,
        decoder_start_token_id=0 if crossed else None,
    )
    endless = generate(plain, ids, keep, options)
    # Ends that rows come to at different times.
    ends = {endless.new_ids(row)[6 + 3 * row] for row in range(6)}
    options = replace(options, eos_token_id=sorted(ends), min_new_tokens=4)
    expected = generate(plain, ids, keep, options)
    model = prepared(reference, "float32", device)
    found = generate(model, ids.to(device), keep.to(device), options)
    assert found.tokens == expected.tokens
    assert torch.equal(found.sequences.cpu(), expected.sequences)
    assert len(set(expected.tokens)) > 1 and len(set(played)) > 1  # some left before others


def test_a_cache_that_moved_is_recorded_anew(played: list[int]) -> None:
    reference = tiny("t5", 0)
    model = prepared(reference, "float32", "cpu")
    ids = tiny_inputs(reference, 2, 5)["input_ids"]
    steps = torch.randint(2, 30, (2, 90), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        memory, cache = model.encode(ids), model.new_cache(20)
        before = reference.encode(ids)
        assert torch.allclose(memory, before, atol=1e-5)
        for at in range(90):  # room for 20, then for 64, then for more
            found = model.decode(steps[:, at : at + 1], memory, None, cache=cache)
        whole = reference.decode(steps, before)
    assert torch.allclose(found[:, 0], whole[:, -1], atol=1e-4)
    assert len(played) >= 80
