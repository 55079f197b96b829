"""Who may look where, kept as a record until attention is called.

A record instead of a tensor lets the attention function pick its fastest kernel, and lets all the
layers of a stack share the one tensor that is made when a kernel needs it.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from mainspring import spec


@dataclass(frozen=True)
class AttentionMask:
    """Which of `keys` positions each of `queries` positions may look at.

    `start` is the position of the first query among the keys (the length of the cache, in
    decoding). `keep_BS` is False at padding keys. `segments` are the segment numbers of queries
    and keys (BT and BS) where several texts are packed into one row: only equal ones may meet.
    """

    kind: spec.Mask
    queries: int
    keys: int
    device: torch.device
    start: int = 0
    keep_BS: Tensor | None = None
    segments: tuple[Tensor, Tensor] | None = None
    _made: dict = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Kernels read it where the keys say.
        if self.keep_BS is not None and self.keep_BS.shape[-1] != self.keys:
            raise ValueError(
                f"padding is told for {self.keep_BS.shape[-1]} positions, and there are {self.keys}"
            )

    @property
    def hides_nothing(self) -> bool:
        """True where every query sees every key, known without looking at any tensor."""
        if self.keep_BS is not None or self.segments is not None:
            return False
        match self.kind:
            case spec.FullMask():
                return True
            case spec.CausalMask():
                return self.queries == 1 and self.start + 1 == self.keys
            case spec.SlidingWindow(size):
                return self.queries == 1 and self.start + 1 == self.keys <= size

    @property
    def is_plain_causal(self) -> bool:
        """True for the lower triangle and nothing else, which kernels know by themselves."""
        match self.kind:
            case spec.FullMask():
                return False
            case spec.SlidingWindow(size) if size < self.keys:
                return False
        return (
            self.keep_BS is None
            and self.segments is None
            and self.start == 0
            and self.queries == self.keys
        )

    def allowed(self) -> Tensor | None:
        """Booleans that broadcast to BHTS, or None where nothing is hidden."""
        if "allowed" not in self._made:
            self._made["allowed"] = self._allowed()
        return self._made["allowed"]

    def _allowed(self) -> Tensor | None:
        if self.hides_nothing:
            return None
        parts = []
        if not isinstance(self.kind, spec.FullMask):
            at_T1 = torch.arange(self.start, self.start + self.queries, device=self.device)[:, None]
            at_1S = torch.arange(self.keys, device=self.device)[None]
            seen_TS = at_1S <= at_T1
            if isinstance(self.kind, spec.SlidingWindow):
                seen_TS = seen_TS & (at_T1 - at_1S < self.kind.size)
            parts.append(seen_TS[None, None])
        if self.keep_BS is not None:
            parts.append(self.keep_BS[:, None, None, :])
        if self.segments is not None:
            of_queries_BT, of_keys_BS = self.segments
            parts.append((of_queries_BT[:, :, None] == of_keys_BS[:, None, :])[:, None])
        allowed = parts[0]
        for part in parts[1:]:
            allowed = allowed & part
        return allowed

    def blind(self) -> Tensor | None:
        """True at queries that see no key at all (they attend to zeros); None where none can be."""
        if self.keep_BS is None and self.segments is None:
            return None
        if "blind" not in self._made:
            allowed = self.allowed()
            assert allowed is not None
            self._made["blind"] = ~allowed.any(-1, keepdim=True)
        return self._made["blind"]

    def additive(self, bias_1HTS: Tensor | None, dtype: torch.dtype) -> Tensor | None:
        """Mask and bias as one tensor to add to the scores; made once for all layers.

        Hidden places hold the lowest finite number: a row with nothing to see stays finite in the
        forward and the backward pass, and `blind` then zeroes it.
        """
        key = (id(bias_1HTS), dtype)
        if key not in self._made:
            allowed, made = self.allowed(), None
            if bias_1HTS is not None:
                made = bias_1HTS.to(dtype)
            if allowed is not None:
                lowest = torch.finfo(dtype).min
                base = allowed.new_zeros((), dtype=dtype) if made is None else made
                made = torch.where(allowed, base, lowest)
            # The bias is kept beside the result so that its id cannot be given to another tensor.
            self._made[key] = (bias_1HTS, made)
        return self._made[key][1]
