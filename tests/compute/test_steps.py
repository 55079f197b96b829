"""Single-token steps of every family's prepared decoder, against the core's full pass."""

import copy

import pytest
import torch
from torch import Tensor

from mainspring import registry
from mainspring.compute.decoder import StepDecoder
from mainspring.compute.precision import prepare
from mainspring.core.model import Transformer
from mainspring.testing import tiny, tiny_inputs

LENGTH = 9  # longer than the windows of the examples
SHARE = {"float32": 1e-5, "bfloat16": 0.06, "int8": 0.15}  # of the largest logit


def writers() -> list[tuple[str, int]]:
    """The examples of all families that can write."""
    found = []
    for name in registry.names("families"):
        family = registry.find("families", name)
        for number, config in enumerate(family.examples):
            spec = family.spec(config, ())
            if spec.decoder is not None and spec.vocabulary_head is not None:
                found.append((name, number))
    return found


def stepwise(model: Transformer, ids: Tensor, keep: Tensor | None, prompt: int) -> Tensor:
    """Logits of a prompt that is read at once and of single tokens after it."""
    inputs = tiny_inputs(model, len(ids), LENGTH)
    memory = None
    if model.encoder is not None:
        source = next(iter(inputs.values()))
        memory = model.encode(source)
    cache, found, at = model.new_cache(2), [], 0
    while at < ids.shape[1]:
        end = at + (prompt if at == 0 else 1)
        keep_BS = None if keep is None else keep[:, :end]
        at_BT = None if keep is None else (keep_BS.cumsum(1) - 1).clamp(min=0)[:, at:]
        x = model.decode(ids[:, at:end], memory, keep_BS=keep_BS, cache=cache, at_BT=at_BT)
        found.append(model.read("vocabulary", x).float())
        at = end
    return torch.cat(found, 1)


@pytest.mark.parametrize(("name", "number"), writers())
def test_steps_equal_the_full_pass(name: str, number: int) -> None:
    reference = tiny(name, number)
    inputs = tiny_inputs(reference, 3, LENGTH)
    ids = inputs["decoder_input_ids" if reference.encoder is not None else "input_ids"]
    keep = torch.ones_like(ids, dtype=torch.bool)
    keep[1, :3] = keep[2, :5] = False
    padded = None if reference.encoder is not None else keep
    with torch.inference_mode():
        expected = stepwise(reference, ids, None, LENGTH)
        for precision, share in SHARE.items():
            model = prepare(copy.deepcopy(reference), precision).model
            assert isinstance(model.decoder, StepDecoder)
            for prompt in (1, 5):
                error = (stepwise(model, ids, None, prompt) - expected).abs().max()
                assert error <= share * expected.abs().max(), (precision, prompt, float(error))
            if precision == "float32" and padded is not None:
                found = stepwise(model, ids, padded, 7)
                whole = stepwise(reference, ids, padded, LENGTH)
                error = (found - whole)[keep].abs().max()
                assert error <= share * whole.abs().max(), float(error)
