"""Heads: what is read out of a model's last hidden states."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mainspring import spec


class VocabularyHead(nn.Module):
    """Logits BTV. When tied it borrows the token table at call time and owns no matrix."""

    def __init__(self, head: spec.VocabularyHead, width: int):
        super().__init__()
        self.scale = head.scale
        self.out = None if head.tied else nn.Linear(width, head.vocabulary, bias=False)
        self.bias = nn.Parameter(torch.zeros(head.vocabulary)) if head.bias else None

    def forward(self, x_BTD: Tensor, table: nn.Embedding | None) -> Tensor:
        if self.scale != 1.0:
            x_BTD = x_BTD * self.scale
        if self.out is not None:
            logits_BTV = self.out(x_BTD)
        else:
            assert table is not None
            logits_BTV = F.linear(x_BTD, table.weight)
        return logits_BTV if self.bias is None else logits_BTV + self.bias


def build_head(head: spec.Head, width: int) -> nn.Module:
    match head:
        case spec.VocabularyHead():
            return VocabularyHead(head, width)
