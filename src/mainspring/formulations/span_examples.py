"""Questions and contexts as examples of spans: what an encoder reads, and where it is to point.

Every window of a context is an example; its labels are the positions of the answer's first and last
token, or twice the first position where the window does not hold the answer.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mainspring.checkpoints.tokenizer import Tokenizer
from mainspring.core.model import Transformer
from mainspring.formulations import (
    Batch,
    EncodedRow,
    Setup,
    SpecialIds,
    Values,
    shown_tokens,
)
from mainspring.formulations.inputs import kept, padded
from mainspring.formulations.pairs import Pair, Window, has_types, pair_up, stride

HEAD = "span"


def encode(rows: Sequence[Values], tokenizer: Tokenizer, setup: Setup) -> list[EncodedRow]:
    """Examples of rows with a `question`, a `context` and `answers`; the first answer is learnt.

    Every window is one. An answer that lies across the windows gets one of its own; one that is
    longer than a window, or begins or ends within a token, is counted. A row whose answers stand at
    no known place gives none.
    """
    usable = [row for row in rows if not row["answers"] or _span(row) is not None]
    examples = []
    for row, pair in zip(usable, pair_up(usable, tokenizer, setup), strict=True):
        span = _span(row)
        tokens = None if span is None else token_span(pair.places, *span)
        windows = pair.windows(stride(setup))
        if tokens is not None and not any(_target(window, tokens)[0] for window in windows):
            windows.append(pair.window(max(0, (sum(tokens) - pair.room) // 2)))
        inexact = tokens is not None and not _exact(tokens, span, pair, row["context"])
        for number, window in enumerate(windows):
            lost = (pair.question_lost, int(inexact)) if number == 0 else (0, 0)
            target = _target(window, tokens)
            examples.append(EncodedRow(window.ids, target, *lost, second=window.second))
    return examples


def _exact(tokens: tuple[int, int], span: tuple[int, int] | None, pair: Pair, context: str) -> bool:
    """Whether these tokens are the characters of the span, blanks apart, and fit into a window."""
    first, last = tokens
    learnt = context[pair.places[first, 0] : pair.places[last, 1]].strip()
    assert span is not None
    return last - first < pair.room and learnt == context[slice(*span)].strip()


def _span(row: Values) -> tuple[int, int] | None:
    """The characters of the first answer whose place is known."""
    for answer in row["answers"]:
        if answer["start"] is not None:
            return answer["start"], answer["start"] + len(answer["text"])
    return None


def token_span(places: np.ndarray, start: int, end: int) -> tuple[int, int] | None:
    """The first and last token of the shortest run of tokens that holds these characters; None
    where no token does."""
    starts, ends = places[:, 0], places[:, 1]
    first = int(np.searchsorted(starts, start, side="right")) - 1
    last = int(np.searchsorted(ends, end, side="left"))
    if first < 0 or last >= len(places):
        return None
    # Tokens may be parts of one character: they stand at one place, and all of them are meant.
    first = int(np.searchsorted(starts, starts[first]))
    last = int(np.searchsorted(ends, ends[last], side="right")) - 1
    return (first, last) if first <= last else None


def _target(window: Window, tokens: tuple[int, int] | None) -> list[int]:
    if tokens is None or tokens[0] < window.first or tokens[1] >= window.first + window.tokens:
        return [0, 0]
    at = window.second - window.first
    return [tokens[0] + at, tokens[1] + at]


def collate(examples: Sequence[EncodedRow], ids: SpecialIds, seed: int, multiple: int) -> Batch:
    """Pads on the right. `labels_BT` are two: the positions of start and end."""
    del seed
    sources = [example.source for example in examples]
    source_BS = padded(sources, ids.pad, multiple)
    labels_B2 = torch.tensor([list(example.target) for example in examples], dtype=torch.int64)
    return Batch(
        source_BS,
        kept(sources, source_BS.shape[1]),
        labels_B2,
        sum(map(len, sources)),
        2 * len(examples),
        types_BS=_types([(example.second, len(example.source)) for example in examples], source_BS),
    )


def _types(pairs: Sequence[tuple[int, int]], source_BS: Tensor) -> Tensor:
    """1 from where the second text begins to where the row ends."""
    begin_B1, end_B1 = torch.tensor(pairs).T[:, :, None]
    at_S = torch.arange(source_BS.shape[1])
    return ((at_S >= begin_B1) & (at_S < end_B1)).long()


def logits(model: Transformer, batch: Batch) -> Tensor:
    """Start and end logits (B, S, 2), float32; minus infinity at padding, so that a row's loss does
    not depend on those beside it."""
    types_BS = batch.types_BS if has_types(model.spec) else None
    hidden_BSD = model.encode(batch.source_BS, batch.keep_BS, types_BT=types_BS)
    logits_BS2 = model.read(HEAD, hidden_BSD).float()
    if batch.keep_BS is not None:
        logits_BS2 = logits_BS2.masked_fill(~batch.keep_BS[..., None], float("-inf"))
    return logits_BS2


def losses(model: Transformer, batch: Batch) -> Tensor:
    """The cross-entropy of each example's start plus that of its end, in nats (B)."""
    return F.cross_entropy(logits(model, batch), batch.labels_BT, reduction="none").sum(1)


def lengths(example: EncodedRow) -> tuple[int, int]:
    return len(example.source), 0


def picture(row: EncodedRow, tokenizer: Tokenizer, setup: Setup) -> str:
    """The question, the context and the span that is learnt."""
    del setup
    start, end = row.target
    read = shown_tokens(tokenizer, row.source)
    span = shown_tokens(tokenizer, row.source[start : end + 1])
    return f"░ {read} ░ → ■ {span if start else 'no answer in this window'} ■"
