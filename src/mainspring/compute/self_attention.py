"""Self-attention for training on a CPU: projections, rotation and attention without taking queries,
keys and values apart, nor joining their gradients again."""

import torch
from torch import Tensor, nn

from mainspring.compute.attention import training_attend
from mainspring.compute.causal import causal_attend, half_turn, is_causal
from mainspring.compute.linear import FusedProjections, linear
from mainspring.compute.native import library
from mainspring.compute.native.training import attend_joined, knows
from mainspring.core.attention import SelfAttention
from mainspring.core.cache import LayerCache
from mainspring.core.masks import AttentionMask


class FusedSelfAttention(SelfAttention):
    """In the place of a `SelfAttention` whose projections are fused. Where neither the kernels nor
    `causal_attend` can serve (a cache, a soft cap, an instrument's `attend`), the core's runs."""

    def __init__(self, old: SelfAttention, heads: tuple[int, int]):
        nn.Module.__init__(self)
        self.__dict__.update(old.__dict__)
        self.heads = heads

    def forward(
        self,
        x_BTD: Tensor,
        mask: AttentionMask,
        bias_1HTS: Tensor | None = None,
        turn: tuple[Tensor, Tensor] | None = None,
        cache: LayerCache | None = None,
    ) -> Tensor:
        assert isinstance(self.qkv, FusedProjections)
        on_cpu = x_BTD.device.type == "cpu"  # torch's fused kernels serve others
        plain = self.attend is training_attend and cache is None and not self.cap
        if not plain or not on_cpu or not torch.is_grad_enabled():
            return super().forward(x_BTD, mask, bias_1HTS, turn, cache)
        dropout = self.dropout if self.training else 0.0
        dtype = self.qkv.copy.dtype
        causal = bias_1HTS is None and not dropout and is_causal(mask)
        kernels = library.kernels() if knows(mask, dtype) else None
        if not causal and kernels is None:
            return super().forward(x_BTD, mask, bias_1HTS, turn, cache)
        qkv_BTX = linear(x_BTD, self.qkv.copy)
        if not isinstance(self.query_norm, nn.Identity):
            q, k, v = map(self.split, qkv_BTX.split(self.qkv.copy.rows, -1))
            parts = self.query_norm(q), self.key_norm(k), v
            qkv_BTX = torch.cat([part.transpose(1, 2).flatten(2) for part in parts], -1)
        if causal:
            return self.o(causal_attend(qkv_BTX, self.heads, turn, self.scale))
        assert kernels is not None
        turn = half_turn(turn, dtype)
        y_BTD = attend_joined(
            kernels, qkv_BTX, self.heads, turn, mask, bias_1HTS, self.scale, dropout
        )
        return self.o(y_BTD)
