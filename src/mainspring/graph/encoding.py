"""A sentence encoder as a function: texts to vectors of length 1."""

from collections.abc import Sequence

import numpy as np

from mainspring.checkpoints.bundle import load
from mainspring.formulations.embedding import embed, embedder, normalised
from mainspring.graph.linking import Encode, Vectors


def encoder(model: str) -> Encode:
    """The encoder `model` (a folder, hub name or "minilm") as a function. Mismatch where it is no
    sentence encoder."""
    made = embedder(load(model))

    def encode(texts: Sequence[str]) -> Vectors:
        return normalised(np.stack([found.vector for found in embed(made, texts)]))

    return encode
