"""What `StepDecoder` calls of each layer, and which decoders it knows."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor

from mainspring import spec
from mainspring.compute.native.parts import NativeNorm
from mainspring.compute.norms import join_head_norms

Call = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Norms:
    """The norms of one residual step: of its input, of what it adds, of the sum.

    `summed(x, y)` gives x + y and what `before` makes of it.
    """

    before: Call | None
    summed: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    after: Call | None
    closing: Call | None

    def enter(self, x: Tensor, added: Tensor | None) -> tuple[Tensor, Tensor]:
        """(the residual stream, what the part reads of it); `added` is not yet in the stream."""
        if added is not None:
            return self.summed(x, added)
        return x, x if self.before is None else self.before(x)

    def leave(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor | None]:
        """(the residual stream, what is to be added to it yet) after a part that gave y."""
        if self.after is not None:
            y = self.after(y)
        return (x, y) if self.closing is None else (self.closing(x + y), None)


@dataclass(frozen=True)
class Parts:
    """What a step calls of one layer, looked up once.

    `turned` counts the heads of queries and keys, which lie side by side; `turn` names the
    layer's rotary angles, `window` is how many positions it sees.
    """

    norms: Norms
    qkv: Call
    heads: int
    turned: int
    head_width: int
    head_norms: Call | None
    turn: str | None
    window: int | None
    scale: float
    attend: Any
    cap: dict[str, float]
    o: Call
    cross_norms: Norms
    cross: Any
    feed_norms: Norms
    expand: Call
    down: Call


def fits(stack: spec.Stack) -> bool:
    """Whether `StepDecoder` knows all that this decoder's layers do.

    Each record is compared with one that states only what the step knows, so that a kind the spec
    learns later is never left out in silence.
    """
    embedding = stack.embedding
    if not isinstance(embedding, spec.TokenEmbedding) or embedding.types:
        return False
    known = spec.Stack(stack.width, embedding, stack.layers, stack.positions, stack.final_norm)
    known = replace(known, dropout=stack.dropout, final_dropout=stack.final_dropout)
    known = replace(known, embedding_norm=stack.embedding_norm)
    biased = isinstance(stack.positions, spec.RelativeBias)
    own = [layer.attention for layer in stack.layers]
    return (
        known == stack
        and len({(a.key_value_heads, a.head_width) for a in own}) == 1
        and not (biased and any(a.heads != a.key_value_heads for a in own))
        and all(map(_fits, stack.layers))
    )


def _fits(layer: spec.Layer) -> bool:
    own, cross = layer.attention, layer.cross_attention
    turn = own.rotary and spec.Rotary(own.rotary.theta, own.rotary.scaling)
    attention = spec.Attention(
        own.heads, own.key_value_heads, own.head_width, own.biases, own.scale, turn, own.dropout
    )
    attention = replace(attention, soft_cap=own.soft_cap, query_key_norm=own.query_key_norm)
    known = spec.Layer(attention, layer.feed_forward, layer.norm, cross, layer.norm_placement)
    known = replace(known, mask=layer.mask, dropout=layer.dropout)
    causal = isinstance(layer.mask, spec.CausalMask | spec.SlidingWindow)
    return known == layer and causal and (cross is None or cross.heads == cross.key_value_heads)


def _norms(residual: Any, placement: str) -> Norms:
    if residual is None:
        return Norms(None, _sum, None, None)
    norm = residual.norm
    if placement == "post":
        return Norms(None, _sum, None, norm.forward)
    summed = norm.after_sum if isinstance(norm, NativeNorm) else partial(_sum, norm=norm.forward)
    after = residual.after.forward if placement == "sandwich" else None
    return Norms(norm.forward, summed, after, None)


def _sum(x: Tensor, y: Tensor, norm: Call | None = None) -> tuple[Tensor, Tensor]:
    x = x + y
    return x, x if norm is None else norm(x)


def layer_parts(layer: Any, described: spec.Layer, turn: str | None) -> Parts:
    """The calls go to `forward` at once, past hooks: there are a hundred of them in a step.

    `qkv` must give queries, keys and values side by side: see `JoinedProjections`.
    """
    own, attention, placement = layer.self_attention, described.attention, described.norm_placement
    normed = attention.query_key_norm is not None
    heads, key_heads = attention.heads, attention.key_value_heads
    return Parts(
        norms=_norms(layer.self_residual, placement),
        qkv=own.qkv.joined.forward,
        heads=heads,
        turned=heads + key_heads,
        head_width=own.head_width,
        head_norms=join_head_norms(own.query_norm, own.key_norm, heads, key_heads)
        if normed
        else None,
        turn=turn,
        window=described.mask.size if isinstance(described.mask, spec.SlidingWindow) else None,
        scale=own.scale,
        attend=own.attend,
        cap=own.cap,
        o=own.o.forward,
        cross_norms=_norms(layer.cross_residual, placement),
        cross=layer.cross_attention,
        feed_norms=_norms(layer.feed_residual, placement),
        expand=layer.feed_forward.expand.forward,
        down=layer.feed_forward.down.forward,
    )
