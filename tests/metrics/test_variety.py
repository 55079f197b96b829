import math

import pytest

from mainspring.metrics.likelihood import (
    combine,
    distinct,
    ngrams,
    repetition,
    uniform,
    unigram,
    variety,
)

ROWS = [
    {"nats": 6.0, "tokens": 3.0, "bytes": 12.0, "unspelt": 0.0},
    {"nats": 2.0, "tokens": 1.0, "bytes": 4.0, "unspelt": 0.0},
]


def mean(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}


def test_losses_are_told_by_token_and_by_byte() -> None:
    found = combine(mean(ROWS))
    assert found == pytest.approx(
        {
            "loss": 2.0,
            "nats_per_byte": 0.5,
            "bits_per_byte": 0.5 / math.log(2),
            "perplexity": math.exp(2.0),
        }
    )
    assert (
        combine({"nats": 1e9, "tokens": 1.0, "bytes": 1.0, "unspelt": 0.0})["perplexity"] < math.inf
    )


def test_baselines_know_nothing_or_the_frequencies() -> None:
    assert combine(mean(uniform(ROWS, 8)))["loss"] == pytest.approx(math.log(8))
    labels = [[1, 1, 2], [1]]
    rows = unigram(ROWS, labels)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert combine(mean(rows))["loss"] == pytest.approx(entropy)
    assert combine(mean(unigram(ROWS, [[5, 5, 5], [5]])))["loss"] == 0


def test_distinct_is_the_share_of_different_ngrams() -> None:
    # Worked by hand: the words a b a b, then a c.
    texts = ["a b a b", "A c"]
    assert distinct(texts, 1) == pytest.approx(100 * 3 / 6)
    assert distinct(texts, 2) == pytest.approx(100 * 3 / 4)
    assert distinct(texts, 3) == 100
    assert distinct([], 1) == distinct(["a"], 2) == 0
    assert ngrams("abc", 2) == [("a", "b"), ("b", "c")]  # type: ignore[arg-type]
    # Scripts without spaces are counted by characters.
    assert distinct(["猫猫狗"], 1) == pytest.approx(100 * 2 / 3)


def test_repetition_is_what_came_before_in_the_same_text() -> None:
    assert repetition(["a b c d e f"]) == 0
    assert repetition(["a a a a a a a"]) == pytest.approx(100 * 3 / 4)
    assert repetition(["a a a a a a a", "a b c d e f", "short"]) == pytest.approx(100 * 3 / 8)
    assert repetition(["short"]) == 0
    assert list(variety(["a b"])) == ["distinct_1", "distinct_2", "distinct_3", "repetition"]
