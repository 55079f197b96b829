"""How likely a decoder-only model finds texts, token by token: what perplexity is made of.

    text      a b c d e         windows of 3      <start> a b c | b c d e
    loss on   a b c d e                                   a b c |     d e

Each token is predicted once. A window begins with the last token of the one before (the last window
reaches back further, to its full size), the first with the token that begins texts, or the one that
ends them where there is none: the rolling windows of the lm-eval harness, so that both give the
same numbers.
"""

from collections.abc import Iterable, Iterator, Sequence

import torch

from mainspring.checkpoints.bundle import Bundle
from mainspring.checkpoints.tokenizer import Tokenizer
from mainspring.formulations import IGNORED, EncodedRow, Formulation, special_ids
from mainspring.formulations.inputs import in_batches, in_chunks
from mainspring.formulations.prediction import tokenizer_of
from mainspring.formulations.sequence_to_sequence import end_id

AT_ONCE = 256  # examples


def start_id(tokenizer: Tokenizer) -> int:
    """The token that stands before a text of its own."""
    return end_id(tokenizer) if tokenizer.bos_id is None else tokenizer.bos_id


def rolling(ids: Sequence[int], start: int, size: int) -> list[EncodedRow]:
    """The tokens of a text in windows of at most `size`, each predicted once."""
    before = [start, *ids]
    return [
        continued(before[: at + 1], ids[at : at + size], size) for at in range(0, len(ids), size)
    ]


def continued(context: Sequence[int], ids: Sequence[int], size: int) -> EncodedRow:
    """`ids` predicted after a `context` that is not; its beginning is left out where both together
    have more than `size` tokens."""
    kept = [*context[-size:], *ids][-size - 1 :]
    learnt = min(len(ids), len(kept) - 1)
    return EncodedRow(kept, [IGNORED] * (len(kept) - learnt) + kept[len(kept) - learnt :])


def nats(
    bundle: Bundle, formulation: Formulation, examples: Iterable[EncodedRow], tokens: int = 8192
) -> Iterator[float]:
    """The summed cross-entropy of each example's labels, in order; `tokens` bounds a batch."""
    ids = special_ids(tokenizer_of(bundle), bundle.config, bundle.spec)
    device = next(bundle.model.parameters()).device
    for chunk in in_chunks(examples, AT_ONCE):
        found = [0.0] * len(chunk)
        numbered = list(enumerate(chunk))
        for batch in in_batches(numbered, lambda item: len(item[1].source), tokens):
            collated = formulation.collate([example for _, example in batch], ids, 0, 1)
            with torch.inference_mode():
                losses = formulation.losses(bundle.model, collated.to(device)).tolist()
            for (number, _), loss in zip(batch, losses, strict=True):
                found[number] = loss
        yield from found
