"""When a row is finished, and why."""

from collections.abc import Callable

import torch
from torch import Tensor

from mainspring.errors import BadOption
from mainspring.generation.options import GenerationOptions


class Ending:
    """Tells which rows the newest token finishes: an end-of-sequence token, or a stop string."""

    def __init__(self, options: GenerationOptions, decode: Callable[[list[int]], str] | None):
        stops = options.stop_strings or ()
        self.eos_ids = options.eos_ids
        self.stops = (stops,) if isinstance(stops, str) else stops
        if self.stops and decode is None:
            raise BadOption("`stop_strings` needs a tokenizer, and this checkpoint has none")
        self.decode = decode
        # No token is shorter than a byte, so a stop string spans no more tokens than this.
        self.window = 4 + max((len(stop.encode()) for stop in self.stops), default=0)

    def is_eos(self, ids: Tensor) -> Tensor:
        """Where `ids` (of any shape) are end-of-sequence tokens."""
        if len(self.eos_ids) == 1:
            return ids == self.eos_ids[0]
        return torch.isin(ids, torch.tensor(self.eos_ids, dtype=ids.dtype, device=ids.device))

    def is_stopped(self, ids_RT: Tensor) -> Tensor:
        """Which rows end in a stop string that their last token completed."""
        tails = ids_RT[:, -self.window :].tolist()
        return torch.tensor([self._completes(tail) for tail in tails], device=ids_RT.device)

    def _completes(self, tail: list[int]) -> bool:
        assert self.decode is not None
        text, before = self.decode(tail), self.decode(tail[:-1])
        return any(stop in text and stop not in before for stop in self.stops)


def stop_reasons(sequences: Tensor, prompt: int, tokens: list[int], ending: Ending) -> list[str]:
    """Why each row ended, read off its last new token: "eos", "stop" or "length"."""
    last = torch.tensor(tokens, device=sequences.device) + (prompt - 1)
    ended = ending.is_eos(sequences.gather(1, last[:, None]).squeeze(1)).tolist()
    reasons = []
    for row, end in enumerate(last.tolist()):
        if ended[row]:
            reasons.append("eos")
        elif ending.stops and bool(ending.is_stopped(sequences[row : row + 1, : end + 1])):
            reasons.append("stop")
        else:
            reasons.append("length")
    return reasons
