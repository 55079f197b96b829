"""Speech of any length to tokens, one window after the other (Radford et al., 2022, section 4.5).

    ├──────── window ────────┤
    <|0.00|> … <|9.80|><|9.80|> … (unfinished)      what is behind the last pair of timestamps is
                      ├──────── window ────────┤    thrown away, and heard again by the next window

The windows, their prompts and what is kept of them are those of transformers' `generate`, and so
are the tokens. Where it mixes up the rows of a batch (after a window was tried again, or once one
recording has ended) each is treated here as if it were alone.
"""

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from mainspring import spec
from mainspring.core.model import Transformer
from mainspring.errors import BadOption, Mismatch
from mainspring.generation.options import GenerationOptions
from mainspring.generation.processors import Processor, Written
from mainspring.generation.search import Generated, generate
from mainspring.generation.speech import SpeechOptions, prompts, start_id
from mainspring.generation.timestamps import TimestampRules

STRIDE = 2  # frames that become one vector, and one step of the timestamps
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


@dataclass(frozen=True)
class Segment:
    """Tokens with their timestamps, and when they are spoken, in frames."""

    start: float
    end: float
    ids: tuple[int, ...]


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


@dataclass
class _Answer:
    """What was written to one window: `ids` with the end token, if it came to that."""

    ids: list[int]
    ended: bool
    tokens: int
    temperature: float = 0.0
    retried: bool = False
    silent: bool = False


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
        parameter = next(model.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        self.begin = 1  # tokens of the start, the language and the task
        self.first_windows: tuple[Tensor, Tensor] | None = None  # frames, what the encoder made

    def run(self) -> list[Heard]:
        rows = range(len(self.recordings))
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
                answers = self._write(together, [begins[row] for row in together], options)
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
        return self.model.encode(frames_BNT.to(self.device, self.dtype))

    def _languages(self) -> list[int]:
        """The likeliest language token after the start token, for the first window of each."""
        known = sorted(self.speech.lang_to_id.values())
        rows = range(len(self.recordings))
        frames_BNT = torch.stack([self._frames(row, 0, self.window) for row in rows])
        memory_BSD = self._encode(frames_BNT)
        self.first_windows = frames_BNT, memory_BSD
        ids_B1 = torch.full((len(rows), 1), start_id(self.options), device=self.device)
        logits_BV = self._logits(ids_B1, memory_BSD)[:, 0]
        best_B = logits_BV[:, known].argmax(1)
        return [known[i] for i in best_B.tolist()]

    def _logits(self, ids_BT: Tensor, memory_BSD: Tensor) -> Tensor:
        return self.model.read("vocabulary", self.model.decode(ids_BT, memory_BSD)).float()

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

    def _write(
        self, rows: Sequence[int], begins: Sequence[list[int]], options: GenerationOptions
    ) -> list[_Answer]:
        """What is written to the current windows of some rows, whose prompts are equally long."""
        speech = self.speech
        memory_BSD = self._heard(rows)
        ids_BT = torch.tensor(begins, device=self.device)
        silence = [0.0] * len(rows)
        if speech.no_speech_threshold is not None:
            silence = self._silence(ids_BT, memory_BSD)
        answers: dict[int, _Answer] = {}
        left = list(range(len(rows)))
        for temperature in speech.temperatures:
            at = torch.tensor(left, device=self.device)
            made, nats = self._generate(ids_BT[at], memory_BSD[at], options, temperature)
            again = []
            for place, row in enumerate(left):
                new = made.new_ids(place)
                answer = _Answer(new, made.stops[place] == "eos", len(new), temperature)
                if row in answers:
                    answer.tokens += answers[row].tokens
                    answer.retried = True
                answers[row] = answer
                unlikely = speech.logprob_threshold is not None and (
                    nats[place] < speech.logprob_threshold
                )
                repeats = speech.compression_ratio_threshold is not None and (
                    self._compression(new) > speech.compression_ratio_threshold
                )
                threshold = speech.no_speech_threshold
                answer.silent = unlikely and threshold is not None and silence[row] > threshold
                if (unlikely or repeats) and not answer.silent:
                    again.append(row)
            left = again
            if not left:
                break
        return [answers[row] for row in range(len(rows))]

    def _generate(
        self, ids_BT: Tensor, memory_BSD: Tensor, options: GenerationOptions, temperature: float
    ) -> tuple[Generated, list[float]]:
        """What is generated, and its mean log-probability for each row where that is asked for."""
        prompt = ids_BT.shape[1]
        options = replace(
            options,
            do_sample=temperature > 0,
            temperature=temperature or 1.0,
            num_beams=1 if temperature > 0 else options.num_beams,
        )
        rules: list[Processor] = []
        if self.speech.return_timestamps:
            if not options.eos_ids:
                raise BadOption("timestamps need an end-of-text token (`eos_token_id`)")
            latest = self.speech.max_initial_timestamp_index
            rules.append(TimestampRules(self.first, options.eos_ids[0], prompt, latest))
        likelihood = _Likelihood(len(ids_BT))
        if self.speech.logprob_threshold is not None and options.num_beams == 1:
            rules.append(likelihood.see)
        made = generate(
            self.model,
            memory_BSD,
            None,
            # The start token is the first of the prompt: none is put before it.
            replace(options, decoder_start_token_id=tuple(ids_BT[:, 0].tolist())),
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

    def _silence(self, ids_BT: Tensor, memory_BSD: Tensor) -> list[float]:
        """How likely each window is no speech: the token before `<|notimestamps|>`, as the first
        after the start of the transcript."""
        marker = self.speech.no_timestamps_token_id
        if marker is None:
            raise BadOption("`no_speech_threshold` needs a checkpoint with timestamps")
        logits_BTV = self._logits(ids_BT, memory_BSD)
        shares_BV = logits_BTV[:, ids_BT.shape[1] - self.begin].softmax(1)
        return shares_BV[:, marker - 1].tolist()

    def _compression(self, ids: Sequence[int]) -> float:
        """How many times shorter zlib makes the tokens' bytes. The paper's own program compresses
        the text; the thresholds differ accordingly (2.4 there, 1.35 here)."""
        width = int(math.log2(self.vocabulary) / 8) + 1
        plain = b"".join(i.to_bytes(width, "little") for i in ids)
        return len(plain) / len(zlib.compress(plain))

    # -- keeping -------------------------------------------------------------------------------

    def _keep(self, row: int, answer: _Answer, heard: Heard) -> None:
        """Adds what is finished in an answer to a row, and moves its window on."""
        heard.windows += 1
        heard.tokens += answer.tokens
        heard.retried += answer.retried
        self.warm[row] = answer.temperature >= WARM
        if answer.silent:
            heard.silent += 1
            self.at[row] += self._rest(row)
            return
        heard.cut += not answer.ended
        ids = answer.ids[:-1] if answer.ended else answer.ids
        segments, step = split(ids, self.first, self.at[row], self._rest(row))
        self.at[row] += step
        heard.segments += segments
        self.on_window(row, segments)


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


def split(ids: Sequence[int], first: int, at: int, frames: int) -> tuple[list[Segment], int]:
    """The segments in what was written to a window, and how many frames the next one is further on.

    Tokens from `first` on are timestamps; the window begins at frame `at` and holds `frames`.
    Each pair of timestamps ends a segment; what follows the last pair is thrown away and heard
    again, unless it ends in a single timestamp, which says that nothing more is spoken.
    """
    is_time = [i >= first for i in ids]
    ends = [i for i in range(1, len(ids)) if is_time[i - 1] and is_time[i]]

    def frame(token: int) -> int:
        return at + (token - first) * STRIDE

    if not ends:
        # The whole is one segment. It ends at its last timestamp, unless that is the first of all.
        times = [i for i in ids if i >= first]
        whole = at + frames // STRIDE * STRIDE
        end = frame(times[-1]) if times and times[-1] != first else whole
        return [Segment(at, end, tuple(ids))], frames
    alone = is_time[-2:] == [False, True]
    if alone:
        ends.append(len(ids))
    else:
        ends[-1] += 1  # the last segment keeps both timestamps of the pair it ends with
    segments, begin = [], 0
    for end in ends:
        part = tuple(ids[begin:end])
        last = part[-2] if end == ends[-1] and not alone else part[-1]
        segments.append(Segment(frame(part[0]), frame(last), part))
        begin = end
    return segments, frames if alone else (ids[begin - 2] - first) * STRIDE
