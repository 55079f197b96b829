"""A stack: embedding -> positions -> layers -> last norm. Encoder and decoder are both stacks."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mainspring import spec
from mainspring.core.cache import Cache
from mainspring.core.embeddings import build_embedding
from mainspring.core.layer import Layer
from mainspring.core.masks import AttentionMask
from mainspring.core.norms import build_optional_norm
from mainspring.core.positions import (
    GridPositions,
    LearnedPositions,
    RelativePositionBias,
    RotaryAngles,
    SinusoidalPositions,
    count_all,
    count_kept,
)


def build_added_positions(stack: spec.Stack) -> nn.Module | None:
    match stack.positions:
        case spec.Learned(length):
            return LearnedPositions(length, stack.width)
        case spec.Sinusoidal() as sinusoidal:
            return SinusoidalPositions(sinusoidal, stack.width)
    return None


def build_counting(stack: spec.Stack) -> Callable[[Tensor, Tensor | None], Tensor]:
    match stack.positions:
        case spec.Learned(skips_padding=True) | spec.Sinusoidal(skips_padding=True):
            return count_kept
    return count_all


def build_layer_positions(stack: spec.Stack) -> nn.ModuleList:
    """Positions to add after each layer but the last, where the embedding asks for them."""
    modules = nn.ModuleList()
    match stack.embedding:
        case spec.PatchEmbedding(every_layer=True) as embedding:
            modules += [GridPositions(embedding, stack.width) for _ in stack.layers[1:]]
    return modules


def build_position_bias(stack: spec.Stack) -> nn.Module | None:
    match stack.positions:
        case spec.RelativeBias() as bias:
            first = stack.layers[0]
            both_ways = isinstance(first.mask, spec.FullMask)
            return RelativePositionBias(bias, first.attention.heads, both_ways)
    return None


class Stack(nn.Module):
    def __init__(self, stack: spec.Stack):
        super().__init__()
        self.embedding = build_embedding(stack.embedding, stack.width)
        self.count = build_counting(stack)
        self.added_positions = build_added_positions(stack)
        self.position_bias = build_position_bias(stack)
        self.embedding_norm = build_optional_norm(stack.embedding_norm, stack.width)
        self.dropout = nn.Dropout(stack.dropout)
        self.layers = nn.ModuleList(Layer(layer, stack.width) for layer in stack.layers)
        self.layer_positions = build_layer_positions(stack)
        self.final_norm = build_optional_norm(stack.final_norm, stack.width)
        self.final_dropout = nn.Dropout(stack.final_dropout)
        # Layers that turn alike share their angles, layers that see alike share their mask.
        self.turns = [_key(layer.attention.rotary) for layer in stack.layers]
        self.masks = [layer.mask for layer in stack.layers]
        self.angles = nn.ModuleDict()
        for key, layer in zip(self.turns, stack.layers, strict=True):
            rotary = layer.attention.rotary
            if key is not None and rotary is not None:
                self.angles[key] = RotaryAngles(rotary, layer.attention.head_width)

    def new_cache(self, capacity: int) -> Cache:
        """An empty cache of the kind that these layers read."""
        return Cache(len(self.layers), capacity)

    def forward(
        self,
        inputs: Tensor,
        table: nn.Embedding | None,
        keep_BS: Tensor | None = None,
        memory_BSD: Tensor | None = None,
        memory_keep_BS: Tensor | None = None,
        cache: Cache | None = None,
        at_BT: Tensor | None = None,
        segments: tuple[Tensor, Tensor] | None = None,
        memory_segments: tuple[Tensor, Tensor] | None = None,
        types_BT: Tensor | None = None,
    ) -> Tensor:
        """Hidden states BTD.

        `keep_BS` covers the cached positions too. `at_BT` are the positions of the inputs where
        they are not simply counted on from the cache (left padding, packed rows).
        """
        x_BTD = self.embedding(inputs, table, types_BT)
        queries, device = x_BTD.shape[1], x_BTD.device
        start = 0 if cache is None else cache.length
        keys = start + queries
        at_T = torch.arange(start, keys, device=device)
        at = self.count(at_T, keep_BS) if at_BT is None else at_BT
        if self.added_positions is not None:
            x_BTD = self.added_positions(x_BTD, at)
        bias_1HTS = None
        if self.position_bias is not None:
            bias_1HTS = self.position_bias(at_T, torch.arange(keys, device=device))
        turns = {key: angles(at) for key, angles in self.angles.items()}
        masks = {
            kind: AttentionMask(kind, queries, keys, device, start, keep_BS, segments)
            for kind in set(self.masks)
        }
        memory_mask = None
        if memory_BSD is not None:
            memory_mask = AttentionMask(
                spec.FullMask(),
                queries,
                memory_BSD.shape[1],
                device,
                keep_BS=memory_keep_BS,
                segments=memory_segments,
            )
        x_BTD = self.dropout(self.embedding_norm(x_BTD))
        for i, layer in enumerate(self.layers):
            turn = self.turns[i]
            x_BTD = layer(
                x_BTD,
                masks[self.masks[i]],
                bias_1HTS,
                None if turn is None else turns[turn],
                memory_BSD,
                memory_mask,
                None if cache is None else cache.layers[i],
            )
            if i < len(self.layer_positions):
                x_BTD = self.layer_positions[i](x_BTD, inputs)
        return self.final_dropout(self.final_norm(x_BTD))


def _key(rotary: spec.Rotary | None) -> str | None:
    """A name for one kind of turning; module names cannot hold a dot."""
    return None if rotary is None else repr(rotary).replace(".", "_")
