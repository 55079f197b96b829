"""Steps through all layers in one call, against the same kernels called one by one."""

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from mainspring import registry
from mainspring.compute.decoder import StepDecoder
from mainspring.compute.native import library
from mainspring.compute.precision import prepare
from mainspring.core.model import Transformer
from mainspring.testing import tiny, tiny_inputs

pytestmark = pytest.mark.skipif(library.kernels() is None, reason="no kernels on this machine")

ROWS, LENGTH = 6, 9


def writers() -> Iterator[tuple[str, int]]:
    for name in registry.names("families"):
        family = registry.find("families", name)
        for number, config in enumerate(family.examples):
            spec = family.spec(config, ())
            if spec.decoder is not None and spec.vocabulary_head is not None:
                yield name, number


def logits(model: Transformer, ids: Tensor, keep: Tensor | None, sources: int) -> Tensor:
    """Of single tokens after a prompt of three; of beams where there are fewer sources than rows.
    In the middle the rows change places, and at the end half of them leave."""
    memory = memory_keep = None
    if model.encoder is not None:
        source = next(iter(tiny_inputs(model, sources, LENGTH).values()))
        memory = model.encode(source)
        memory_keep = torch.ones(memory.shape[:2], dtype=torch.bool)
        memory_keep[0, 4:] = False
    cache, found = model.new_cache(2), []
    for at in (0, *range(3, LENGTH)):
        end = max(at + 1, 3)
        keep_BS = None if keep is None else keep[:, :end]
        at_BT = None if keep is None else (keep_BS.cumsum(1) - 1).clamp(min=0)[:, at:]
        x = model.decode(
            ids[:, at:end], memory, memory_keep, keep_BS=keep_BS, cache=cache, at_BT=at_BT
        )
        found.append(model.read("vocabulary", x)[: ROWS // 2, -1])
        if at == 5 and keep is None:
            cache.reorder(
                torch.arange(ROWS).flip(0), None if memory is None else torch.arange(sources)
            )
    return torch.stack(found)


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
@pytest.mark.parametrize(("name", "number"), list(writers()))
def test_one_call_gives_the_same_bits(name: str, number: int, precision: str) -> None:
    model = prepare(copy.deepcopy(tiny(name, number)), precision).model
    decoder = model.decoder
    assert isinstance(decoder, StepDecoder) and decoder.native is not None
    inputs = tiny_inputs(model, ROWS, LENGTH)
    ids = inputs["decoder_input_ids" if model.encoder is not None else "input_ids"]
    keep = torch.ones_like(ids, dtype=torch.bool)
    keep[1, :2] = keep[2, :1] = False
    ways = [(None, sources) for sources in (ROWS, ROWS // 3)]
    ways += [] if model.encoder is not None else [(keep, ROWS)]
    with torch.inference_mode():
        for padding, sources in ways:
            whole = logits(model, ids, padding, sources)
            native, decoder.native = decoder.native, None
            by_layer = logits(model, ids, padding, sources)
            decoder.native = native
            assert torch.equal(whole, by_layer) and whole.isfinite().all()


def test_more_sequences_of_a_source_than_the_kernel_knows_go_layer_by_layer() -> None:
    model = prepare(tiny("t5", 0), "bfloat16").model
    ids = torch.zeros(9, 1, dtype=torch.int64)
    with torch.inference_mode():
        memory = model.encode(torch.ones(1, 4, dtype=torch.int64))
        many = model.decode(ids, memory, cache=model.new_cache(2))
        few = model.decode(ids[:8], memory, cache=model.new_cache(2))
    assert torch.allclose(many[:8].float(), few.float(), atol=0.05)
