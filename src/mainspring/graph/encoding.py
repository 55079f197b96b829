"""A sentence encoder as a function: texts to vectors of length 1."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mainspring.checkpoints.bundle import load
from mainspring.errors import Mismatch
from mainspring.formulations.inputs import in_batches, kept, padded
from mainspring.formulations.prediction import tokenizer_of
from mainspring.graph.linking import Encode

HEAD = "embedding"
LONGEST = 256  # tokens of a text that are read
TOKENS = 4096  # tokens a batch


def encoder(model: str) -> Encode:
    """The encoder `model` (a folder, hub name or "minilm") as a function. Mismatch where it is no
    sentence encoder."""
    bundle = load(model)
    tokenizer = tokenizer_of(bundle)
    if bundle.spec.encoder is None or HEAD not in dict(bundle.spec.heads):
        raise Mismatch(f"{model}: not a sentence encoder; `mainspring get minilm` fetches one")

    def encode(texts: Sequence[str]) -> Tensor:
        """Vectors (texts, width), float32."""
        ids = [
            row[: LONGEST - 1] + row[-1:] if len(row) > LONGEST else row
            for row in tokenizer.encode_many(texts)
        ]
        vectors: dict[int, Tensor] = {}
        for batch in in_batches(range(len(ids)), lambda number: len(ids[number]), TOKENS):
            rows = [ids[number] for number in batch]
            ids_BS = padded(rows, tokenizer.pad_id or 0, 1)
            keep_BS = kept(rows, ids_BS.shape[1])
            with torch.inference_mode():
                hidden_BSD = bundle.model.encode(ids_BS, keep_BS)
                vectors_BD = bundle.model.read(HEAD, hidden_BSD, keep_BS)
            vectors |= dict(zip(batch, F.normalize(vectors_BD, dim=-1), strict=True))
        return torch.stack([vectors[number] for number in range(len(ids))])

    return encode
