"""What measuring on a graphics card takes: clocks that wait for it, and its memory."""

import time
from dataclasses import dataclass

from benchmarks.measure import peak_bytes


@dataclass(frozen=True)
class Peak:
    """A request to a contestant: the most memory it has held since the last such request, in bytes.

    On a card that is what its tensors have taken there (`torch.cuda.max_memory_allocated`); on the
    CPU it is the process's, since its start.
    """


def clock(device: str) -> float:
    """Seconds, read once all work that `device` was given is done."""
    if device != "cpu":
        import torch

        torch.cuda.synchronize()
    return time.perf_counter()


def peak_of(device: str) -> int:
    """The answer to `Peak`."""
    if device == "cpu":
        return peak_bytes()
    import torch

    found: int = torch.cuda.max_memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    return found
