"""Scores of language models: how well they predict text, and how varied what they write is."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from mainspring.metrics import Statistics
from mainspring.text import words

# What is told of how surprising texts are; `bits_per_byte` compares models of any vocabulary.
SCORES = ("loss", "nats_per_byte", "bits_per_byte", "perplexity")
SIGNATURE = "cross-entropy in nats a token; disjoint windows, the last of full size"


def combine(means: Mapping[str, float]) -> Statistics:
    """The scores of mean `nats`, `tokens`, `bytes` and `unspelt` bytes of rows.

    Unspelt is what the unknown token stands for. It tells nothing of them, so each counts the 8
    bits it takes to write it: else a vocabulary that knows fewer characters would look better.
    """
    loss = means["nats"] / means["tokens"]
    per_byte = (means["nats"] + means["unspelt"] * math.log(256)) / means["bytes"]
    values = (loss, per_byte, per_byte / math.log(2), math.exp(min(loss, 700.0)))
    return dict(zip(SCORES, values, strict=True))


def uniform(rows: Sequence[Statistics], vocabulary: int) -> list[Statistics]:
    """The rows as a model sees them that finds all of `vocabulary` tokens alike."""
    each = math.log(vocabulary)
    return [{**row, "nats": row["tokens"] * each} for row in rows]


def unigram(rows: Sequence[Statistics], labels: Sequence[Sequence[int]]) -> list[Statistics]:
    """The rows as the best model sees them that knows how often each token comes in these very
    rows, and nothing of their order."""
    counts = Counter(label for row in labels for label in row)
    total = sum(counts.values())
    cost = {label: math.log(total / count) for label, count in counts.items()}
    return [
        {**row, "nats": sum(cost[label] for label in its)}
        for row, its in zip(rows, labels, strict=True)
    ]


def distinct(texts: Iterable[str], n: int) -> float:
    """The share (0..100) of different n-grams among all n-grams of words (Li et al., 2016)."""
    found: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        found.update(ngrams(words(text), n))
    return 100 * len(found) / found.total() if found else 0.0


def repetition(texts: Iterable[str], n: int = 4) -> float:
    """The mean share (0..100) of a text's n-grams that came before in it (Welleck et al., 2020:
    seq-rep-n); texts shorter than n words do not count."""
    shares = []
    for text in texts:
        found = Counter(ngrams(words(text), n))
        if found:
            shares.append(1 - len(found) / found.total())
    return 100 * sum(shares) / len(shares) if shares else 0.0


def ngrams(tokens: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(tokens[at : at + n]) for at in range(len(tokens) - n + 1)]


def variety(texts: Sequence[str]) -> Statistics:
    """Distinct-1 to -3 and repetition of some texts."""
    return {f"distinct_{n}": distinct(texts, n) for n in (1, 2, 3)} | {
        "repetition": repetition(texts)
    }
