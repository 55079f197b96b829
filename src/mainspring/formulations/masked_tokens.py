"""BERT's pre-training objective: tokens of a text are hidden, the encoder tells what they were.

    text     Thank you for inviting me to your party last week
    source   [CLS] Thank you [MASK] inviting me to apple party last week [SEP]
    labels     -     -    -   for      -     -  -  your    -    -    -     -

Devlin et al., 2019, section 3.1: 15 % of the tokens are asked for; of those 80 % are hidden, 10 %
replaced by a token drawn from the vocabulary, 10 % left as they are. As in RoBERTa (Liu et al.,
2019) there is no second task, texts stand one after the other in full pieces, and what is asked for
is drawn anew for every micro-batch, from its seed alone.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from torch import Tensor

from mainspring.checkpoints.tokenizer import Tokenizer
from mainspring.core.model import Transformer
from mainspring.errors import Mismatch
from mainspring.formulations import (
    IGNORED,
    Batch,
    EncodedRow,
    Formulation,
    Setup,
    SpecialIds,
    Values,
    shown_tokens,
)
from mainspring.formulations import token_classification as tagging
from mainspring.formulations.sequence_to_sequence import vocabulary_nats

ASKED, HIDDEN, REPLACED = 0.15, 0.8, 0.1


def encode(rows: Sequence[Values], tokenizer: Tokenizer, setup: Setup) -> list[EncodedRow]:
    """The rows' `text`s, joined by what ends a text, cut into pieces within the source limit, so
    that nothing of a text is lost. `target` is what may be asked for: all but special tokens."""
    if tokenizer.mask_id is None:
        raise Mismatch(
            "masked tokens need a mask token, and this tokenizer has none; pre-train a checkpoint "
            "that has one, or one --from-scratch"
        )
    before, after = tokenizer.frame
    joined: list[int] = []
    asked: list[int] = []
    for ids in tokenizer.encode_many([row["text"] for row in rows], special=False):
        joined += [*ids, *after]
        asked += [*ids, *[IGNORED] * len(after)]
    joined = joined[: len(joined) - len(after)]  # the frame of the last piece ends the last text
    size = tagging.window_size(setup, tokenizer)
    examples = []
    for start, end in pairwise([*range(0, len(joined), size), len(joined)]):
        source = [*before, *joined[start:end], *after]
        target = [*[IGNORED] * len(before), *asked[start:end], *[IGNORED] * len(after)]
        if any(label != IGNORED for label in target):
            examples.append(EncodedRow(source, target))
    return examples


def hide(row: EncodedRow, ids: SpecialIds, random: np.random.Generator) -> EncodedRow:
    """The row as it is read, and the labels of what is asked for."""
    assert ids.mask is not None
    source, target = np.array(row.source), np.array(row.target)
    may = np.flatnonzero(target != IGNORED)
    chosen = random.choice(may, max(1, round(ASKED * len(may))), replace=False)
    fate = random.random(len(chosen))
    hidden = chosen[fate < HIDDEN]
    replaced = chosen[(fate >= HIDDEN) & (fate < HIDDEN + REPLACED)]
    source[hidden] = ids.mask
    source[replaced] = random.integers(ids.vocabulary, size=len(replaced))
    labels = np.full_like(target, IGNORED)
    labels[chosen] = target[chosen]
    return EncodedRow(source.tolist(), labels.tolist())


def collate(examples: Sequence[EncodedRow], ids: SpecialIds, seed: int, multiple: int) -> Batch:
    random = np.random.default_rng(seed)
    rows = [hide(example, ids, random) for example in examples]
    return tagging.collate(rows, ids, seed, multiple)


def losses(model: Transformer, batch: Batch) -> Tensor:
    """The summed cross-entropy of what is asked for in each row, in nats, float32 (B)."""
    hidden_BSD = model.encode(batch.source_BS, batch.keep_BS)
    return vocabulary_nats(model, hidden_BSD, batch.labels_BT).sum(1)


def picture(row: EncodedRow, tokenizer: Tokenizer, setup: Setup) -> str:
    """A piece as it might be read, and what is asked for."""
    del setup
    ids = SpecialIds(0, mask=tokenizer.mask_id, vocabulary=tokenizer.vocabulary)
    shown = hide(row, ids, np.random.default_rng(0))
    asked = [label for label in shown.target if label != IGNORED]
    return f"░ {shown_tokens(tokenizer, shown.source)} ░ → ■ {shown_tokens(tokenizer, asked)} ■"


FORMULATION = Formulation(
    "masked tokens",
    tagging.lacks,
    encode,
    collate,
    losses,
    tagging.lengths,
    head="vocabulary",
    picture=picture,
)
