"""Speech of any length to tokens, one window after the other (Radford et al., 2022, section 4.5).

    ├──────── window ────────┤
    <|0.00|> … <|9.80|><|9.80|> … (unfinished)      what is behind the last pair of timestamps is
                      ├──────── window ────────┤    thrown away, and heard again by the next window

The windows, their prompts and what is kept of them are those of transformers' `generate`, and so
are the tokens. Where it mixes up the rows of a batch (after a window was tried again, or once one
recording has ended) each is treated here as if it were alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from mainspring import spec
from mainspring.core.model import Transformer
from mainspring.errors import BadOption, Mismatch
from mainspring.generation.options import GenerationOptions
from mainspring.generation.speech import SpeechOptions, prompts, start_id
from mainspring.generation.timestamps import STRIDE, Segment, split
from mainspring.generation.tries import Answer, next_logits, write

WARM = 0.5  # from this temperature on what was written is no guide for the next window
LENGTH = 20  # tokens, where nothing says how many


@dataclass(frozen=True)
class Recording:
    """Log-mel frames NT of one recording, the first `frames` of which are to be written down.

    What follows them in `frames_NT` (the silence that a short recording is filled up with) is heard
    with the last window where `tail`; otherwise zeros stand in its place, as in transformers (the
    paper's own program always hears silence there).
    """

    frames_NT: Tensor
    frames: int
    tail: bool = False


@dataclass
class Heard:
    """What was written of one recording; `prompt` is what its text began with.

    `windows` were heard, of which `silent` were passed over as no speech, `retried` were written
    more than once, and `cut` ended at the length limit. `tokens` counts what was written, the parts
    that were thrown away included.
    """

    prompt: list[int]
    segments: list[Segment] = field(default_factory=list)
    windows: int = 0
    silent: int = 0
    retried: int = 0
    cut: int = 0
    tokens: int = 0

    @property
    def ids(self) -> list[int]:
        return [i for segment in self.segments for i in segment.ids]


def window_frames(model: spec.Model) -> int:
    """How many frames the model hears at a time. Mismatch where it hears nothing."""
    stack = model.encoder
    if stack is None or not isinstance(stack.embedding, spec.AudioEmbedding):
        raise Mismatch("this model does not hear")
    if model.decoder is None or not isinstance(stack.positions, spec.Learned):
        raise Mismatch("this model hears and does not write")
    return STRIDE * stack.positions.length


def generate_speech(
    model: Transformer,
    features: Tensor,
    attention_mask: Tensor | None,
    speech: SpeechOptions,
    options: GenerationOptions,
) -> Tensor:
    """The tokens (rows, length) of log-mel `features` (rows, bins, frames), padded on the right, as
    transformers' `generate` returns them: without the prompt and without the end token.

    `attention_mask` (rows, frames) tells how long each of several long recordings is.
    """
    rows, _, frames = features.shape
    lengths = [frames] * rows
    if frames > window_frames(model.spec):
        speech = replace(speech, return_timestamps=True)
        if attention_mask is not None and rows > 1:
            lengths = attention_mask.sum(1).tolist()
        elif rows > 1:
            raise BadOption("several long recordings need an `attention_mask`")
    recordings = [Recording(row, length) for row, length in zip(features, lengths, strict=True)]
    found = [heard.ids for heard in listen(model, recordings, speech, options)]
    pad = options.pad_id or 0
    longest = max(map(len, found))
    padded = [[*ids, *[pad] * (longest - len(ids))] for ids in found]
    return torch.tensor(padded, dtype=torch.int64, device=features.device)


def listen(
    model: Transformer,
    recordings: Sequence[Recording],
    speech: SpeechOptions,
    options: GenerationOptions,
    on_window: Callable[[int, Sequence[Segment]], object] = lambda row, segments: None,
) -> list[Heard]:
    """What is spoken in each of the recordings, which are heard side by side.

    `on_window(row, segments)` is called with what each window adds to a recording.
    """
    with torch.inference_mode():
        return _Listening(model, recordings, speech, options, on_window).run()


class _Listening:
    def __init__(
        self,
        model: Transformer,
        recordings: Sequence[Recording],
        speech: SpeechOptions,
        options: GenerationOptions,
        on_window: Callable[[int, Sequence[Segment]], object],
    ):
        self.model, self.recordings, self.on_window = model, recordings, on_window
        self.window = window_frames(model.spec)
        if any(recording.frames > self.window for recording in recordings):
            if speech.no_timestamps_token_id is None:
                raise BadOption(
                    "recordings longer than a window need timestamps, and generation_config.json "
                    "names no `no_timestamps_token_id`"
                )
            speech = replace(speech, return_timestamps=True)
        self.speech, self.options = speech, options
        self.at = [0] * len(recordings)
        self.warm = [False] * len(recordings)
        decoder, head = model.spec.decoder, dict(model.spec.heads).get("vocabulary")
        assert decoder is not None and isinstance(head, spec.VocabularyHead)
        assert isinstance(decoder.positions, spec.Learned)
        self.positions, self.vocabulary = decoder.positions.length, head.vocabulary
        self.longest = options.max_length or LENGTH
        # No id is a timestamp where the checkpoint names none.
        self.first = speech.first_timestamp or self.vocabulary + 1
        self.device = next(model.parameters()).device
        self.begin = 1  # tokens of the start, the language and the task
        self.first_windows: tuple[Tensor, Tensor] | None = None  # frames, what the encoder made

    def run(self) -> list[Heard]:
        rows = range(len(self.recordings))
        if not rows:
            return []
        heard = [
            Heard(prompt)
            for prompt in prompts(self.speech, self.options, len(rows), self._languages)
        ]
        self.begin = len(heard[0].prompt)
        while active := [row for row in rows if self.at[row] < self.recordings[row].frames]:
            # Rows whose prompts are as long as each other's are written together.
            by_length: dict[int, list[int]] = {}
            begins = {row: self._prompt(row, heard[row]) for row in active}
            for row, prompt in begins.items():
                by_length.setdefault(len(prompt), []).append(row)
            limit = self.longest
            for length, together in by_length.items():
                options = self._limited(length, limit)
                ids_BT = torch.tensor([begins[row] for row in together], device=self.device)
                memory_BSD = self._heard(together)
                answers = write(self.model, ids_BT, memory_BSD, self.speech, options, self.begin)
                for row, answer in zip(together, answers, strict=True):
                    self._keep(row, answer, heard[row])
        return heard

    # -- hearing -------------------------------------------------------------------------------

    def _frames(self, row: int, at: int, length: int) -> Tensor:
        """`length` frames from `at` on, zeros behind the recording's end, as long as a window."""
        frames_NT = self.recordings[row].frames_NT[:, at : at + length]
        return F.pad(frames_NT, (0, self.window - frames_NT.shape[1]))

    def _rest(self, row: int) -> int:
        """How many frames of the current window are the recording's."""
        return min(self.recordings[row].frames - self.at[row], self.window)

    def _heard(self, rows: Sequence[int]) -> Tensor:
        """What the encoder makes of the rows' current windows, BSD."""
        frames_BNT = torch.stack(
            [
                self._frames(
                    row,
                    self.at[row],
                    self.window if self.recordings[row].tail else self._rest(row),
                )
                for row in rows
            ]
        )
        if self.first_windows is not None:
            before, memory_BSD = self.first_windows
            self.first_windows = None
            if before.shape == frames_BNT.shape and torch.equal(before, frames_BNT):
                return memory_BSD
        return self._encode(frames_BNT)

    def _encode(self, frames_BNT: Tensor) -> Tensor:
        return self.model.encode(frames_BNT.to(self.device))

    def _languages(self) -> list[int]:
        """The likeliest language token after the start token, for the first window of each."""
        known = sorted(self.speech.lang_to_id.values())
        rows = range(len(self.recordings))
        frames_BNT = torch.stack([self._frames(row, 0, self.window) for row in rows])
        memory_BSD = self._encode(frames_BNT)
        self.first_windows = frames_BNT, memory_BSD
        ids_B1 = torch.full((len(rows), 1), start_id(self.options), device=self.device)
        logits_BV = next_logits(self.model, ids_B1, memory_BSD)[:, 0]
        best_B = logits_BV[:, known].argmax(1)
        return [known[i] for i in best_B.tolist()]

    # -- writing -------------------------------------------------------------------------------

    def _prompt(self, row: int, heard: Heard) -> list[int]:
        """What the next window of a row begins with: what was written before, where it is to see
        that, then the tokens of language and task."""
        if not self.speech.condition_on_prev_tokens or self.warm[row] or not heard.segments:
            return heard.prompt
        ids: list[int] = []
        for segment in heard.segments:
            doubled = len(segment.ids) > 2 and segment.ids[-2] >= self.first
            ids += segment.ids[:-1] if doubled else segment.ids
        marker, suppressed = self.speech.prev_sot_token_id, self.options.suppress_tokens or ()
        if marker is None and len(suppressed) > 1:
            marker = suppressed[-2]  # where old checkpoints have it
        begin = [] if marker is None else [marker]
        return [*begin, *ids[-(self.positions // 2 - 1) :], *heard.prompt]

    def _limited(self, prompt: int, limit: int) -> GenerationOptions:
        """The options for prompts of this length. As in transformers, a `max_length` that leaves
        the model room grows by the prompt, window by window."""
        if self.options.max_new_tokens is not None:
            if self.options.max_new_tokens + prompt > self.positions:
                raise BadOption(
                    f"the prompt has {prompt} tokens, so `max_new_tokens` can be no more than "
                    f"{self.positions - prompt}: the model has {self.positions} positions"
                )
            return self.options
        longest = min(limit + min(self.positions // 2 - 1, prompt), self.positions)
        self.longest = max(self.longest, longest)
        return replace(self.options, max_length=longest)

    # -- keeping -------------------------------------------------------------------------------

    def _keep(self, row: int, answer: Answer, heard: Heard) -> None:
        """Adds what is finished in an answer to a row, and moves its window on."""
        heard.windows += 1
        heard.tokens += answer.tokens
        heard.retried += answer.retried
        self.warm[row] = answer.temperature >= WARM
        if answer.silent:
            heard.silent += 1
            self.at[row] += self._rest(row)
            return
        ids = answer.ids[:-1] if answer.ended else answer.ids
        segments, step = split(ids, self.first, self.at[row], self._rest(row))
        # What a text at the limit says of the rest of its window is lost, unless it is heard again.
        heard.cut += not answer.ended and step == self._rest(row)
        self.at[row] += step
        heard.segments += segments
        self.on_window(row, segments)
