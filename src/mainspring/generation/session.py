"""A text that grows turn by turn: what has been read stays read.

conversation = Conversation(model)
conversation.generate(ids_of_the_first_prompt, options)
conversation.generate(ids_of_the_whole_chat_so_far, options)   # reads only what is new
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile

import torch

from mainspring.core.model import Transformer
from mainspring.errors import BadOption, Mismatch
from mainspring.generation.constrained import Constraint
from mainspring.generation.options import GenerationOptions
from mainspring.generation.search import Generated, generate, stream
from mainspring.generation.speculative import Draft


class Conversation:
    """Keeps the keys and values of one text between calls, for a decoder-only model.

    Each prompt is compared with what was read and written before: the beginning that they share is
    kept, the rest forgotten, and only what is new is read. The output is that of a fresh start.
    The cache grows by a quarter at a time; `bytes()` says what it takes.
    """

    def __init__(self, model: Transformer):
        if model.encoder is not None:
            raise Mismatch("a conversation needs a decoder-only model; this one has an encoder")
        self.model, self.cache = model, model.new_cache(0)
        self.read: list[int] = []  # the ids whose keys and values are held
        self.reused = 0  # positions that the last call did not read again

    def generate(
        self,
        ids: Sequence[int],
        options: GenerationOptions,
        on_tokens: Callable[[torch.Tensor, torch.Tensor], object] | None = None,
        *,
        decode: Callable[[list[int]], str] | None = None,
        constraint: Constraint | None = None,
        draft: Draft | None = None,
    ) -> Generated:
        """As `search.generate` for one prompt, given whole."""
        if options.num_beams > 1 or options.num_return_sequences > 1:
            raise BadOption("a conversation goes on in one sequence, greedy or sampled")
        prompt = self._turn_to(ids)
        made: Generated | None = None
        try:
            made = generate(
                self.model,
                prompt,
                torch.ones_like(prompt),
                options,
                on_tokens,
                decode=decode,
                constraint=constraint,
                draft=draft,
                cache=self.cache,
            )
            return made
        finally:
            self._keep([*ids, *(made.new_ids(0) if made is not None else ())])

    def stream(
        self,
        ids: Sequence[int],
        options: GenerationOptions,
        *,
        decode: Callable[[list[int]], str] | None = None,
        constraint: Constraint | None = None,
        draft: Draft | None = None,
    ) -> Iterator[int]:
        """As `search.stream`. It may be left at any token."""
        prompt = self._turn_to(ids)
        written = list(ids)
        tokens = stream(
            self.model,
            prompt,
            torch.ones_like(prompt),
            options,
            decode=decode,
            constraint=constraint,
            draft=draft,
            cache=self.cache,
        )
        try:
            for token in tokens:
                written.append(token)
                yield token
        finally:
            self._keep(written)

    def bytes(self) -> int:
        """Memory of the cache, in bytes, room for growth included."""
        return self.cache.bytes()

    def _turn_to(self, ids: Sequence[int]) -> torch.Tensor:
        """Forgets what the prompt does not begin with; the prompt as a tensor."""
        if not ids:
            raise BadOption("the prompt is empty: a model needs a token to go on from")
        pairs = zip(self.read, ids, strict=False)
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        # The last token is read in any case: what follows it is asked for.
        self.reused = min(shared, len(ids) - 1)
        self.cache.truncate(self.reused)
        self.read = list(ids[: self.reused])
        return torch.tensor([list(ids)], device=next(self.model.parameters()).device)

    def _keep(self, written: list[int]) -> None:
        """Remembers what the cache holds. A call that was broken off may have left more than is
        known to be right, and more in some layers than in others."""
        held = min(layer.length for layer in self.cache.layers)
        self.cache.truncate(min(held, len(written)))
        self.read = written[: self.cache.length]
