"""The rules of timestamps in what a speech model writes (Radford et al., 2022, section 2.3).

    <|0.00|> some words <|2.40|><|2.40|> more words <|4.12|> <|endoftext|>

The vocabulary ends in one token for each time a window can hold.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mainspring.generation.processors import Written

STRIDE = 2  # frames that become one vector of the encoder, and one step of the timestamps


@dataclass(frozen=True)
class TimestampRules:
    """A logits processor: text begins with a timestamp, timestamps come in pairs (but before the
    end) and never go back, and one is written wherever all of them together are likelier than the
    likeliest other token.

    `first` is the token of time 0, the one before it `<|notimestamps|>`; `end` the end-of-text
    token, below which all text is; `prompt` how many tokens stand before what is written;
    `latest` the highest number of the first timestamp.
    """

    first: int
    end: int
    prompt: int
    latest: int | None = None

    def __call__(self, scores: Tensor, written: Written) -> Tensor:
        ids, device = written.ids_BT[:, self.prompt :], scores.device
        scores[:, self.first - 1] = -math.inf
        if not ids.shape[1]:
            scores[:, : self.first] = -math.inf
            if self.latest is not None:
                scores[:, self.first + self.latest + 1 :] = -math.inf
            return self._weighed(scores)
        is_time = ids >= self.first
        last = is_time[:, -1]
        before = is_time[:, -2] if ids.shape[1] > 1 else torch.ones_like(last)
        # The other half of a pair may be equal; after it time goes on.
        highest = ids.masked_fill(~is_time, self.first - 1).amax(1)
        least = torch.where(last & ~before, highest, highest + 1)[:, None]
        at_V = torch.arange(scores.shape[1], device=device)
        is_time_V = at_V >= self.first
        scores.masked_fill_(is_time_V & (at_V < least), -math.inf)
        scores.masked_fill_(is_time_V & (last & before)[:, None], -math.inf)
        scores.masked_fill_((at_V < self.end) & (last & ~before)[:, None], -math.inf)
        return self._weighed(scores)

    def _weighed(self, scores: Tensor) -> Tensor:
        logs = scores.log_softmax(-1)
        times, others = logs[:, self.first :].logsumexp(1), logs[:, : self.first].amax(1)
        scores[:, : self.first].masked_fill_((times > others)[:, None], -math.inf)
        return scores


@dataclass(frozen=True)
class Segment:
    """Tokens with their timestamps, and when they are spoken, in frames."""

    start: float
    end: float
    ids: tuple[int, ...]


def split(ids: Sequence[int], first: int, at: int, frames: int) -> tuple[list[Segment], int]:
    """The segments in what was written to a window, and how many frames the next one is further on.

    Tokens from `first` on are timestamps; the window begins at frame `at` and holds `frames`.
    Each pair of timestamps ends a segment; what follows the last pair is thrown away and heard
    again, unless it ends in a single timestamp, which says that nothing more is spoken.
    """
    is_time = [i >= first for i in ids]
    ends = [i for i in range(1, len(ids)) if is_time[i - 1] and is_time[i]]

    def frame(token: int) -> int:
        return at + (token - first) * STRIDE

    if not ends:
        # The whole is one segment. It ends at its last timestamp, unless that is the first of all.
        times = [i for i in ids if i >= first]
        whole = at + frames // STRIDE * STRIDE
        end = frame(times[-1]) if times and times[-1] != first else whole
        return [Segment(at, end, tuple(ids))], frames
    alone = is_time[-2:] == [False, True]
    if alone:
        ends.append(len(ids))
    else:
        ends[-1] += 1  # the last segment keeps both timestamps of the pair it ends with
    segments, begin = [], 0
    for end in ends:
        part = tuple(ids[begin:end])
        last = part[-2] if end == ends[-1] and not alone else part[-1]
        segments.append(Segment(frame(part[0]), frame(last), part))
        begin = end
    return segments, frames if alone else (ids[begin - 2] - first) * STRIDE
