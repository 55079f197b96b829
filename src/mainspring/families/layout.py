"""What all weight maps have in common: a layer's modules, from a table of their names.

A family gives one table, from our module names (inside a layer) to its own; which modules there
are, and which of them carry a bias, the spec knows.
"""

from collections.abc import Iterator, Mapping

from mainspring import spec
from mainspring.weights.maps import SAME, Operation, Pair

WEIGHT, BOTH = ("weight",), ("weight", "bias")


def module(ours: str, theirs: str, *, bias: bool, operation: Operation = SAME) -> Iterator[Pair]:
    """Pairs of one module's weight and, where it has one, bias."""
    for part in BOTH if bias else WEIGHT:
        yield Pair((f"{ours}.{part}",), (f"{theirs}.{part}",), operation)


def norm(kind: spec.Norm, ours: str, theirs: str, operation: Operation = SAME) -> Iterator[Pair]:
    """Pairs of one norm's weight and, where its kind has one, bias."""
    bias = isinstance(kind, spec.LayerNorm)
    yield from module(ours, theirs, bias=bias, operation=operation)


def projections(layer: spec.Layer) -> Iterator[tuple[str, bool]]:
    """Our names of a layer's projections, and whether they carry a bias."""
    for p in "qkv":
        yield f"self_attention.qkv.{p}", p in layer.attention.biases
    yield "self_attention.o", "o" in layer.attention.biases
    if layer.cross_attention is not None:
        for p, name in (("q", "q"), ("k", "kv.k"), ("v", "kv.v"), ("o", "o")):
            yield f"cross_attention.{name}", p in layer.cross_attention.biases
    if layer.feed_forward.gated:
        yield "feed_forward.expand.gate", layer.feed_forward.bias
    yield "feed_forward.expand.up", layer.feed_forward.bias
    yield "feed_forward.down", layer.feed_forward.bias


def norms(layer: spec.Layer) -> Iterator[tuple[str, spec.Norm]]:
    """Our names of a layer's norms, and their kinds."""
    if layer.attention.query_key_norm is not None:
        yield "self_attention.query_norm", layer.attention.query_key_norm
        yield "self_attention.key_norm", layer.attention.query_key_norm
    cross = ["cross"] if layer.cross_attention is not None else []
    for step in ("self", *cross, "feed"):
        yield f"{step}_residual.norm", layer.norm
        if layer.norm_placement == "sandwich":
            yield f"{step}_residual.after", layer.norm


def layer_pairs(
    layer: spec.Layer,
    ours: str,
    theirs: str,
    names: Mapping[str, str],
    norm_operation: Operation = SAME,
) -> Iterator[Pair]:
    """Pairs of all weights of the layer at `ours`, stored under `theirs` by the table `names`."""
    for name, bias in projections(layer):
        yield from module(f"{ours}.{name}", f"{theirs}.{names[name]}", bias=bias)
    for name, kind in norms(layer):
        yield from norm(kind, f"{ours}.{name}", f"{theirs}.{names[name]}", norm_operation)
