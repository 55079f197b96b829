"""Decoding steps on a GPU as CUDA graphs.

A step of a small model is some hundred kernels of a few microseconds each: the time goes into
starting them one by one. `GraphedDecoder` records them once for a batch and then has the device
play the recording, step after step. What is recorded reads and writes tensors that stay where they
are: it attends to the whole room of the cache, with what is not yet written hidden, and a tensor
says which position is next. Rows that have left the batch are computed and not looked at.
"""

from collections.abc import Callable
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from mainspring import spec
from mainspring.compute.decoder import StepDecoder, Turn, rotate_
from mainspring.compute.stacked_cache import StackedCache
from mainspring.core.masks import AttentionMask
from mainspring.core.stack import Stack

WORTH = 12  # steps that must be left to make a recording worth its time


class StaticStep:
    """One decoding step for the rows of one cache, on tensors that stay where they are."""

    def __init__(
        self,
        decoder: StepDecoder,
        table: nn.Embedding | None,
        cache: StackedCache,
        padded: bool,
        memory_keep_BS: Tensor | None,
    ):
        assert cache.held is not None
        self.decoder, self.table, self.held = decoder, table, cache.held
        self.memories = [layer.cross for layer in cache.layers]
        _, _, rows, _, room, _ = self.held.shape
        device = self.held.device
        self.ids_B1 = torch.zeros(rows, 1, dtype=torch.int64, device=device)
        self.at_B1 = torch.zeros_like(self.ids_B1) if padded else None
        self.keep_BS = torch.ones(rows, room, dtype=torch.bool, device=device) if padded else None
        self.next = torch.zeros(1, dtype=torch.int64, device=device)
        self.at_S = torch.arange(room, device=device)
        self.memory_keep_BS = None if memory_keep_BS is None else memory_keep_BS.bool().clone()
        self.seen_memory_keep = memory_keep_BS
        if decoder.stack.position_bias is not None:
            decoder.bias_row(room)
        # A weight of 0 does not hide what happens to lie in memory where it is not a number.
        self.held[..., cache.length :, :].zero_()
        self.play: Callable[[], Tensor] | None = None

    def serves(
        self, cache: StackedCache, keep_BS: Tensor | None, memory_keep_BS: Tensor | None
    ) -> bool:
        """Whether the cache still is where it was, and padding is known of the same things."""
        held = cache.held
        assert held is not None
        return (
            held.data_ptr() == self.held.data_ptr()
            and held.stride() == self.held.stride()
            and (keep_BS is None) == (self.keep_BS is None)
            and (memory_keep_BS is None) == (self.memory_keep_BS is None)
        )

    def run(
        self,
        ids_B1: Tensor,
        keep_BS: Tensor | None,
        memory_keep_BS: Tensor | None,
        at_B1: Tensor | None,
        cache: StackedCache,
    ) -> Tensor:
        """The hidden states B1D of the next tokens; good until the next call."""
        rows, start = len(ids_B1), cache.length
        self.ids_B1[:rows].copy_(ids_B1)
        self.next.fill_(start)
        if self.at_B1 is not None and at_B1 is not None:
            self.at_B1[:rows].copy_(at_B1)
        if self.keep_BS is not None and keep_BS is not None:
            self.keep_BS[:rows, : start + 1].copy_(keep_BS)
        if self.memory_keep_BS is not None and memory_keep_BS is not self.seen_memory_keep:
            assert memory_keep_BS is not None
            self.memory_keep_BS[: len(memory_keep_BS)].copy_(memory_keep_BS)
            self.seen_memory_keep = memory_keep_BS
        if self.play is None:
            self.play = recorded(self.compute, self.held.device)
        x_B1D = self.play()
        for layer in cache.layers:
            layer.length = start + 1
        return x_B1D[:rows]

    def compute(self) -> Tensor:
        """The step as it is recorded: no number that a kernel needs is known to Python."""
        decoder, device = self.decoder, self.held.device
        room, rows = len(self.at_S), len(self.ids_B1)
        ago_S = self.next - self.at_S
        masks = {}
        for window in decoder.windows:
            seen_S = ago_S >= 0 if window is None else (ago_S >= 0) & (ago_S < window)
            seen_BS = seen_S[None] if self.keep_BS is None else seen_S & self.keep_BS
            # The newest position sees itself: no row is blind.
            masks[window] = AttentionMask(
                spec.FullMask(), 1, room, device, keep_BS=seen_BS, _made={"blind": None}
            )
        bias = None
        if decoder.stack.position_bias is not None:
            # The row of the last position, moved to where the next one is.
            bias = decoder.bias_row(room).index_select(-1, (room - 1 - ago_S).clamp(max=room - 1))
        at = decoder.stack.count(self.next, None) if self.at_B1 is None else self.at_B1

        def keep(i: int, qkv_BNE: Tensor, turn: Turn | None) -> tuple[Tensor, Tensor]:
            part, held = decoder.parts[i], self.held[i]
            if turn is not None:
                rotate_(qkv_BNE.narrow(1, 0, part.turned), *turn)
            new_B2KE = qkv_BNE[:, part.heads :].unflatten(1, (2, -1))
            held.index_copy_(3, self.next, new_B2KE.transpose(0, 1)[:, :, :, None])
            return held[0], held[1]

        def cross(i: int, y_BD: Tensor) -> Tensor:
            memory = self.memories[i]
            assert memory is not None
            sources, _, keys, _ = memory[0].shape
            if "memory" not in made:
                made["memory"] = AttentionMask(
                    spec.FullMask(), rows // sources, keys, device, keep_BS=self.memory_keep_BS
                )
            return decoder.read_memory(decoder.parts[i], y_BD, memory, made["memory"])

        made: dict[str, AttentionMask] = {}
        return decoder.run_layers(self.ids_B1, self.table, at, bias, masks, keep, cross)


def recorded(work: Callable[[], Tensor], device: torch.device) -> Callable[[], Tensor]:
    """`work` as a recording to be played; elsewhere than on a CUDA device itself."""
    if device.type != "cuda":
        return work
    here, side = torch.cuda.current_stream(device), torch.cuda.Stream(device)
    graph = torch.cuda.CUDAGraph()
    side.wait_stream(here)
    with torch.cuda.stream(side):
        work()  # libraries take their memory at the first call, which cannot be recorded
        graph.capture_begin()
        result = work()
        graph.capture_end()
    here.wait_stream(side)

    def play() -> Tensor:
        graph.replay()
        return result

    return play


class GraphedDecoder(StepDecoder):
    """A `StepDecoder` on a GPU: the steps of a batch are recorded once and then played."""

    def __init__(self, stack: Stack, described: spec.Stack, dtype: torch.dtype):
        super().__init__(stack, described, dtype, None)
        self._steps: WeakKeyDictionary[StackedCache, StaticStep] = WeakKeyDictionary()

    def step(
        self,
        ids_B1: Tensor,
        table: nn.Embedding | None,
        keep_BS: Tensor | None,
        memory_BSD: Tensor | None,
        memory_keep_BS: Tensor | None,
        cache: StackedCache,
        at_B1: Tensor | None,
    ) -> Tensor:
        left = cache.capacity - cache.length
        counted = (keep_BS is None) == (at_B1 is None)  # as `State` reads: padding has positions
        if cache.held is not None and left > 0 and counted:
            known = self._steps.get(cache)
            if known is not None and not known.serves(cache, keep_BS, memory_keep_BS):
                known = None
            if known is None and left >= WORTH:
                known = StaticStep(self, table, cache, keep_BS is not None, memory_keep_BS)
                self._steps[cache] = known
            if known is not None:
                return known.run(ids_B1, keep_BS, memory_keep_BS, at_B1, cache)
        return super().step(ids_B1, table, keep_BS, memory_BSD, memory_keep_BS, cache, at_B1)
