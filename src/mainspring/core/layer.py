"""One Transformer layer: self-attention, optional cross-attention, feed-forward.

Each part is a residual step, its norm in one of three places:

    pre     x ─┬─ norm ─ part ─ dropout ─(+)─      post    x ─┬─ part ─ dropout ─(+)─ norm ─
               └───────────────────────────┘                  └───────────────────┘
    sandwich   x ─┬─ norm ─ part ─ norm ─ dropout ─(+)─
                  └──────────────────────────────────┘
"""

from collections.abc import Callable

from torch import Tensor, nn

from mainspring import spec
from mainspring.core.attention import CrossAttention, SelfAttention
from mainspring.core.cache import LayerCache
from mainspring.core.feed_forward import FeedForward
from mainspring.core.masks import AttentionMask
from mainspring.core.norms import build_norm


class PreNorm(nn.Module):
    """x + part(norm x)."""

    def __init__(self, norm: spec.Norm, width: int, dropout: float):
        super().__init__()
        self.norm, self.dropout = build_norm(norm, width), nn.Dropout(dropout)

    def forward(self, x_BTD: Tensor, part: Callable[[Tensor], Tensor]) -> Tensor:
        return x_BTD + self.dropout(part(self.norm(x_BTD)))


class PostNorm(PreNorm):
    """norm(x + part(x))."""

    def forward(self, x_BTD: Tensor, part: Callable[[Tensor], Tensor]) -> Tensor:
        return self.norm(x_BTD + self.dropout(part(x_BTD)))


class SandwichNorm(PreNorm):
    """x + after(part(norm x))."""

    def __init__(self, norm: spec.Norm, width: int, dropout: float):
        super().__init__(norm, width, dropout)
        self.after = build_norm(norm, width)

    def forward(self, x_BTD: Tensor, part: Callable[[Tensor], Tensor]) -> Tensor:
        return x_BTD + self.dropout(self.after(part(self.norm(x_BTD))))


RESIDUALS = {"pre": PreNorm, "post": PostNorm, "sandwich": SandwichNorm}


class Layer(nn.Module):
    def __init__(self, layer: spec.Layer, width: int):
        super().__init__()
        residual = RESIDUALS[layer.norm_placement]

        def step() -> PreNorm:
            return residual(layer.norm, width, layer.dropout)

        self.self_attention = SelfAttention(layer.attention, width)
        self.self_residual = step()
        cross = layer.cross_attention
        self.cross_attention = None if cross is None else CrossAttention(cross, width)
        self.cross_residual = None if cross is None else step()
        self.feed_forward = FeedForward(layer.feed_forward, width)
        self.feed_residual = step()

    def forward(
        self,
        x_BTD: Tensor,
        mask: AttentionMask,
        bias_1HTS: Tensor | None = None,
        turn: tuple[Tensor, Tensor] | None = None,
        memory_BSD: Tensor | None = None,
        memory_mask: AttentionMask | None = None,
        cache: LayerCache | None = None,
    ) -> Tensor:
        x_BTD = self.self_residual(
            x_BTD, lambda y: self.self_attention(y, mask, bias_1HTS, turn, cache)
        )
        if self.cross_attention is not None and self.cross_residual is not None:
            cross = self.cross_attention
            x_BTD = self.cross_residual(x_BTD, lambda y: cross(y, memory_BSD, memory_mask, cache))
        return self.feed_residual(x_BTD, self.feed_forward)
