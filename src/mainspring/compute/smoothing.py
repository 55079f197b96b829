"""Outliers moved out of activations that are taken to 8 bits (SmoothQuant, Xiao et al., 2023).

A few channels of a decoder's normalised values are many times larger than the rest, and with one
scale for a row they leave the rest no levels. Dividing each channel by its own number, and
multiplying the weights that read it by the same, changes nothing but where the large values are.
The division is taken into the norm's weights, so that it costs nothing at run time.

Which channels are large hardly depends on the text: a few random tokens show them.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mainspring import spec
from mainspring.core.feed_forward import GatedUp
from mainspring.core.layer import PostNorm
from mainspring.core.model import Transformer

ROWS, LENGTH = 2, 48  # of the random tokens


@torch.no_grad()
def smooth(model: Transformer) -> Tensor | None:
    """Smooths the inputs of q/k/v and of the feed-forward networks of a decoder-only model, in
    place. What to divide the vocabulary head's input by is given back, since other heads read it
    too; None where there is no such head.

    Models with an encoder stay as they are.
    """
    decoder = model.spec.decoder
    if model.encoder is not None or decoder is None or not _reads_tokens(decoder):
        return None
    norms: list[tuple[Any, list[Any]]] = []
    for layer in _layers(model):
        expand = layer.feed_forward.expand
        gated = isinstance(expand, GatedUp)
        norms.append((layer.self_residual, list(layer.self_attention.qkv.children())))
        norms.append((layer.feed_residual, [expand.gate, expand.up] if gated else [expand.up]))
    pre = [(step.norm, leaves) for step, leaves in norms if not isinstance(step, PostNorm)]
    final: Any = model.decoder
    largest = _largest(model, decoder, [*(norm for norm, _ in pre), final])
    for norm, leaves in pre:
        scale_I = _scale(largest[norm], [leaf.weight for leaf in leaves])
        norm.weight.div_(scale_I)
        if isinstance(norm, nn.LayerNorm) and norm.bias is not None:
            norm.bias.div_(scale_I)
        for leaf in leaves:
            leaf.weight.mul_(scale_I)
    if "vocabulary" not in model.heads:
        return None
    head: Any = model.heads["vocabulary"]
    if head.has_layers:
        return None
    table = model.table(decoder)
    assert table is not None
    return _scale(largest[final], [table.weight if head.out is None else head.out.weight])


def _reads_tokens(stack: spec.Stack) -> bool:
    return isinstance(stack.embedding, spec.TokenEmbedding)


def _layers(model: Transformer) -> list[Any]:
    decoder: Any = model.decoder
    return list(decoder.layers)


def _largest(
    model: Transformer, decoder: spec.Stack, modules: Sequence[nn.Module]
) -> dict[nn.Module, Tensor]:
    """The largest magnitude of each output channel of `modules` over some random tokens."""
    found: dict[nn.Module, Tensor] = {}

    def note(module: nn.Module, inputs: Any, y: Tensor) -> None:
        found[module] = y.abs().flatten(0, -2).amax(0).float()

    embedding, positions = decoder.embedding, decoder.positions
    assert isinstance(embedding, spec.TokenEmbedding)
    length = min(LENGTH, positions.length) if isinstance(positions, spec.Learned) else LENGTH
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(embedding.vocabulary, (ROWS, length), generator=generator)
    handles = [module.register_forward_hook(note) for module in modules]
    try:
        model.decode(ids.to(next(model.parameters()).device))
    finally:
        for handle in handles:
            handle.remove()
    return found


def _scale(largest_I: Tensor, weights_OI: Sequence[Tensor]) -> Tensor:
    """What to divide each channel by: the difficulty is shared evenly with the weights."""
    weight_I = torch.stack([weight.abs().amax(0).float() for weight in weights_OI]).amax(0)
    return (largest_I / weight_I.clamp(min=1e-8)).sqrt().clamp(min=1e-5)
