"""Which span of a window answers best: start and end logits decoded as Devlin et al. (2019) do.

Their code and the question answering examples of transformers try the 20 best starts and ends; here
no span is missed.

Numbers only: where tokens stand in texts is the business of `span_extraction`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LARGEST = 20  # candidates that are kept

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Candidate:
    """A span of tokens within the second text, both ends included, and its logit: start + end."""

    first: int
    last: int
    logit: float


@dataclass(frozen=True)
class Found:
    """What was found in all windows of one text: candidates, best first, and the logit of there
    being no answer (the smallest of the windows', for all must agree)."""

    candidates: tuple[Candidate, ...]
    no_answer: float

    @property
    def margin(self) -> float:
        """How much likelier no answer is than the best one, in logits; infinite without any."""
        return self.no_answer - self.candidates[0].logit if self.candidates else float("inf")

    def shares(self, with_no_answer: bool) -> tuple[list[float], float]:
        """The probability of each candidate among them, and that of no answer where it counts."""
        logits = [candidate.logit for candidate in self.candidates]
        logits += [self.no_answer] if with_no_answer else []
        if not logits:
            return [], 0.0
        powers = np.exp(np.array(logits) - max(logits))
        shares = (powers / powers.sum()).tolist()
        return (shares[:-1], shares[-1]) if with_no_answer else (shares, 0.0)


def window_candidates(
    start: Floats, end: Floats, second: int, tokens: int, first: int, longest: int, keep: int
) -> list[Candidate]:
    """The best spans of one window, in order: all of them are tried.

    `start` and `end` are the logits of its positions; its `tokens` of the second text begin at
    position `second`, and the first of them is token `first` of that text. A span ends where it
    begins or later and has at most `longest` tokens.
    """
    start_T, end_T = start[second : second + tokens], end[second : second + tokens]
    reach = min(longest, len(end_T))
    if not reach:
        return []
    behind = np.full(reach - 1, -np.inf, dtype=end.dtype)
    ends_TL = np.lib.stride_tricks.sliding_window_view(np.concatenate([end_T, behind]), reach)
    logits_N = (start_T[:, None] + ends_TL).ravel()
    best = np.argsort(-logits_N, kind="stable")[:keep]
    return [
        Candidate(first + at // reach, first + at // reach + at % reach, float(logits_N[at]))
        for at in best[np.isfinite(logits_N[best])].tolist()
    ]


def merged(windows: Sequence[tuple[Sequence[Candidate], float]], keep: int) -> Found:
    """The best of all windows, each as (its candidates, its logit of no answer)."""
    candidates = [candidate for found, _ in windows for candidate in found]
    candidates.sort(key=lambda candidate: candidate.logit, reverse=True)
    return Found(tuple(candidates[:keep]), min(no_answer for _, no_answer in windows))


def best_threshold(margins: Sequence[float], gains: Sequence[float]) -> float:
    """The threshold on `margins` above which "no answer" is said, for the highest total score.

    `gains` is for each row what its answer scores more than no answer would. Of equally good
    thresholds the one in the middle of its gap, nearest to 0, is taken.
    """
    order = np.argsort(margins, kind="stable")
    ordered = np.asarray(margins, dtype=np.float64)[order]
    totals = np.concatenate([[0.0], np.cumsum(np.asarray(gains, dtype=np.float64)[order])])
    edges = np.concatenate([[-np.inf], ordered, [np.inf]])
    found = []
    for answered, total in enumerate(totals):  # the `answered` rows with the smallest margins
        low, high = edges[answered], edges[answered + 1]
        if low == high and answered not in (0, len(ordered)):
            continue  # rows of one margin stay together
        found.append((total, _between(low, high)))
    top = max(total for total, _ in found)
    return min((at for total, at in found if total >= top - 1e-9), key=abs)


def _between(low: float, high: float) -> float:
    if np.isinf(low) and np.isinf(high):
        return 0.0
    if np.isinf(low):
        return float(high) - 1
    if np.isinf(high):
        return float(low) + 1
    return float(low + high) / 2
