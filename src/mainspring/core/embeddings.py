"""Embeddings: what turns token ids, pixels or sound into a sequence of vectors."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mainspring import spec
from mainspring.core.positions import GridPositions


class TokenEmbedding(nn.Module):
    """Looks ids up in a table it borrows (the model owns each table once), and adds token types."""

    def __init__(self, embedding: spec.TokenEmbedding, width: int):
        super().__init__()
        self.scale = embedding.scale
        self.types = nn.Embedding(embedding.types, width) if embedding.types else None

    def forward(
        self, ids_BT: Tensor, table: nn.Embedding, types_BT: Tensor | None = None
    ) -> Tensor:
        """Vectors BTD. Tokens are of type 0 where no types are given."""
        x_BTD = table(ids_BT)
        if self.scale != 1.0:
            x_BTD = x_BTD * self.scale
        if self.types is not None:
            return x_BTD + self.types(torch.zeros_like(ids_BT) if types_BT is None else types_BT)
        if types_BT is not None:
            raise TypeError("this model has no token types: leave `token_type_ids` out")
        return x_BTD


class PatchEmbedding(nn.Module):
    """Cuts images into patches, projects each, and sets learned tokens around them."""

    def __init__(self, embedding: spec.PatchEmbedding, width: int):
        super().__init__()
        size = embedding.patch
        self.project = nn.Conv2d(embedding.channels, width, size, size)
        self.before, self.after = (
            nn.Parameter(torch.zeros(tokens, width)) if tokens else None
            for tokens in (embedding.before, embedding.after)
        )
        self.positions = GridPositions(embedding, width)

    def forward(
        self, pixels: Tensor, table: nn.Embedding | None = None, types_BT: Tensor | None = None
    ) -> Tensor:
        """Vectors BTD from pixels of shape (batch, channels, height, width).

        What is left of a patch at the right and bottom edge is not seen.
        """
        patches_BTD = self.project(pixels).flatten(2).transpose(1, 2)
        before, after = (
            [] if tokens is None else [tokens.expand(len(pixels), -1, -1)]
            for tokens in (self.before, self.after)
        )
        x_BTD = torch.cat([*before, patches_BTD, *after], 1)
        return self.positions(x_BTD, pixels)


class AudioEmbedding(nn.Module):
    """Two convolutions over log-mel frames; two frames become one vector."""

    def __init__(self, embedding: spec.AudioEmbedding, width: int):
        super().__init__()
        self.first = nn.Conv1d(embedding.bins, width, 3, padding=1)
        self.second = nn.Conv1d(width, width, 3, stride=2, padding=1)

    def forward(
        self, frames: Tensor, table: nn.Embedding | None = None, types_BT: Tensor | None = None
    ) -> Tensor:
        """Vectors BTD from frames of shape (batch, bins, 2 T), of any type of numbers."""
        frames = frames.to(self.first.weight.dtype)
        return F.gelu(self.second(F.gelu(self.first(frames)))).transpose(1, 2)


def build_embedding(embedding: spec.Embedding, width: int) -> nn.Module:
    match embedding:
        case spec.TokenEmbedding():
            return TokenEmbedding(embedding, width)
        case spec.PatchEmbedding():
            return PatchEmbedding(embedding, width)
        case spec.AudioEmbedding():
            return AudioEmbedding(embedding, width)
