"""What is written to a window of speech, and written again where it cannot be right (Radford et
al., 2022, section 4.5)."""

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mainspring import spec
from mainspring.core.model import Transformer
from mainspring.errors import BadOption
from mainspring.generation.options import GenerationOptions
from mainspring.generation.processors import Processor, Written
from mainspring.generation.search import Generated, generate
from mainspring.generation.speech import SpeechOptions
from mainspring.generation.timestamps import TimestampRules


@dataclass
class Answer:
    """What was written to one window: `ids` with the end token, if it `ended` so. `tokens` counts
    those of all tries, `temperature` is that of the last; `silent` says that nothing is spoken."""

    ids: list[int]
    ended: bool
    tokens: int
    temperature: float = 0.0
    retried: bool = False
    silent: bool = False


def write(
    model: Transformer,
    ids_BT: Tensor,
    memory_BSD: Tensor,
    speech: SpeechOptions,
    options: GenerationOptions,
    begin: int,
) -> list[Answer]:
    """What is written to some windows, of which `memory_BSD` is what the encoder made.

    `ids_BT` are the prompts; their last `begin` tokens are those of start, language and task.
    """
    silence = [0.0] * len(ids_BT)
    if speech.no_speech_threshold is not None:
        silence = _silence(model, ids_BT, memory_BSD, speech, begin)
    answers: dict[int, Answer] = {}
    left = list(range(len(ids_BT)))
    for temperature in speech.temperatures:
        at = torch.tensor(left, device=ids_BT.device)
        made, nats = _generate(model, ids_BT[at], memory_BSD[at], speech, options, temperature)
        again = []
        for place, row in enumerate(left):
            new = made.new_ids(place)
            answer = Answer(new, made.stops[place] == "eos", len(new), temperature)
            if row in answers:
                answer.tokens += answers[row].tokens
                answer.retried = True
            answers[row] = answer
            unlikely = speech.logprob_threshold is not None and (
                nats[place] < speech.logprob_threshold
            )
            repeats = speech.compression_ratio_threshold is not None and (
                _compression(new, model.spec) > speech.compression_ratio_threshold
            )
            threshold = speech.no_speech_threshold
            answer.silent = unlikely and threshold is not None and silence[row] > threshold
            if (unlikely or repeats) and not answer.silent:
                again.append(row)
        left = again
        if not left:
            break
    return [answers[row] for row in range(len(ids_BT))]


def next_logits(model: Transformer, ids_BT: Tensor, memory_BSD: Tensor) -> Tensor:
    """Logits BTV of what follows each of some tokens, float32."""
    return model.read("vocabulary", model.decode(ids_BT, memory_BSD)).float()


def _silence(
    model: Transformer, ids_BT: Tensor, memory_BSD: Tensor, speech: SpeechOptions, begin: int
) -> list[float]:
    """How likely each window is no speech: the token before `<|notimestamps|>`, as the first after
    the start of the transcript."""
    marker = speech.no_timestamps_token_id
    if marker is None:
        raise BadOption("`no_speech_threshold` needs a checkpoint with timestamps")
    logits_BTV = next_logits(model, ids_BT, memory_BSD)
    return logits_BTV[:, ids_BT.shape[1] - begin].softmax(1)[:, marker - 1].tolist()


def _generate(
    model: Transformer,
    ids_BT: Tensor,
    memory_BSD: Tensor,
    speech: SpeechOptions,
    options: GenerationOptions,
    temperature: float,
) -> tuple[Generated, list[float]]:
    """What is generated, and its mean log-probability for each row where that is asked for; that of
    a beam search is the search's own (transformers counts anew over what the rules leave)."""
    options = replace(
        options,
        # The start token is the first of the prompt: none is put before it.
        decoder_start_token_id=tuple(ids_BT[:, 0].tolist()),
        do_sample=temperature > 0,
        temperature=temperature or 1.0,
        num_beams=1 if temperature > 0 else options.num_beams,
    )
    rules: list[Processor] = []
    first = speech.first_timestamp
    if speech.return_timestamps and first is not None:
        if not options.eos_ids:
            raise BadOption("timestamps need an end-of-text token (`eos_token_id`)")
        latest = speech.max_initial_timestamp_index
        rules.append(TimestampRules(first, options.eos_ids[0], ids_BT.shape[1], latest))
    likelihood = _Likelihood(len(ids_BT))
    if speech.logprob_threshold is not None and options.num_beams == 1:
        rules.append(likelihood.see)
    made = generate(
        model,
        memory_BSD,
        None,
        options,
        likelihood.add,
        decoder_input_ids=ids_BT,
        memory=memory_BSD,
        rules=rules,
    )
    if made.scores is None:
        sums = likelihood.sums
        return made, [total / count for total, count in zip(sums, made.tokens, strict=True)]
    power = options.length_penalty - 1
    scores = zip(made.scores.tolist(), made.tokens, strict=True)
    return made, [score * count**power for score, count in scores]


def _compression(ids: Sequence[int], model: spec.Model) -> float:
    """How many times shorter zlib makes the tokens' bytes. The paper's own program compresses the
    text; the thresholds differ accordingly (2.4 there, 1.35 here)."""
    head = dict(model.heads)["vocabulary"]
    assert isinstance(head, spec.VocabularyHead)
    width = int(math.log2(head.vocabulary) / 8) + 1
    plain = b"".join(i.to_bytes(width, "little") for i in ids)
    return len(plain) / len(zlib.compress(plain))


class _Likelihood:
    """Adds up the log-probabilities of the tokens that are chosen, row by row.

    They are those of all tokens, as in the paper's own program, also where one is drawn from the
    likeliest only.
    """

    def __init__(self, rows: int):
        self.sums = [0.0] * rows
        self.logs: Tensor | None = None

    def see(self, scores: Tensor, written: Written) -> Tensor:
        self.logs = scores.log_softmax(-1)
        return scores

    def add(self, rows: Tensor, ids: Tensor) -> None:
        if self.logs is not None:
            found = self.logs.gather(1, ids[:, None]).squeeze(1)
            for row, value in zip(rows.tolist(), found.tolist(), strict=True):
                self.sums[row] += value
