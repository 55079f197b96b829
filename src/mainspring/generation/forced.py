"""Beam search in which given phrases must occur: grid beam search (Hokamp & Liu, 2017).

Hypotheses are sorted into banks by how many tokens of the phrases they hold; each bank keeps its
own best ones, so that those that hold much are not crowded out by those that hold little. A phrase
that is begun and not gone on with counts for nothing. Only hypotheses that hold all phrases may
end, and a token that would leave too little room for what is missing is never taken: the phrases
are in every answer, whatever the model thinks of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mainspring import spec
from mainspring.core.model import Transformer
from mainspring.errors import BadOption
from mainspring.generation.options import GenerationOptions
from mainspring.generation.processors import Processor, Written, build_processors, process
from mainspring.generation.search import Generated
from mainspring.generation.state import State, start
from mainspring.generation.top import top_k

BEAMS = 4  # of each bank, at least

Phrases = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Held:
    """What a hypothesis holds of the phrases: which are complete, and how many tokens (`at`) of
    `phrase`, which its last tokens begin (-1: of none)."""

    complete: frozenset[int] = frozenset()
    phrase: int = -1
    at: int = 0

    def count(self, phrases: Phrases) -> int:
        return sum(len(phrases[i]) for i in self.complete) + self.at

    def following(self, phrases: Phrases) -> int | None:
        """The token that goes on with the phrase that is begun."""
        return None if self.phrase < 0 else phrases[self.phrase][self.at]

    def after(self, token: int, phrases: Phrases) -> "Held":
        """What is held once `token` is written too."""
        phrase, at = self.phrase, self.at + 1
        if token != self.following(phrases):
            phrase, at = self._begun(token, phrases), 1
        if phrase < 0:
            return Held(self.complete)
        if at == len(phrases[phrase]):
            return Held(self.complete | {phrase})
        return Held(self.complete, phrase, at)

    def _begun(self, token: int, phrases: Phrases) -> int:
        missing = (i for i, ids in enumerate(phrases) if i not in self.complete and ids[0] == token)
        return next(missing, -1)


@dataclass(frozen=True)
class Hypothesis:
    """One row: its score (sum of log-probabilities), the row it goes on from, and its token."""

    score: float
    parent: int
    token: int
    held: Held


def generate_with(
    model: Transformer,
    input_ids: Tensor,
    attention_mask: Tensor | None,
    options: GenerationOptions,
    phrases: Sequence[Sequence[int]],
) -> Generated:
    """As `search.generate` for one input (1S) in a beam search, with all `phrases` in the answer.

    What is banned by other options may still be written as part of a phrase. BadOption where the
    phrases have more tokens than may be written, or the options ask for sampling or several
    answers.
    """
    if len(input_ids) != 1 or options.do_sample or options.num_return_sequences != 1:
        raise BadOption("phrases are forced in a beam search for one answer to one input")
    with torch.inference_mode():
        state, prompt = start(model, input_ids, attention_mask, options)
        head = dict(model.spec.heads)["vocabulary"]
        assert isinstance(head, spec.VocabularyHead)
        processors = build_processors(
            options,
            prompt=prompt.shape[1],
            vocabulary=head.vocabulary,
            encoder_ids=input_ids,
            pads=None if state.keep_BS is None else state.keep_BS.int().argmax(1),
        )
        wanted = tuple(dict.fromkeys(tuple(ids) for ids in phrases if ids))
        return _Grid(state, prompt, options, processors, wanted).search()


class _Grid:
    """The search for one input."""

    def __init__(
        self,
        state: State,
        prompt: Tensor,
        options: GenerationOptions,
        processors: list[Processor],
        phrases: Phrases,
    ):
        self.state, self.options, self.processors = state, options, processors
        self.phrases, self.first = phrases, prompt.shape[1]
        self.all = sum(map(len, phrases))
        self.longest, _ = options.limits(self.first)
        self.beams = max(BEAMS, options.num_beams)
        self.width = (self.all + 1) * self.beams
        self.begins = options.forced_bos_token_id if self.first == 1 else None
        room = self.longest - self.first - (self.begins is not None) - bool(options.eos_ids)
        if self.all > room:
            raise BadOption(
                f"the forced words have {self.all} tokens and only {room} may be written; give "
                "more `max_new_tokens`"
            )
        self.ids = prompt.new_zeros(self.width, self.longest)
        self.ids[:, : self.first] = prompt
        self.finished: list[tuple[float, list[int]]] = []

    def search(self) -> Generated:
        logits = self.state.advance(self.ids[:1, : self.first])
        self.state.widen(self.width)
        live = [Hypothesis(0.0, 0, 0, Held())]
        for length in range(self.first, self.longest):
            if length > self.first:
                logits = self.state.advance(self.ids[:, length - 1 : length])
            live = self._kept(self._candidates(live, logits[: len(live)], length))
            parents = [hypothesis.parent for hypothesis in live]
            rows = torch.tensor(parents + [0] * (self.width - len(live)), device=self.ids.device)
            self.ids = self.ids[rows]
            self.ids[: len(live), length] = self.ids.new_tensor([h.token for h in live])
            live = self._finish(live, length)
            if not live or self._is_over(live, length):
                break
            self._move(live, rows)
        return self._best()

    def _candidates(
        self, live: list[Hypothesis], logits: Tensor, length: int
    ) -> dict[tuple[int, int], Hypothesis]:
        plain_RV = logits.log_softmax(-1, dtype=torch.float32)
        scores_RV = plain_RV
        if self.processors:
            written = Written(
                self.ids[: len(live), :length], self.ids.new_zeros(len(live), dtype=torch.int64)
            )
            scores_RV = process(self.processors, plain_RV.clone(), written)
        count = min(self.beams + len(self.options.eos_ids), scores_RV.shape[1])
        values, tokens = (found.tolist() for found in top_k(scores_RV, count))
        found: dict[tuple[int, int], Hypothesis] = {}
        for row, before in enumerate(live):
            ways = list(zip(values[row], tokens[row], strict=True))
            if self.begins is None or length > 1:
                ways += [(float(plain_RV[row, i]), i) for i in self._wanted(before.held)]
            for value, token in ways:
                held = before.held.after(token, self.phrases)
                if value > -torch.inf and self._may(token, held, length):
                    made = Hypothesis(before.score + value, row, token, held)
                    found.setdefault((row, token), made)
        return found

    def _wanted(self, held: Held) -> list[int]:
        """The tokens that bring a hypothesis nearer to holding all phrases."""
        following = held.following(self.phrases)
        if following is not None:
            return [following]
        return [ids[0] for i, ids in enumerate(self.phrases) if i not in held.complete]

    def _may(self, token: int, held: Held, length: int) -> bool:
        """Whether the phrases still fit in behind `token`, and it does not end too early."""
        missing = self.all - held.count(self.phrases)
        if token in self.options.eos_ids:
            return missing == 0
        ends = bool(self.options.eos_ids) and length + 1 < self.longest
        return missing + ends <= self.longest - length - 1

    def _kept(self, candidates: dict[tuple[int, int], Hypothesis]) -> list[Hypothesis]:
        """The best of each bank."""
        banks: dict[int, list[Hypothesis]] = {}
        for hypothesis in sorted(candidates.values(), key=lambda h: -h.score):
            bank = banks.setdefault(hypothesis.held.count(self.phrases), [])
            if len(bank) < self.beams:
                bank.append(hypothesis)
        return [hypothesis for bank in banks.values() for hypothesis in bank]

    def _finish(self, live: list[Hypothesis], length: int) -> list[Hypothesis]:
        """Takes out what has ended; the others, with their row as the parent."""
        tokens, left = length + 1 - self.first, []
        for row, hypothesis in enumerate(live):
            if hypothesis.token in self.options.eos_ids or length + 1 == self.longest:
                score = hypothesis.score / tokens**self.options.length_penalty
                self.finished.append((score, self.ids[row, : length + 1].tolist()))
            else:
                left.append(Hypothesis(hypothesis.score, row, hypothesis.token, hypothesis.held))
        self.finished.sort(key=lambda pair: -pair[0])
        return left

    def _is_over(self, live: list[Hypothesis], length: int) -> bool:
        if len(self.finished) < self.beams:
            return False
        if self.options.early_stopping is True:
            return True
        tokens = length + 1 - self.first
        reachable = max(h.score for h in live) / tokens**self.options.length_penalty
        return reachable <= self.finished[self.beams - 1][0]

    def _move(self, live: list[Hypothesis], rows: Tensor) -> None:
        """Puts the live rows, and the caches of their parents, in the first places."""
        places = [hypothesis.parent for hypothesis in live]
        kept = torch.tensor(places + [0] * (self.width - len(live)), device=self.ids.device)
        self.ids = self.ids[kept]
        self.state.reorder(rows[kept], self.first)

    def _best(self) -> Generated:
        score, ids = self.finished[0]
        new = ids[self.first :]
        stop = "eos" if new[-1] in self.options.eos_ids else "length"
        sequences = self.ids.new_tensor([ids])
        return Generated(sequences.clone(), [stop], [len(new)], self.first, torch.tensor([score]))
