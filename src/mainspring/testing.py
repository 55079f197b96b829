"""The contract of a family, as checks that any package can run on its own.

    from mainspring.testing import check_family
    def test_my_family(): check_family("my-family")

A family is looked up by the name it is registered under, and tested on its `examples`: the spec
survives JSON, the weight map accounts for every tensor in both directions and bit for bit, what is
missing, left over or unknown is an error that names it, padding changes nothing and never gives
NaN, and decoding step by step equals the full pass. That its numbers are right, only a comparison
with another implementation can show.
"""

import json
import math
import tempfile
from typing import Any

import torch
from torch import Tensor

from mainspring import registry, spec
from mainspring.checkpoints.bundle import Bundle, load
from mainspring.core.init import build
from mainspring.core.model import Transformer
from mainspring.errors import BadOption, BadWeights, MainspringError
from mainspring.families import Config, Family
from mainspring.weights.maps import to_ours, to_theirs


def tiny(name: str, example: int = 0, *, seed: int = 0) -> Transformer:
    """A small model of the family registered as `name`, of its example number `example`, with
    random weights (biases and norms too), in evaluation mode."""
    family = registry.find("families", name)
    return _random(family.spec(family.examples[example], ()), seed)


def tiny_inputs(model: Transformer, rows: int = 2, length: int = 9) -> dict[str, Tensor]:
    """Random inputs for a small model, under the names that it is called with."""
    generator = torch.Generator().manual_seed(0)
    first = model.spec.encoder or model.spec.decoder
    assert first is not None
    inputs: dict[str, Tensor] = {}
    match first.embedding:
        case spec.TokenEmbedding(vocabulary):
            ids = torch.randint(1, vocabulary, (rows, length), generator=generator)
            inputs["input_ids"] = ids
            inputs["attention_mask"] = torch.ones(rows, length, dtype=torch.long)
        case spec.PatchEmbedding() as image:
            height, width = image.rows * image.patch, image.columns * image.patch
            shape = rows, image.channels, height, width
            inputs["pixel_values"] = torch.randn(shape, generator=generator)
        case spec.AudioEmbedding(bins):
            inputs["input_features"] = torch.randn((rows, bins, 2 * length), generator=generator)
    if model.spec.encoder is not None and model.spec.decoder is not None:
        embedding = model.spec.decoder.embedding
        assert isinstance(embedding, spec.TokenEmbedding)
        ids = torch.randint(1, embedding.vocabulary, (rows, length), generator=generator)
        inputs["decoder_input_ids"] = ids
    return inputs


def check_family(name: str) -> None:
    """Runs the contract on every example of the family. AssertionError says what does not hold."""
    family: Family = registry.find("families", name)
    assert family.examples, f"the family `{name}` has no `examples` to be tested on"
    for number, config in enumerate(family.examples):
        model = tiny(name, number)
        check_spec(family, config)
        check_weight_map(family, config, model)
        check_saving(family, config, model)
        with torch.no_grad():
            check_padding(model)
            check_decoding(model)


def check_spec(family: Family, config: Config) -> None:
    """The spec survives JSON, and a config key that nobody knows is an error that names it."""
    description = family.spec(config, ())
    written = json.loads(json.dumps(spec.to_dict(description)))
    assert spec.from_dict(written) == description, "the spec does not survive JSON"
    key = "key_that_nobody_knows"
    try:
        family.spec({**config, key: 1}, ())
    except BadOption as error:
        assert key in str(error), f"the error for an unknown config key does not name it: {error}"
    else:
        raise AssertionError("a config key that nobody knows is passed over in silence")


def check_weight_map(family: Family, config: Config, model: Transformer) -> None:
    """Saving and loading give the same bits; a missing and a strange tensor are named."""
    ours = model.state_dict()
    expected = {name: tuple(tensor.shape) for name, tensor in ours.items()}
    pairs = list(family.pairs(model.spec))
    names = [name for pair in pairs for name in pair.theirs]
    assert len(names) == len(set(names)), "the weight map names a stored tensor twice"
    theirs = to_theirs(pairs, ours)
    assert {family.canonical(name) for name in theirs} == set(theirs), "renames change new names"
    for name, other in family.aliases.items():
        both = name in theirs and other in theirs
        assert not both or not torch.equal(theirs[name], theirs[other]), f"{name} is saved twice"
    assert family.spec(config, theirs.keys()) == model.spec, (
        "the spec of the saved tensors is not the spec they were saved from"
    )
    again = to_ours(pairs, theirs, expected, family.ignored)
    for name, tensor in ours.items():
        assert torch.equal(again[name], tensor), f"{name} does not survive saving and loading"
    dropped = names[len(names) // 2]
    rest = {name: tensor for name, tensor in theirs.items() if name != dropped}
    _raises(dropped, lambda: to_ours(pairs, rest, expected, family.ignored))
    strange = {**theirs, "strange.weight": torch.zeros(1)}
    _raises("strange.weight", lambda: to_ours(pairs, strange, expected, family.ignored))


def check_saving(family: Family, config: Config, model: Transformer) -> None:
    """A saved folder opens as the same model, and names a class to open it with elsewhere."""
    with tempfile.TemporaryDirectory() as folder:
        Bundle(model, dict(config), family).save(folder)
        opened = load(folder)
        assert opened.spec == model.spec, "a saved folder opens as another model"
        for name, tensor in model.state_dict().items():
            assert torch.equal(opened.model.state_dict()[name], tensor), f"{name} is not saved"
        assert opened.config["architectures"], "the saved config.json names no class"


def check_padding(model: Transformer) -> None:
    """Padding on the right changes nothing before it, and a row of nothing else stays finite."""
    inputs = tiny_inputs(model)
    if "attention_mask" not in inputs:
        return
    plain = model(**inputs)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    length, more = ids.shape[1], 3
    inputs["input_ids"] = torch.cat([ids, ids[:, :more]], 1)
    inputs["attention_mask"] = torch.cat([mask, torch.zeros_like(mask[:, :more])], 1)
    padded = model(**inputs).last_hidden_state[:, :length]
    _assert_close(padded, plain.last_hidden_state)
    inputs["attention_mask"] = torch.zeros_like(inputs["attention_mask"])
    assert model(**inputs).last_hidden_state.isfinite().all(), "a padded row is not finite"


def check_decoding(model: Transformer) -> None:
    """Through the cache, some positions at a time, a decoder computes what it does in one pass."""
    if model.spec.decoder is None:
        return
    inputs = tiny_inputs(model)
    ids = inputs.get("decoder_input_ids", inputs.get("input_ids"))
    assert ids is not None
    full = model(**inputs)
    cache, parts = model.new_cache(capacity=2), []
    for part in ids.split([3, 1, 2, *[1] * (ids.shape[1] - 6)], 1):
        parts.append(model.decode(part, full.encoder_last_hidden_state, cache=cache))
    _assert_close(torch.cat(parts, 1), full.last_hidden_state)


def _assert_close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def _random(description: spec.Model, seed: int) -> Transformer:
    """A model whose every tensor is random, norms between 0.5 and 1.5."""
    model = build(description, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, module in model.named_modules():
            for kind, parameter in module.named_parameters(recurse=False):
                noise = torch.rand(parameter.shape, generator=generator) - 0.5
                if isinstance(module, torch.nn.LayerNorm | torch.nn.RMSNorm) and kind == "weight":
                    parameter.copy_(1 + noise)
                elif parameter.dim() == 1:
                    parameter.copy_(noise)
                elif name.startswith("tables."):
                    parameter.copy_(noise * math.sqrt(12) * parameter.shape[-1] ** -0.5)
    return model.eval()


def _raises(named: str, call: Any) -> None:
    try:
        call()
    except MainspringError as error:
        assert isinstance(error, BadWeights), f"{type(error).__name__} instead of BadWeights"
        assert named in str(error), f"the error does not name `{named}`: {error}"
    else:
        raise AssertionError(f"`{named}` is passed over in silence")
