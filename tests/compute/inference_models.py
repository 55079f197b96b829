"""Small models for the tests of compute/."""

import torch

from mainspring import spec
from mainspring.core.init import build
from mainspring.core.model import Transformer


def encoder_decoder(
    *,
    gated: bool = False,
    tied: bool = True,
    norm: str = "pre",
    cross_shares: bool = False,
    seed: int = 0,
) -> Transformer:
    """A T5-like model of random weights in which every norm and bias has its own numbers."""
    rms = spec.RMSNorm()
    attention = spec.Attention(4, 4, 16, scale=1.0)
    feed = spec.FeedForward(96, "gelu_tanh" if gated else "relu", gated)

    def stack(mask: spec.Mask, cross: spec.Attention | None) -> spec.Stack:
        layer = spec.Layer(attention, feed, rms, cross, norm, mask)
        return spec.Stack(64, spec.TokenEmbedding(99), (layer,) * 2, spec.RelativeBias(), rms)

    head = spec.VocabularyHead(99, tied, 64**-0.5 if tied else 1.0)
    model = spec.Model(
        stack(spec.FullMask(), None),
        stack(spec.CausalMask(), spec.Attention(4, 2, 16) if cross_shares else attention),
        (("vocabulary", head),),
    )
    return _varied(build(model, seed))


def decoder_only(seed: int = 0) -> Transformer:
    """A GPT-2-like model: layer norms, biases, learned positions."""
    norm = spec.LayerNorm()
    attention = spec.Attention(4, 4, 16, biases="qkvo")
    feed = spec.FeedForward(96, "gelu_tanh", bias=True)
    layer = spec.Layer(attention, feed, norm, mask=spec.CausalMask())
    stack = spec.Stack(64, spec.TokenEmbedding(99), (layer,) * 2, spec.Learned(200), norm)
    return _varied(build(spec.Model(None, stack, (("vocabulary", spec.VocabularyHead(99)),)), seed))


@torch.no_grad()
def _varied(model: Transformer) -> Transformer:
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.eval()
