"""`toy`: a decoder of plain layers, and how its checkpoints are named and stored."""

from collections.abc import Collection, Iterator

from mainspring import spec
from mainspring.families import Config, Family
from mainspring.families.keys import Keys, check_divides
from mainspring.families.layout import layer_pairs, norm
from mainspring.weights.maps import Pair, same

KEYS = Keys(
    defaults={"toy": {"vocab_size": 1000, "width": 64, "depth": 2, "heads": 2, "longest": 256}}
)

LAYER = {
    "self_attention.qkv.q": "look.query",
    "self_attention.qkv.k": "look.key",
    "self_attention.qkv.v": "look.value",
    "self_attention.o": "look.out",
    "self_residual.norm": "look.norm",
    "feed_forward.expand.up": "think.up",
    "feed_forward.down": "think.down",
    "feed_residual.norm": "think.norm",
}


def model_spec(config: Config, names: Collection[str]) -> spec.Model:
    """What the model is that a `config.json` describes."""
    del names  # the stored tensors leave nothing to be told
    c = KEYS.read(config)
    head_width = check_divides(c, "width", "heads")
    layer = spec.Layer(
        spec.Attention(c["heads"], c["heads"], head_width),
        spec.FeedForward(4 * c["width"], "relu"),
        spec.RMSNorm(),
        mask=spec.CausalMask(),
    )
    decoder = spec.Stack(
        c["width"],
        spec.TokenEmbedding(c["vocab_size"]),
        (layer,) * c["depth"],
        spec.Learned(c["longest"]),
        spec.RMSNorm(),
    )
    return spec.Model(
        decoder=decoder, heads=(("vocabulary", spec.VocabularyHead(c["vocab_size"])),)
    )


def pairs(model: spec.Model) -> Iterator[Pair]:
    """The core's tensor names beside those in the files."""
    stack = model.decoder
    assert stack is not None and stack.final_norm is not None
    yield same("tables.tokens.weight", "toy.tokens.weight")
    yield same("decoder.added_positions.table.weight", "toy.places.weight")
    for i, layer in enumerate(stack.layers):
        yield from layer_pairs(layer, f"decoder.layers.{i}", f"toy.layers.{i}", LAYER)
    yield from norm(stack.final_norm, "decoder.final_norm", "toy.norm")


SIZE: Config = {"model_type": "toy", "width": 32, "depth": 1, "heads": 2, "longest": 128}

FAMILY = Family(
    name="toy",
    model_types=("toy",),
    architecture="ToyForCausalLM",
    spec=model_spec,
    pairs=pairs,
    sizes={"toy-nano": SIZE},
    examples=({**SIZE, "vocab_size": 40}, {**SIZE, "vocab_size": 40, "depth": 3}),
)
