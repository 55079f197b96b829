"""The rules of timestamps in what a speech model writes (Radford et al., 2022, section 2.3).

    <|0.00|> some words <|2.40|><|2.40|> more words <|4.12|> <|endoftext|>

The vocabulary ends in one token for each time a window can hold.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mainspring.generation.processors import Written


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
