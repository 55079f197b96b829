"""Heads: what is read out of a model's last hidden states.

All are called alike: with the hidden states, the token table that a tied head borrows, and where
the real tokens are, for those that pool.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mainspring import spec
from mainspring.core.feed_forward import ACTIVATIONS
from mainspring.core.norms import build_optional_norm


def pool_first(x_BTD: Tensor, keep_BT: Tensor | None) -> Tensor:
    return x_BTD[:, 0]


def pool_last(x_BTD: Tensor, keep_BT: Tensor | None) -> Tensor:
    """The last real token's vector."""
    if keep_BT is None:
        return x_BTD[:, -1]
    at_T = torch.arange(x_BTD.shape[1], device=x_BTD.device)
    last_B = (keep_BT * at_T).argmax(-1)
    return x_BTD[torch.arange(len(x_BTD), device=x_BTD.device), last_B]


def pool_mean(x_BTD: Tensor, keep_BT: Tensor | None) -> Tensor:
    """The mean over the real tokens; zeros where there is none."""
    if keep_BT is None:
        return x_BTD.mean(1)
    share_BT1 = keep_BT[..., None].to(x_BTD.dtype)
    return (x_BTD * share_BT1).sum(1) / share_BT1.sum(1).clamp(min=1)


def pool_max(x_BTD: Tensor, keep_BT: Tensor | None) -> Tensor:
    """The largest value of each channel over the real tokens."""
    if keep_BT is not None:
        x_BTD = x_BTD.masked_fill(~keep_BT[..., None], torch.finfo(x_BTD.dtype).min)
    return x_BTD.amax(1)


POOLS = {"first": pool_first, "last": pool_last, "mean": pool_mean, "max": pool_max}


class Hidden(nn.Module):
    """activation(project x): the layer that some heads put before their output."""

    def __init__(self, activation: spec.Activation, width: int):
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.project(x))


def build_hidden(activation: spec.Activation | None, width: int) -> nn.Module:
    return nn.Identity() if activation is None else Hidden(activation, width)


class VocabularyHead(nn.Module):
    """Logits BTV. When tied it borrows the token table at call time and owns no matrix.

    `nats` is a seam: a way to the cross-entropy of labels that training takes where it is set, in
    the place of `formulations.token_loss.token_nats`, and that is called alike.
    """

    def __init__(self, head: spec.VocabularyHead, width: int):
        super().__init__()
        self.scale, self.soft_cap = head.scale, head.soft_cap
        self.nats: Callable[..., Tensor] | None = None
        self.has_layers = head.hidden is not None or head.hidden_norm is not None
        self.hidden = build_hidden(head.hidden, width)
        self.norm = build_optional_norm(head.hidden_norm, width)
        self.out = None if head.tied else nn.Linear(width, head.vocabulary, bias=False)
        self.bias = nn.Parameter(torch.zeros(head.vocabulary)) if head.bias else None

    def forward(
        self, x_BTD: Tensor, table: nn.Embedding | None, keep_BT: Tensor | None = None
    ) -> Tensor:
        x_BTD = self.norm(self.hidden(x_BTD))
        if self.scale != 1.0:
            x_BTD = x_BTD * self.scale
        if self.out is not None:
            logits_BTV = self.out(x_BTD)
        else:
            assert table is not None
            logits_BTV = F.linear(x_BTD, table.weight)
        if self.bias is not None:
            logits_BTV = logits_BTV + self.bias
        if self.soft_cap is not None:
            logits_BTV = self.soft_cap * torch.tanh(logits_BTV / self.soft_cap)
        return logits_BTV


class ClassHead(nn.Module):
    """Logits (batch, classes)."""

    def __init__(self, head: spec.ClassHead, width: int):
        super().__init__()
        self.pool = POOLS[head.pool]
        self.hidden = build_hidden(head.hidden, width)
        self.dropout = nn.Dropout(head.dropout)
        self.out = nn.Linear(width, head.classes, bias=head.bias)

    def forward(
        self, x_BTD: Tensor, table: nn.Embedding | None = None, keep_BT: Tensor | None = None
    ) -> Tensor:
        return self.out(self.dropout(self.hidden(self.pool(x_BTD, keep_BT))))


class AveragedClassHead(nn.Module):
    """Logits (batch, classes): the mean of one projection per leading token."""

    def __init__(self, head: spec.AveragedClassHead, width: int):
        super().__init__()
        self.out = nn.ModuleList(nn.Linear(width, head.classes) for _ in range(head.tokens))

    def forward(
        self, x_BTD: Tensor, table: nn.Embedding | None = None, keep_BT: Tensor | None = None
    ) -> Tensor:
        logits = [out(x_BTD[:, i]) for i, out in enumerate(self.out)]
        return torch.stack(logits).mean(0)


class TokenClassHead(nn.Module):
    """Logits (batch, positions, classes)."""

    def __init__(self, head: spec.TokenClassHead, width: int):
        super().__init__()
        self.dropout = nn.Dropout(head.dropout)
        self.out = nn.Linear(width, head.classes)

    def forward(
        self, x_BTD: Tensor, table: nn.Embedding | None = None, keep_BT: Tensor | None = None
    ) -> Tensor:
        return self.out(self.dropout(x_BTD))


class SlotHead(nn.Module):
    """Numbers (batch, slots, outputs), read from the last positions."""

    def __init__(self, head: spec.SlotHead, width: int):
        super().__init__()
        self.slots = head.slots
        self.hidden = nn.ModuleList(Hidden("relu", width) for _ in range(head.depth - 1))
        self.out = nn.Linear(width, head.outputs)
        self.range = nn.Sigmoid() if head.sigmoid else nn.Identity()

    def forward(
        self, x_BTD: Tensor, table: nn.Embedding | None = None, keep_BT: Tensor | None = None
    ) -> Tensor:
        x_BTD = x_BTD[:, -self.slots :]
        for hidden in self.hidden:
            x_BTD = hidden(x_BTD)
        return self.range(self.out(x_BTD))


class EmbeddingHead(nn.Module):
    """One vector BD for the whole sequence."""

    def __init__(self, head: spec.EmbeddingHead, width: int):
        super().__init__()
        self.pool, self.normalised = POOLS[head.pool], head.normalised
        self.hidden = build_hidden(head.hidden, width)

    def forward(
        self, x_BTD: Tensor, table: nn.Embedding | None = None, keep_BT: Tensor | None = None
    ) -> Tensor:
        x_BD = self.hidden(self.pool(x_BTD, keep_BT))
        return F.normalize(x_BD, dim=-1) if self.normalised else x_BD


def build_head(head: spec.Head, width: int) -> nn.Module:
    match head:
        case spec.VocabularyHead():
            return VocabularyHead(head, width)
        case spec.ClassHead():
            return ClassHead(head, width)
        case spec.AveragedClassHead():
            return AveragedClassHead(head, width)
        case spec.TokenClassHead():
            return TokenClassHead(head, width)
        case spec.SlotHead():
            return SlotHead(head, width)
        case spec.EmbeddingHead():
            return EmbeddingHead(head, width)
