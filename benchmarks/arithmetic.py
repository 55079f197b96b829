"""How many floating-point operations a model's matrix products take, from its spec alone.

A product of (rows x inside) and (inside x outside) is 2 * rows * inside * outside operations.
Training counts every product three times: forward, and the gradients of both factors. So it is
6 * (weights in matrix products) * (tokens that pass them), and for attention the products of
queries with keys and of shares with values, over whole rows (also where a mask hides half).
Embedding look-ups, norms, softmax and the optimizer count nothing; nor does padding.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from mainspring import spec


@dataclass(frozen=True)
class Product:
    """`count` products of activations (rows x inside) with a weight (inside x outside)."""

    rows: int
    inside: int
    outside: int
    count: int = 1

    @property
    def flops(self) -> int:
        return 2 * self.rows * self.inside * self.outside * self.count


def weight_products(model: spec.Model, source: int, target: int) -> list[Product]:
    """The forward products with weights for `source` tokens into the encoder and `target` tokens
    into the decoder; projections of the same input are joined, and the layers of a stack are taken
    to be alike."""
    found = []
    if model.encoder is not None:
        found += _stack_products(model.encoder, source, source)
    if model.decoder is not None:
        found += _stack_products(model.decoder, target, source)
    head = model.vocabulary_head
    if head is not None:
        last = model.decoder or model.encoder
        assert last is not None
        found.append(Product(target if model.decoder else source, last.width, head.vocabulary))
    return [product for product in found if product.rows]


def _stack_products(stack: spec.Stack, tokens: int, memory: int) -> list[Product]:
    layer, width, depth = stack.layers[0], stack.width, len(stack.layers)
    attention, feed = layer.attention, layer.feed_forward
    queries = attention.heads * attention.head_width
    keys = attention.key_value_heads * attention.head_width
    found = [
        Product(tokens, width, queries + 2 * keys, depth),
        Product(tokens, queries, width, depth),
    ]
    if layer.cross_attention is not None:
        cross = layer.cross_attention
        queries = cross.heads * cross.head_width
        keys = cross.key_value_heads * cross.head_width
        found += [
            Product(tokens, width, queries, depth),
            Product(memory, width, 2 * keys, depth),
            Product(tokens, queries, width, depth),
        ]
    up = feed.width * (2 if feed.gated else 1)
    return [*found, Product(tokens, width, up, depth), Product(tokens, feed.width, width, depth)]


def attention_flops(model: spec.Model, source: int, target: int) -> int:
    """The forward operations of all attention scores and weighted sums of one row."""
    total = 0
    for stack, tokens in ((model.encoder, source), (model.decoder, target)):
        for layer in stack.layers if stack is not None else ():
            total += 4 * tokens * tokens * layer.attention.heads * layer.attention.head_width
            if layer.cross_attention is not None:
                cross = layer.cross_attention
                total += 4 * tokens * source * cross.heads * cross.head_width
    return total


def forward_flops(model: spec.Model, source: int, target: int) -> int:
    """The operations of one row with `source` and `target` tokens."""
    products = weight_products(model, source, target)
    return sum(product.flops for product in products) + attention_flops(model, source, target)


def training_flops(model: spec.Model, lengths: Iterable[tuple[int, int]]) -> int:
    """The operations of a training step on rows of these (source, target) lengths."""
    return 3 * sum(forward_flops(model, source, target) for source, target in lengths)


def decoding_weights(model: spec.Model) -> list[tuple[int, int]]:
    """(inside, outside) of every weight matrix that one decoding step reads."""
    products = weight_products(model, 0, 1)
    return [(p.inside, p.outside) for p in products for _ in range(p.count)]
