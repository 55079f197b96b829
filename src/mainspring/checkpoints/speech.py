"""Recordings to text with times, by a model that hears (Whisper).

samples ── log_mel ──> frames ── generation.long_form ──> tokens ── tokenizer ──> text, segments
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mainspring import spec
from mainspring.checkpoints.log_mel import LogMel, read_log_mel
from mainspring.errors import BadOption, Mismatch
from mainspring.generation import long_form, speech
from mainspring.generation.long_form import Heard, Recording
from mainspring.generation.options import GenerationOptions
from mainspring.generation.speech import SpeechOptions
from mainspring.generation.timestamps import Segment

if TYPE_CHECKING:
    from mainspring.checkpoints.bundle import Bundle

ROWS = 8  # recordings that are heard side by side


@dataclass(frozen=True)
class Spoken:
    """A piece of text, and when it is spoken, in seconds."""

    start: float
    end: float
    text: str


@dataclass(frozen=True)
class Transcript:
    """What is spoken in one recording of so many `seconds`.

    `language` is the code of the language that was given or found out, None where the checkpoint
    tells none. `windows` were heard; of these `silent` were passed over as no speech, `retried`
    were written more than once, and `cut` ended at the length limit, so that text may be missing.
    `tokens` counts what was written.
    """

    text: str
    segments: tuple[Spoken, ...]
    language: str | None
    seconds: float
    windows: int
    silent: int
    retried: int
    cut: int
    tokens: int


def front_end(bundle: "Bundle") -> LogMel:
    """What turns samples into the frames that the model reads."""
    window = long_form.window_frames(bundle.spec)
    assert bundle.spec.encoder is not None
    embedding = bundle.spec.encoder.embedding
    assert isinstance(embedding, spec.AudioEmbedding)
    mel = read_log_mel(bundle.extra_files, embedding.bins)
    if mel.window // mel.hop != window:
        raise Mismatch(
            f"preprocessor_config.json: a window has {mel.window // mel.hop} frames, and the model "
            f"reads {window}"
        )
    return mel


def settings(bundle: "Bundle", given: Mapping[str, Any]) -> tuple[SpeechOptions, GenerationOptions]:
    """The options `given` over the checkpoint's. A model that knows several tasks transcribes
    unless told otherwise, and a text may be as long as the model can write."""
    stated, decoder = bundle.generation, bundle.spec.decoder
    assert decoder is not None and isinstance(decoder.positions, spec.Learned)
    longest = {**stated, **given}
    more: dict[str, Any] = {}
    if longest.get("max_new_tokens") is None and longest.get("max_length") is None:
        more["max_length"] = decoder.positions.length
    if stated.get("task_to_id") and stated.get("is_multilingual") is not False:
        more["task"] = stated.get("task") or "transcribe"
    wanted = {name: value for name, value in given.items() if value is not None}
    return speech.merge(stated, {**more, **wanted})


def decoding(bundle: "Bundle", given: Mapping[str, Any]) -> GenerationOptions:
    """The options of decoding alone, as verbs are given them: a `temperature` is that of drawing
    by chance, where this is asked for."""
    drawn = given.get("do_sample")
    mine = {name: value for name, value in given.items() if drawn or name != "temperature"}
    heard_as, options = settings(bundle, mine)
    [temperature] = heard_as.temperatures
    return replace(options, do_sample=temperature > 0, temperature=temperature or 1.0)


def transcribe(
    bundle: "Bundle",
    sounds: Sequence[np.ndarray],
    options: tuple[SpeechOptions, GenerationOptions],
    on_text: Callable[[int, str], object] = lambda number, text: None,
) -> list[Transcript]:
    """What is spoken in each of `sounds`, samples (T) at the front end's rate.

    `on_text(number, text)` is called with the text that each window adds to a recording. Recordings
    longer than a window always have timestamps; the others have them where the options say so.
    """
    mel, tokenizer = front_end(bundle), bundle.tokenizer
    if tokenizer is None:
        raise Mismatch("this checkpoint has no tokenizer, so its tokens have no text")
    heard_as, decoding = options
    first = heard_as.first_timestamp or tokenizer.vocabulary
    languages = heard_as.language
    if isinstance(languages, tuple) and len(languages) != len(sounds):
        raise BadOption(f"{len(languages)} languages are given for {len(sounds)} recordings")

    def text_of(segments: Sequence[Segment]) -> str:
        return tokenizer.decode(i for segment in segments for i in segment.ids if i < first)

    def transcript(sound: np.ndarray, heard: Heard) -> Transcript:
        seconds = len(sound) / mel.rate
        known = {*heard_as.lang_to_id.values()} & {*heard.prompt}
        spoken = [
            Spoken(_seconds(s.start, mel, seconds), _seconds(s.end, mel, seconds), text)
            for s in heard.segments
            if (text := text_of([s]).strip())
        ]
        return Transcript(
            text_of(heard.segments).strip(),
            tuple(spoken),
            heard_as.code(known.pop()) if known else None,
            round(seconds, 3),
            heard.windows,
            heard.silent,
            heard.retried,
            heard.cut,
            heard.tokens,
        )

    found: dict[int, Transcript] = {}
    is_long = [len(sound) > mel.window for sound in sounds]
    for long in (False, True):
        numbers = [number for number, kind in enumerate(is_long) if kind == long]
        for at in range(0, len(numbers), ROWS):
            batch = numbers[at : at + ROWS]
            theirs = heard_as
            if isinstance(languages, tuple):
                theirs = replace(heard_as, language=tuple(languages[number] for number in batch))
            together = long_form.listen(
                bundle.model,
                [_recording(sounds[number], mel, long) for number in batch],
                theirs,
                decoding,
                lambda row, new, batch=batch: on_text(batch[row], text_of(new)),  # type: ignore[misc]
            )
            for number, heard in zip(batch, together, strict=True):
                found[number] = transcript(sounds[number], heard)
    return [found[number] for number in range(len(sounds))]


def _recording(sound: np.ndarray, mel: LogMel, long: bool) -> Recording:
    """Frames of a recording; a short one is filled up with silence, which its window hears.

    Its text ends with its sound, as with the paper's own program; in transformers the silence may
    open a window of its own.
    """
    wave = torch.from_numpy(sound)
    if long:
        frames_NT = mel.features(wave)
        return Recording(frames_NT, frames_NT.shape[1])
    return Recording(mel([wave])[0][0], min(mel.frames(len(sound)), mel.window // mel.hop), True)


def _seconds(frames: float, mel: LogMel, most: float) -> float:
    """The time of a frame; windows are filled up, so timestamps may lie behind the end."""
    return round(min(frames * mel.hop / mel.rate, most), 2)
