"""One vector for a text: a sentence encoder with the pooling and normalisation its folder names.

Texts are taken a thousand at a time; within such a chunk those of like length go together, and the
vectors come back in the order of the texts. Nothing else is held.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from mainspring import spec
from mainspring.checkpoints.bundle import Bundle
from mainspring.checkpoints.sentence import SentenceSettings, sentence_settings
from mainspring.core.heads import EmbeddingHead
from mainspring.data.windows import token_windows
from mainspring.errors import BadOption, Mismatch
from mainspring.formulations import OnDone
from mainspring.formulations.inputs import in_batches, in_chunks, source_tensors
from mainspring.formulations.pairs import frame
from mainspring.formulations.prediction import tokenizer_of

Vector = NDArray[np.float32]
OnLongText = Literal["cut", "split"]

CHUNK, TOKENS = 1024, 16384  # texts held at a time, tokens of a batch with padding


@dataclass(frozen=True)
class Embedded:
    """A text's vector. `unread` counts its tokens that were cut off, `windows` its pieces."""

    vector: Vector
    tokens: int
    unread: int = 0
    windows: int = 1


@dataclass(frozen=True)
class Embedder:
    """A model and how it makes vectors: its head, the most tokens it reads, and what it is told of
    the texts beforehand."""

    bundle: Bundle
    head: EmbeddingHead
    limit: int
    settings: SentenceSettings

    @property
    def width(self) -> int:
        """Numbers of a vector."""
        stack = self.bundle.spec.decoder or self.bundle.spec.encoder
        assert stack is not None
        return stack.width


def embedder(
    bundle: Bundle, *, pool: spec.Pool | None = None, max_source: int | None = None
) -> Embedder:
    """How `bundle` makes vectors: as its folder says, or with `pool` by that alone, unnormalised.

    Mismatch where it is no sentence encoder and no `pool` is given, or not one stack of text;
    BadOption where `max_source` is out of its range.
    """
    described = bundle.spec
    stack = described.encoder or described.decoder
    two = described.encoder is not None and described.decoder is not None
    if stack is None or two or not isinstance(stack.embedding, spec.TokenEmbedding):
        raise Mismatch("sentence vectors are made by a model of one stack that reads text")
    head = dict(described.heads).get("embedding") if pool is None else spec.EmbeddingHead(pool)
    if not isinstance(head, spec.EmbeddingHead):
        raise Mismatch(
            "this model's folder says nothing of sentence vectors (no modules.json); take a "
            "sentence encoder (`mainspring get minilm`), or say how to pool: --pool mean"
        )
    settings = sentence_settings(bundle.extra_files)
    room = _positions(stack)
    limit = max_source or min(settings.limit or room, room)
    if not 4 <= limit <= room:
        raise BadOption(f"--max-source must lie between 4 and {room} for this model, not {limit}")
    return Embedder(bundle, EmbeddingHead(head, stack.width), limit, settings)


def _positions(stack: spec.Stack) -> int:
    match stack.positions:
        case spec.Learned(length=length) | spec.Sinusoidal(length=length):
            return length
    return 1 << 16


def embed(
    model: Embedder,
    texts: Iterable[str],
    *,
    prompt: str | None = None,
    on_long: OnLongText = "cut",
    on_done: OnDone = lambda done: None,
) -> Iterator[Embedded]:
    """The vector of each text, in order.

    `prompt` stands before each (None: what the model's settings say). A text longer than the model
    reads is cut, or read in windows whose vectors are averaged by their lengths (and brought to
    length 1 where the model's are).
    """
    tokenizer = tokenizer_of(model.bundle)
    prompt = model.settings.default if prompt is None else prompt
    around = frame(tokenizer)
    room = model.limit - around.tokens
    done = 0
    for chunk in in_chunks(texts, CHUNK):
        asked = [model.settings.read(prompt + text) for text in chunk]
        ids = tokenizer.encode_many(asked, special=False)
        spans = [_spans(len(row), room, on_long) for row in ids]
        pieces = [(n, start, end) for n, row in enumerate(spans) for start, end in row]
        found: dict[tuple[int, int], Vector] = {}
        for batch in in_batches(pieces, lambda piece: piece[2] - piece[1], TOKENS):
            rows = [around.framed(ids[n][start:end]) for n, start, end in batch]
            for (n, start, _), vector in zip(batch, _vectors(model, rows), strict=True):
                found[n, start] = vector
            on_done(done + len({n for n, _ in found}))
        done += len(chunk)
        for n, row in enumerate(spans):
            read = sum(end - start for start, end in row)
            vectors = [found[n, start] for start, _ in row]
            weights = [end - start for start, end in row]
            vector = vectors[0] if len(row) == 1 else _average(vectors, weights, model)
            yield Embedded(vector, len(ids[n]), len(ids[n]) - read, len(row))


def _spans(tokens: int, room: int, on_long: OnLongText) -> list[tuple[int, int]]:
    if tokens <= room or on_long == "cut":
        return [(0, min(tokens, room))]
    return token_windows(tokens, room)


@torch.inference_mode()
def _vectors(model: Embedder, rows: list[list[int]]) -> Vector:
    bundle = model.bundle
    device = next(bundle.model.parameters()).device
    ids_BS, keep_BS = source_tensors(rows, tokenizer_of(bundle).pad_id or 0, device)
    if bundle.spec.encoder is None:
        x_BTD = bundle.model.decode(ids_BS, keep_BS=keep_BS)
    else:
        x_BTD = bundle.model.encode(ids_BS, keep_BS)
    vectors_BD: Vector = model.head(x_BTD.float(), None, keep_BS).cpu().numpy()
    return vectors_BD


def _average(vectors: list[Vector], weights: list[int], model: Embedder) -> Vector:
    mean: Vector = np.average(np.stack(vectors), axis=0, weights=weights).astype(np.float32)
    return normalised(mean) if model.head.normalised else mean


def normalised(vectors: Vector) -> Vector:
    """Vectors of length 1; those of length 0 stay."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
