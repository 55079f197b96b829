"""What users may do to kernels: strided masks, wrong labels, other types, numbers gone wrong."""

import math

import pytest
import torch

from mainspring.compute.loss import token_nats_by_kernels
from mainspring.compute.native import library
from mainspring.compute.native.parts import NativeNorm, NativeProjection
from mainspring.compute.precision import prepare
from mainspring.generation.options import GenerationOptions
from mainspring.generation.search import generate
from mainspring.testing import tiny

needs_kernels = pytest.mark.skipif(library.kernels() is None, reason="no kernels here")


@needs_kernels
def test_a_mask_may_be_strided() -> None:
    base = {"decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}
    options = GenerationOptions.merge(base, max_new_tokens=6, min_new_tokens=6)
    model = prepare(tiny("t5"), "bfloat16").model
    down = torch.randint(2, 40, (12, 4), generator=torch.Generator().manual_seed(0))
    down[5:, 0] = down[9:, 1] = 0
    ids = down.T
    mask = ids != 0
    assert mask.stride() == (1, 4)
    found = generate(model, ids, mask, options).sequences
    assert torch.equal(found, generate(model, ids, mask.contiguous(), options).sequences)


@needs_kernels
@pytest.mark.parametrize("label", [43, -7, 10**9])
def test_a_label_outside_the_vocabulary_is_an_error(label: int) -> None:
    hidden, weight = torch.randn(1, 3, 16).bfloat16(), torch.randn(40, 16)
    with pytest.raises(IndexError, match="the vocabulary has 40"):
        token_nats_by_kernels(hidden, weight, torch.tensor([[3, label, 39]]))


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_the_weights_stay_where_the_kernels_read_them(dtype: torch.dtype) -> None:
    model = prepare(tiny("t5"), "bfloat16").model
    ids = torch.arange(2, 14).view(2, 6)
    with torch.inference_mode():
        before = model.encode(ids, None)
        for module in model.modules():
            if isinstance(module, NativeNorm | NativeProjection):
                module.to(dtype)
        held = [torch.full((4096,), math.nan) for _ in range(200)]  # where they were, if freed
        after = model.encode(ids, None)
    assert torch.equal(after, before) and len(held) == 200


@needs_kernels
def test_a_number_that_is_none_is_not_hidden() -> None:
    with torch.inference_mode():
        for name in ("t5", "llama"):
            model = tiny(name)
            side = model.encoder or model.decoder
            assert side is not None
            side.layers[0].feed_forward.down.weight.data[0, 0] = math.nan
            model = prepare(model, "bfloat16").model
            ids = torch.arange(2, 14).view(2, 6)
            logits = model(ids, None, ids).logits if model.encoder else model(ids).logits
            assert not logits.isfinite().all(), name
