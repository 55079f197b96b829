"""Prepared models against the core in float32."""

import copy
from dataclasses import replace

import pytest
import torch
from inference_models import decoder_only, encoder_decoder
from torch import Tensor

from mainspring import events, spec
from mainspring.compute import packed
from mainspring.compute.decoder import StepDecoder
from mainspring.compute.hardware import Hardware
from mainspring.compute.native import library
from mainspring.compute.precision import PRECISIONS, choose, prepare
from mainspring.compute.projections import Int8Projection, PackedProjection, PlainProjection
from mainspring.compute.stacked_cache import StackedCache
from mainspring.compute.step_parts import fits
from mainspring.core.model import Transformer
from mainspring.errors import BadOption
from mainspring.generation.options import GenerationOptions
from mainspring.generation.search import generate

pytestmark = pytest.mark.usefixtures("way")


# Largest difference of a logit (they spread by about 1): float32 differs by the order of sums;
# bfloat16 rounds to 2^-9 of a value some twenty times in a row, about 2^-9 * sqrt(20) * 4 sigma;
# int8 rounds activations to 1/254 of a row's largest value, some 3 sigma: 3 times as coarse.
TOLERANCE = {"float32": 2e-5, "bfloat16": 0.06, "int8": 0.18}


def sources() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 99, (5, 40), generator=generator)
    keep = torch.ones(5, 40, dtype=torch.bool)
    keep[1, 20:] = keep[3, 35:] = False
    return ids, keep


def targets(length: int, rows: int = 5) -> Tensor:
    return torch.randint(3, 99, (rows, length), generator=torch.Generator().manual_seed(2))


def logits(model: Transformer, ids: Tensor, keep: Tensor, target: Tensor) -> Tensor:
    with torch.inference_mode():
        return model(ids, keep, target).logits.float()


def stepwise(model: Transformer, memory: Tensor | None, keep: Tensor | None, target: Tensor):
    """Logits of one token at a time, from an empty cache with room for a few."""
    cache, found = model.new_cache(4), []
    for at in range(target.shape[1]):
        with torch.inference_mode():
            x = model.decode(target[:, at : at + 1], memory, keep, cache=cache)
            found.append(model.read("vocabulary", x).float())
    return torch.cat(found, 1)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("precision", TOLERANCE)
def test_logits_whole_and_stepwise_are_close_to_float32(
    precision: str, tied: bool, gated: bool
) -> None:
    reference = encoder_decoder(gated=gated, tied=tied)
    (ids, keep), target = sources(), targets(12)
    expected = logits(reference, ids, keep, target)
    model = prepare(copy.deepcopy(reference), precision).model
    assert isinstance(model.decoder, StepDecoder)
    assert (logits(model, ids, keep, target) - expected).abs().max() < TOLERANCE[precision]
    with torch.inference_mode():
        memory = model.encode(ids, keep)
    found = stepwise(model, memory, keep, target)
    assert (found - expected).abs().max() < TOLERANCE[precision]
    # Where another token is chosen, it was as good as tied in float32.
    lost = expected.amax(-1) - expected.gather(-1, found.argmax(-1, keepdim=True)).squeeze(-1)
    assert lost.max() < 2 * TOLERANCE[precision]
    assert (lost == 0).float().mean() > 0.9


@pytest.mark.parametrize("precision", TOLERANCE)
def test_a_single_row(precision: str) -> None:
    reference = encoder_decoder()
    (ids, keep), target = sources(), targets(12)
    expected = logits(reference, ids[:1], keep[:1], target[:1])
    model = prepare(copy.deepcopy(reference), precision).model
    with torch.inference_mode():
        memory = model.encode(ids[:1])
    found = stepwise(model, memory, None, target[:1])
    assert (found - expected).abs().max() < TOLERANCE[precision]


def test_steps_go_on_beyond_the_table_of_biases() -> None:
    reference = encoder_decoder()
    (ids, keep), target = sources(), targets(140, rows=2)
    expected = logits(reference, ids[:2], keep[:2], target)
    model = prepare(copy.deepcopy(reference), "float32").model
    with torch.inference_mode():
        memory = model.encode(ids[:2], keep[:2])
    found = stepwise(model, memory, keep[:2], target)
    assert (found - expected).abs().max() < TOLERANCE["float32"]


def test_prompt_then_steps_then_truncation() -> None:
    reference = encoder_decoder()
    (ids, keep), target = sources(), targets(9)
    expected = logits(reference, ids, keep, target)
    model = prepare(copy.deepcopy(reference), "float32").model
    with torch.inference_mode():
        memory = model.encode(ids, keep)
        cache = model.new_cache(3)
        for _ in range(2):
            model.decode(target[:, :5], memory, keep, cache=cache)
            for at in range(5, 9):
                x = model.decode(target[:, at : at + 1], memory, keep, cache=cache)
            assert cache.length == 9
            found = model.read("vocabulary", x)[:, 0]
            assert (found - expected[:, 8]).abs().max() < TOLERANCE["float32"]
            cache.truncate(0)


def test_left_padded_prompts_of_a_decoder_only_model() -> None:
    reference = decoder_only()
    prompt, pads = targets(10, rows=3), [0, 3, 7]
    keep = torch.ones(3, 10, dtype=torch.long)
    for row, pad in enumerate(pads):
        keep[row, :pad] = 0
    options = GenerationOptions.merge({"eos_token_id": 1, "pad_token_id": 0}, max_new_tokens=8)
    expected = generate(reference, prompt, keep, options).sequences
    for precision in ("float32", "bfloat16"):
        model = prepare(copy.deepcopy(reference), precision).model
        assert isinstance(model.decoder, StepDecoder)
        found = generate(model, prompt, keep, options).sequences
        if precision == "float32":
            assert torch.equal(found, expected)
        assert (found == expected).float().mean() > 0.9


@pytest.mark.parametrize("beams", [1, 4])
def test_generation_gives_the_same_tokens(beams: int) -> None:
    reference = encoder_decoder()
    ids, keep = sources()
    config = {"decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}
    options = GenerationOptions.merge(config, max_new_tokens=20, num_beams=beams)
    expected = generate(reference, ids, keep.long(), options).sequences
    model = prepare(copy.deepcopy(reference), "float32").model
    assert torch.equal(generate(model, ids, keep.long(), options).sequences, expected)


def test_the_step_knows_its_limits() -> None:
    stack = encoder_decoder().spec.decoder
    layer = stack.layers[0]
    assert fits(stack) and fits(decoder_only().spec.decoder)
    shared = replace(layer, attention=replace(layer.attention, key_value_heads=2))
    assert fits(replace(stack, layers=(shared, shared), positions=None))
    for other in (
        replace(stack, layers=(shared, shared)),  # biases by head, and heads that share
        replace(stack, layers=(layer, shared), positions=None),  # caches of two shapes
        replace(stack, layers=(layer, replace(layer, mask=spec.FullMask()))),
        replace(stack, embedding=spec.TokenEmbedding(99, types=2)),
        replace(stack, embedding=spec.AudioEmbedding(8)),
    ):
        assert not fits(other)


def test_a_decoder_that_the_step_does_not_know_keeps_the_core_stack() -> None:
    reference = encoder_decoder(cross_shares=True)
    (ids, keep), target = sources(), targets(6)
    expected = logits(reference, ids, keep, target)
    for precision, tolerance in TOLERANCE.items():
        model = prepare(copy.deepcopy(reference), precision).model
        assert not isinstance(model.decoder, StepDecoder)
        with torch.inference_mode():
            memory = model.encode(ids, keep)
        assert (stepwise(model, memory, keep, target) - expected).abs().max() < tolerance


@pytest.mark.parametrize("norm", ["post", "sandwich"])
def test_norms_in_other_places(norm: str) -> None:
    reference = encoder_decoder(norm=norm)
    (ids, keep), target = sources(), targets(6)
    expected = logits(reference, ids, keep, target)
    for precision, tolerance in TOLERANCE.items():
        model = prepare(copy.deepcopy(reference), precision).model
        assert isinstance(model.decoder, StepDecoder)
        with torch.inference_mode():
            memory = model.encode(ids, keep)
        assert (stepwise(model, memory, keep, target) - expected).abs().max() < tolerance


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_without_the_operators_the_plain_path_gives_the_same(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "kernels", lambda: None)
    for name in ("has_bfloat16", "has_int8", "has_int8_row"):
        monkeypatch.setattr(packed, name, lambda: False)
    reference = encoder_decoder()
    (ids, keep), target = sources(), targets(12)
    model = prepare(copy.deepcopy(reference), precision).model
    kinds = {type(module) for module in model.modules()}
    assert PackedProjection not in kinds and (PlainProjection in kinds or Int8Projection in kinds)
    difference = logits(model, ids, keep, target) - logits(reference, ids, keep, target)
    assert difference.abs().max() < TOLERANCE[precision]


def test_prepared_weights_take_the_memory_they_say(way: str) -> None:
    reference = encoder_decoder(tied=False)
    sizes = {name: prepare(copy.deepcopy(reference), name) for name in TOLERANCE}
    whole = sum(p.numel() for p in reference.parameters()) * 4
    assert all(done.bytes_before == whole for done in sizes.values())
    assert sizes["float32"].bytes_after == pytest.approx(whole, rel=0.01)
    # By torch's operators, what reads single rows (decoder and head but for the memory's
    # projections) is there twice.
    twice = sum(
        p.numel()
        for name, p in reference.named_parameters()
        if name.startswith(("decoder", "heads")) and ".kv." not in name
    )
    in_two_layouts = way == "operators" and packed.has_bfloat16()
    narrow = whole / 2 + (2 * twice if in_two_layouts else 0)
    assert sizes["bfloat16"].bytes_after == pytest.approx(narrow, rel=0.05)
    assert "MB" in sizes["int8"].describe()


def test_no_parameter_of_the_original_is_left_to_train() -> None:
    model = prepare(encoder_decoder(), "bfloat16").model
    assert not any(p.requires_grad for p in model.parameters())
    assert not model.training


def hardware(*instructions: str) -> Hardware:
    return Hardware("a CPU", instructions, 2, 2**34)


def test_automatic_precision_follows_the_hardware() -> None:
    cpu = torch.device("cpu")
    assert choose("auto", hardware("AVX2"), cpu) == "float32"
    assert choose("auto", hardware("AVX2", "AVX512_CORE", "AVX512_CORE_VNNI"), cpu) == "float32"
    assert choose("auto", hardware("AVX2", "AVX512_CORE", "AVX512_CORE_BF16"), cpu) == "bfloat16"
    for name in PRECISIONS[1:]:
        assert choose(name, hardware(), cpu) == name
    with pytest.raises(BadOption, match="did you mean `bfloat16`"):
        choose("bfloat", hardware(), cpu)


@pytest.mark.parametrize(
    ("precision", "found", "warned"),
    [("int8", "AVX2", True), ("int8", "AVX512_CORE_VNNI", False), ("bfloat16", "AVX2", True)],
)
def test_a_slow_choice_is_said(precision: str, found: str, warned: bool) -> None:
    heard: list[events.Event] = []
    with events.listening(heard.append):
        prepare(encoder_decoder(), precision, hardware(found))
    assert any(isinstance(event, events.Warn) for event in heard) == warned
    assert any(isinstance(event, events.Note) and precision in event.text for event in heard)


def test_int8_keeps_encoder_products_wide_only_where_bfloat16_is_fast() -> None:
    for found, kind in ((hardware("AVX2"), Int8Projection), (hardware("AVX512_CORE_BF16"), None)):
        model = prepare(encoder_decoder(), "int8", found).model
        kinds = {type(module) for module in model.encoder.modules()}
        assert (Int8Projection in kinds) == (kind is Int8Projection)


def test_cache_reordering_equals_the_core() -> None:
    reference = encoder_decoder()
    model = prepare(copy.deepcopy(reference), "float32").model
    (ids, keep), target = sources(), targets(7)
    rows, sources_left = torch.tensor([4, 1, 3]), torch.tensor([4, 1, 3])
    found = []
    for m in (reference, model):
        with torch.inference_mode():
            memory, cache = m.encode(ids, keep), m.new_cache(3)
            for at in range(5):
                m.decode(target[:, at : at + 1], memory, keep, cache=cache)
            cache.reorder(rows, sources_left)
            assert cache.rows == 3
            x = m.decode(target[:3, 5:6], memory[rows], keep[rows], cache=cache)
            twice = torch.tensor([0, 0, 1, 1, 2, 2])
            cache.reorder(twice)
            cache.reorder(torch.tensor([1, 0, 3, 2, 4, 4]), since=5)
            assert cache.bytes() > 0
            y = m.decode(target[:2].repeat(3, 1)[:, 6:7], memory[rows], keep[rows], cache=cache)
            found.append((x, y))
    assert isinstance(model.new_cache(2), StackedCache)
    for ours, theirs in zip(*found, strict=True):
        assert (ours - theirs).abs().max() < TOLERANCE["float32"]
