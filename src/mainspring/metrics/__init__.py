"""Thin adapters over the field's standard metric libraries, and the statistics around them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """How predictions are scored.

    `score_rows(predictions, references, tokens)` gives for each row its scores by name, 0..100
    (they average to the score of the set). `tokens` names the way words are told apart, which
    `choose_tokens(texts)` picks for a data set. `signature(tokens)` says exactly what was computed.
    `baselines` are predictions that need no model, by name.
    """

    score_rows: Callable[[Sequence[str], Sequence[str], str], list[dict[str, float]]]
    choose_tokens: Callable[[Sequence[str]], str]
    signature: Callable[[str], str]
    baselines: Mapping[str, Callable[[str], str]]
