"""T5's pre-training objective: spans of a text are hidden, the decoder writes them back.

    text     Thank you for inviting me to your party last week </s>
    source   Thank you <extra_id_0> me to your party <extra_id_1> week </s>
    labels   <extra_id_0> for inviting <extra_id_1> last </s>

Raffel et al., 2020, section 3.1.4: 15 % of the tokens are hidden, in spans of 3 on average. Texts
are cut into pieces such that a corrupted piece just fits the source limit, so that nothing of a
text is lost. Which spans are hidden is drawn anew for every micro-batch, from its seed alone.
"""

from collections.abc import Sequence
from itertools import count, pairwise

import numpy as np

from mainspring.checkpoints.tokenizer import Tokenizer
from mainspring.errors import BadOption, Mismatch
from mainspring.formulations import (
    Batch,
    EncodedRow,
    Formulation,
    Limits,
    Setup,
    SpecialIds,
    Values,
    source_and_target,
)
from mainspring.formulations import sequence_to_sequence as pairs

DENSITY, MEAN_SPAN = 0.15, 3.0
SENTINELS = 100


def corrupted_lengths(tokens: int) -> tuple[int, int]:
    """(source, target) lengths, `</s>` included, of a piece of `tokens` tokens once corrupted."""
    noise, spans = noise_counts(tokens)
    return tokens - noise + spans + 1, noise + spans + 1


def noise_counts(tokens: int) -> tuple[int, int]:
    """How many tokens are hidden and in how many spans."""
    noise = min(max(round(tokens * DENSITY), 1), tokens - 1)
    spans = min(max(round(noise / MEAN_SPAN), 1), tokens - noise, SENTINELS)
    return noise, spans


def noise_mask(tokens: int, random: np.random.Generator) -> np.ndarray:
    """True at hidden tokens. Kept and hidden spans alternate, a kept one first."""
    noise, spans = noise_counts(tokens)

    def partition(total: int) -> np.ndarray:
        """`total` cut at random into `spans` parts of at least 1."""
        cuts = np.sort(random.choice(total - 1, spans - 1, replace=False)) + 1
        return np.diff(np.concatenate([[0], cuts, [total]]))

    runs = np.stack([partition(tokens - noise), partition(noise)], 1).ravel()
    return np.repeat(np.tile([False, True], spans), runs)


def corrupt(ids: Sequence[int], eos: int, sentinel: int, random: np.random.Generator) -> EncodedRow:
    """Source and labels of one piece. The sentinels are `sentinel` and the ids below it."""
    hidden = noise_mask(len(ids), random)
    source: list[int] = []
    target: list[int] = []
    mark = sentinel + 1
    for i, (token, hide) in enumerate(zip(ids, hidden, strict=True)):
        if hide:
            if not hidden[i - 1]:
                mark -= 1
                source.append(mark)
                target.append(mark)
            target.append(token)
        else:
            source.append(token)
    return EncodedRow([*source, eos], [*target, eos])


def piece_length(limits: Limits) -> int:
    """The most tokens whose corrupted source and target both fit the limits: at least 3, so that
    a piece can spare one."""

    def fits(tokens: int) -> bool:
        source, target = corrupted_lengths(tokens)
        return source <= limits.source and target <= limits.target

    if not fits(3):
        raise BadOption("span corruption needs at least 4 source tokens and 3 target tokens")
    return next(tokens for tokens in count(3) if not fits(tokens + 1))


def encode(rows: Sequence[Values], tokenizer: Tokenizer, setup: Setup) -> list[EncodedRow]:
    """The rows' `text`s joined by `</s>` and cut into pieces. The sentinel rides along as the one
    target id."""
    eos, sentinel = tokenizer.eos_id, tokenizer.id_of("<extra_id_0>")
    if eos is None or sentinel is None:
        raise Mismatch(
            "span corruption needs the end token and the sentinels <extra_id_0>, <extra_id_1>, …, "
            "and this tokenizer lacks them; pre-train a T5 checkpoint, or one --from-scratch"
        )
    joined: list[int] = []
    for ids in tokenizer.encode_many([row["text"] for row in rows]):
        joined += ids if ids and ids[-1] == eos else [*ids, eos]
    size = piece_length(setup.limits)
    cuts = [*range(0, len(joined), size), len(joined)]
    if len(cuts) > 2 and cuts[-1] - cuts[-2] == 1:
        cuts[-2] -= 1  # one token alone cannot be corrupted: it gets company from its neighbour
    pieces = [joined[start:end] for start, end in pairwise(cuts)]
    return [EncodedRow(piece, [sentinel]) for piece in pieces if len(piece) > 1]


def collate(examples: Sequence[EncodedRow], ids: SpecialIds, seed: int, multiple: int) -> Batch:
    assert ids.eos is not None
    random = np.random.default_rng(seed)
    corrupted = [corrupt(e.source, ids.eos, e.target[0], random) for e in examples]
    return pairs.collate(corrupted, ids, seed, multiple)


def lengths(example: EncodedRow) -> tuple[int, int]:
    return corrupted_lengths(len(example.source))


def picture(row: EncodedRow, tokenizer: Tokenizer, setup: Setup) -> str:
    """A piece, corrupted as it might be."""
    assert tokenizer.eos_id is not None
    random = np.random.default_rng(0)
    shown = corrupt(row.source, tokenizer.eos_id, row.target[0], random)
    return source_and_target(shown, tokenizer, setup)


FORMULATION = Formulation(
    "span corruption", pairs.lacks, encode, collate, pairs.losses, lengths, picture=picture
)
