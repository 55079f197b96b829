"""The best sequence of tags under the rules of their scheme: Viterbi's algorithm.

Rules are read off the labels: an `I-X` follows a `B-X` or `I-X` only, and where there are `E-X` or
`L-X` an entity that was begun must be ended. A label set in which some type has no `B-X` (bare
types, or IOB1, where `I-X` may begin an entity) has no rules.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mainspring.data.entities import OPENING, parse_tag, scheme_of

INSIDE = ("I", "E", "L")  # prefixes that go on with an entity


@dataclass(frozen=True)
class Rules:
    """`follows` [a, b]: whether label b may follow label a; `first` and `last`: whether a label may
    begin and end a text."""

    follows: np.ndarray
    first: np.ndarray
    last: np.ndarray


def rules_of(labels: Sequence[str]) -> Rules:
    """What the label set allows."""
    scheme = scheme_of(labels)
    parsed = [parse_tag(label, scheme) for label in labels]
    begun = {label for prefix, label in parsed if prefix in OPENING}
    count = len(parsed)
    if any(label not in begun for prefix, label in parsed if prefix != "O"):
        return Rules(np.ones((count, count), bool), np.ones(count, bool), np.ones(count, bool))
    ends = {label for prefix, label in parsed if prefix in ("E", "L")}
    goes_on = np.array([prefix in INSIDE for prefix, _ in parsed])
    waits = np.array([prefix in ("B", "I") for prefix, _ in parsed])
    must_end = np.array([prefix in ("B", "I") and label in ends for prefix, label in parsed])
    same = np.array([[a == b for _, b in parsed] for _, a in parsed])
    joined = waits[:, None] & goes_on[None, :] & same
    follows = joined | (~goes_on[None, :] & ~must_end[:, None])
    return Rules(follows, ~goes_on, ~must_end)


def broken_rules(labels: np.ndarray, rules: Rules, before: int | None = None) -> int:
    """How many labels of a sequence may not stand where they stand. `before` is the label in front
    of the first; None at the beginning of a text."""
    if not len(labels):
        return 0
    start = rules.first[labels[0]] if before is None else rules.follows[before, labels[0]]
    return int(not start) + int((~rules.follows[labels[:-1], labels[1:]]).sum())


def best_labels(
    scores_UC: np.ndarray, rules: Rules, before: int | None = None, *, ends: bool = True
) -> np.ndarray:
    """The labels of U units with the largest sum of `scores_UC` (log-probabilities) that keep the
    rules. `ends` says that the text ends with them."""
    if not len(scores_UC):
        return np.zeros(0, np.int64)
    first = rules.first if before is None else rules.follows[before]
    free = scores_UC.argmax(1)
    if not broken_rules(free, rules, before) and (not ends or rules.last[free[-1]]):
        return free  # the best of all is allowed
    barred = np.where(rules.follows, 0.0, -np.inf)
    best_C = np.where(first, scores_UC[0], -np.inf)
    came_from = np.zeros(scores_UC.shape, np.int64)
    for unit in range(1, len(scores_UC)):
        ways_CC = best_C[:, None] + barred
        came_from[unit] = ways_CC.argmax(0)
        best_C = ways_CC.max(0) + scores_UC[unit]
    if ends and np.isfinite(best_C[rules.last]).any():
        best_C = np.where(rules.last, best_C, -np.inf)
    path = [int(best_C.argmax())]
    for unit in range(len(scores_UC) - 1, 0, -1):
        path.append(int(came_from[unit, path[-1]]))
    return np.array(path[::-1])
