"""Smoothing changes no number in float32, and saves what 8 bits would lose to outliers."""

import copy

import pytest
import torch

from mainspring.compute.native import library
from mainspring.compute.precision import prepare
from mainspring.compute.smoothing import smooth
from mainspring.core.model import Transformer
from mainspring.testing import tiny, tiny_inputs

EXAMPLES = [("gpt2", 0), ("llama", 1), ("llama", 4), ("gemma", 0), ("gemma", 1), ("gemma", 2)]


def logits(model: Transformer) -> torch.Tensor:
    with torch.inference_mode():
        return model(**tiny_inputs(model, 3)).logits.float()


@pytest.mark.parametrize(("name", "number"), EXAMPLES)
def test_in_float32_nothing_changes(name, number):
    model = tiny(name, number)
    before = logits(model)
    scale = smooth(model)
    assert scale is not None and scale.shape == (model.spec.decoder.width,)
    assert (logits(model) - before).abs().max() <= 1e-5 * before.abs().max()


def with_outliers(name: str, number: int) -> Transformer:
    """Two channels of every norm a hundred times as large, and the weights that read them small:
    as in language models of some size."""
    model = tiny(name, number)
    with torch.no_grad():
        for layer in model.decoder.layers:
            leaves = layer.self_attention.qkv.q, layer.feed_forward.expand.up
            for step, leaf in zip((layer.self_residual, layer.feed_residual), leaves, strict=True):
                step.norm.weight[:2] *= 100
                leaf.weight[:, :2] /= 100
    return model


@pytest.mark.parametrize("example", [("gpt2", 0), ("llama", 1)])
def test_outliers_cost_less(example, monkeypatch):
    # Our own kernels take activations to 15 bits, and leave the model as it is.
    monkeypatch.setattr(library, "kernels", lambda: None)
    model = with_outliers(*example)
    expected = logits(model)
    errors = []
    for smoothed in (True, False):
        if not smoothed:
            monkeypatch.setattr("mainspring.compute.precision.smooth", lambda model: None)
        found = logits(prepare(copy.deepcopy(model), "int8").model)
        errors.append(float((found - expected).abs().mean()))
    assert errors[0] < 0.5 * errors[1], errors


def test_models_with_an_encoder_or_norms_after_stay_as_they_are():
    for name in ("t5", "bert", "vit"):
        model = tiny(name)
        before = copy.deepcopy(model.state_dict())
        assert smooth(model) is None
        assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
