"""Sound in, text with times out: an encoder hears, a decoder writes. For inference only."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from mainspring import spec
from mainspring.checkpoints.bundle import Bundle
from mainspring.checkpoints.log_mel import LogMel
from mainspring.checkpoints.speech import Transcript, front_end, settings, transcribe
from mainspring.data.audio import read_audio
from mainspring.errors import BadData, Mismatch
from mainspring.formulations import Formulation, Inference, OnDone, Prediction, Setup, Values
from mainspring.formulations.inputs import in_chunks
from mainspring.generation.timestamps import STRIDE

ROWS = 8  # recordings that are read and heard at a time

# What is tried where a text repeats itself or is unlikely: greedy first, then ever more by chance.
# The values of Radford et al. (2022, section 4.5), the compression that of tokens.
SECOND_TRIES = {
    "temperature": (0.0, 0.2, 0.4, 0.6, 0.8, 1.0),
    "compression_ratio_threshold": 1.35,
    "logprob_threshold": -1.0,
    "no_speech_threshold": 0.6,
}


def lacks(model: spec.Model) -> str | None:
    if model.encoder is None or not isinstance(model.encoder.embedding, spec.AudioEmbedding):
        return "an encoder that hears"
    if model.decoder is None or "vocabulary" not in dict(model.heads):
        return "a decoder that writes"
    return None


def untaught(*arguments: Any) -> NoReturn:
    raise Mismatch("models that hear cannot be fitted in this release, only used")


def speech_options(options: Mapping[str, Any]) -> Values:
    """The options of speech that those of a task mean."""
    given: Values = {"return_timestamps": options.get("timestamps", "yes") == "yes"}
    if options.get("language") is not None:
        given["language"] = options["language"]
    if options.get("translate") == "yes":
        given["task"] = "translate"
    if options.get("second_tries") == "yes":
        given |= SECOND_TRIES
    return given


def predict(
    bundle: Bundle,
    rows: Iterable[Values],
    setup: Setup,
    how: Inference,
    on_done: OnDone = lambda done: None,
    on_text: Callable[[str], None] | None = None,
) -> Iterator[Prediction]:
    """The text of the rows' `audio`, which are paths, with `segments` and `language`.

    `how.on_long` says what becomes of recordings longer than the model's window: all windows are
    heard one after the other, the first only, or the recording is refused.
    """
    assert how.options is not None
    given = speech_options(setup.options)
    if how.options.do_sample:
        given["temperature"] = how.options.temperature
    speech, _ = settings(bundle, given)
    mel, done, told = front_end(bundle), 0, False

    def tell(number: int, text: str) -> None:
        nonlocal told
        if on_text is not None:
            piece = text if told else text.lstrip()
            told = told or bool(piece)
            on_text(piece)

    for chunk in in_chunks(rows, 1 if on_text is not None else ROWS):
        answers = [_opened(row["audio"], mel, how) for row in chunk]
        heard = [sound for sound, answer in answers if answer.error is None]
        found = iter(transcribe(bundle, heard, (speech, how.options), tell))
        done += len(chunk)
        on_done(done)
        for _, answer in answers:
            yield answer if answer.error is not None else _answered(answer, next(found))


def _opened(file: str, mel: LogMel, how: Inference) -> tuple[np.ndarray, Prediction]:
    """The samples that are to be heard, and the answer before anything is."""
    nothing = np.zeros(0, np.float32)

    def steps(samples: int) -> int:
        return -(-mel.frames(samples) // STRIDE)

    try:
        sound = read_audio(Path(file), mel.rate)
    except BadData as error:  # its beginning could be read, or it would not have come here
        return nothing, Prediction("", stop="refused", windows=0, error=str(error))
    answer = Prediction("", source_tokens=steps(len(sound)))
    if len(sound) <= mel.window or how.on_long == "split":
        return sound, answer
    if how.on_long == "cut":
        lost = steps(len(sound) - mel.window)
        return sound[: mel.window], replace(answer, source_tokens_unread=lost)
    why = (
        f"the recording lasts {len(sound) / mel.rate:.0f} s and the model hears "
        f"{mel.window / mel.rate:.0f} s at a time"
    )
    return nothing, replace(
        answer, stop="refused", windows=0, error=why, source_tokens_unread=answer.source_tokens
    )


def _answered(answer: Prediction, found: Transcript) -> Prediction:
    counts = {
        "windows passed over as no speech": found.silent,
        "windows written more than once": found.retried,
        "windows that ended at the length limit": found.cut,
    }
    return replace(
        answer,
        value=found.text,
        stop="length" if found.cut else "eos",
        tokens=found.tokens,
        windows=found.windows,
        details={
            "language": found.language,
            "seconds": found.seconds,
            "segments": [asdict(segment) for segment in found.segments],
        },
        counts={name: count for name, count in counts.items() if count},
    )


FORMULATION = Formulation(
    "transcription",
    lacks,
    untaught,
    untaught,
    untaught,
    untaught,
    predict,
    generates=True,
    trains=False,
)
