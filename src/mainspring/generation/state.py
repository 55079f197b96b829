"""A batch in the middle of being decoded: what its rows read and remember."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mainspring.core.cache import Cache
from mainspring.core.model import Transformer
from mainspring.errors import BadOption, Mismatch
from mainspring.generation.options import GenerationOptions, as_ids

ROOM = 1024  # positions a cache has room for at first, at most: it grows in steps


class State:
    """The memory that rows read, their cache and their padding; `advance` is one model step.

    The `group` rows that go on from one input stand side by side and leave together, since an
    encoder-decoder keeps memory and cross-attention once per input.
    """

    def __init__(
        self,
        model: Transformer,
        capacity: int,
        device: torch.device,
        memory_BSD: Tensor | None = None,
        memory_keep_BS: Tensor | None = None,
        cache: Cache | None = None,
    ):
        self.model, self.group = model, 1
        self.memory_BSD, self.memory_keep_BS = memory_BSD, memory_keep_BS
        self.keep_BS: Tensor | None = None
        self.cache = model.new_cache(min(capacity, ROOM)) if cache is None else cache
        self.capacity, self.device = capacity, device

    def pad(self, keep_BT: Tensor) -> None:
        """Says where the prompt, about to be read, is padding (False)."""
        self.keep_BS = keep_BT.new_ones(len(keep_BT), self.capacity)
        self.keep_BS[:, : keep_BT.shape[1]] = keep_BT

    def advance(self, ids_BT: Tensor) -> Tensor:
        """Reads the next tokens and gives the logits BV of the one to follow."""
        return self.read(ids_BT, 1)[:, 0]

    def read(self, ids_BT: Tensor, last: int) -> Tensor:
        """Reads the next tokens; logits BTV of what follows each of the `last` ones."""
        start = self.cache.length
        keep_BS = at_BT = None
        if self.keep_BS is not None:
            keep_BS = self.keep_BS[:, : start + ids_BT.shape[1]]
            # Positions count real tokens only, wherever the padding stands.
            at_BT = (keep_BS.cumsum(1) - 1).clamp(min=0)[:, start:]
        x_BTD = self.model.decode(
            ids_BT,
            self.memory_BSD,
            self.memory_keep_BS,
            keep_BS=keep_BS,
            cache=self.cache,
            at_BT=at_BT,
        )
        return self.model.read("vocabulary", x_BTD[:, -last:])

    def widen(self, times: int) -> None:
        """Every row becomes `times` rows that go on from it."""
        if times == 1:
            return
        rows = repeated(torch.arange(self.cache.rows, device=self.device), times)
        self.cache.reorder(rows)
        if self.keep_BS is not None:
            self.keep_BS = self.keep_BS[rows]
        self.group = times

    def reorder(self, rows: Tensor, since: int) -> None:
        """Place i goes on from row `rows[i]`, of the same input; see `Cache.reorder`."""
        self.cache.reorder(rows, since=since)

    def select(self, inputs: Tensor) -> None:
        """Keeps these groups of rows (numbers in 0..rows/group); the others leave."""
        rows = members(inputs, self.group)
        crossed = self.memory_BSD is not None
        self.cache.reorder(rows, inputs if crossed else None)
        if self.memory_BSD is not None:
            self.memory_BSD = self.memory_BSD[inputs]
        if self.memory_keep_BS is not None:
            self.memory_keep_BS = self.memory_keep_BS[inputs]
        if self.keep_BS is not None:
            self.keep_BS = self.keep_BS[rows]


def repeated(x: Tensor, times: int) -> Tensor:
    """Each row `times` times over, side by side."""
    return x if times == 1 else x.repeat_interleave(times, 0)


def members(inputs: Tensor, group: int) -> Tensor:
    """The rows that belong to `inputs`, `group` rows each."""
    if group == 1:
        return inputs
    return (inputs[:, None] * group + torch.arange(group, device=inputs.device)).flatten()


def staying(keep: Tensor) -> Tensor:
    """The places where `keep` is True, ordered so that as few as possible change their place.

    Places beyond the new end move into the gaps; all others stay where they are.
    """
    places = keep.nonzero().squeeze(1)
    order = torch.arange(len(places), device=keep.device)
    gaps = ~keep[: len(places)]
    order[gaps] = places[places >= len(places)]
    return order


def start(
    model: Transformer,
    inputs: Tensor,
    attention_mask: Tensor | None,
    options: GenerationOptions,
    decoder_input_ids: Tensor | None = None,
    cache: Cache | None = None,
    memory: Tensor | None = None,
) -> tuple[State, Tensor]:
    """(the state before the prompt is read, the prompt's ids BT).

    A `cache` that holds the beginning of the one prompt already is read on from. `memory` is what
    the encoder made of the inputs, where it has read them already.
    """
    if model.training:
        raise Mismatch("the model is in training mode, with dropout; call `model.eval()` first")
    if model.decoder is None or "vocabulary" not in model.heads:
        raise Mismatch("this model cannot generate: it has no decoder with a vocabulary head")
    if model.encoder is None:
        prompt = inputs
        if attention_mask is None:
            attention_mask = _guessed_mask(prompt, options)
    else:
        prompt = _decoder_prompt(len(inputs), inputs.device, options, decoder_input_ids)
    longest, _ = options.limits(prompt.shape[1])
    keep = None if attention_mask is None else attention_mask.bool()
    if keep is not None and bool(keep.all()):
        keep = None  # nothing is hidden: no mask to build at every step
    capacity = longest - 1  # the last token is written and never read
    if model.encoder is None:
        state = State(model, capacity, prompt.device, cache=cache)
        if keep is not None:
            state.pad(keep)
    else:
        if memory is None:
            memory = model.encode(inputs, keep)
        state = State(model, capacity, prompt.device, memory, keep)
    return state, prompt


def _guessed_mask(prompt: Tensor, options: GenerationOptions) -> Tensor | None:
    """Padding where no mask says so: the padding token, unless it also ends sequences."""
    pad = options.pad_id
    return None if pad is None or pad in options.eos_ids else prompt != pad


def _decoder_prompt(
    inputs: int, device: torch.device, options: GenerationOptions, given: Tensor | None
) -> Tensor:
    """What the decoder starts from: its start token, and the ids `given` after it."""
    ids: Sequence[int] = as_ids(options.decoder_start_token_id) or as_ids(options.bos_token_id)
    if not ids:
        raise BadOption("an encoder-decoder needs `decoder_start_token_id` or `bos_token_id`")
    if len(ids) not in (1, inputs):
        raise BadOption(
            f"`decoder_start_token_id` names {len(ids)} tokens for {inputs} inputs; give one, or "
            "one for each"
        )
    first = torch.tensor(ids, device=device)[:, None].expand(inputs, 1)
    if given is None:
        return first
    if bool((given[:, :1] != first).all()):
        return torch.cat([first, given], 1)
    return given
