"""What is written of speech against `transformers`' own `generate` for Whisper."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from mainspring.checkpoints.bundle import Bundle
from mainspring.errors import BadOption, Mismatch
from mainspring.generation import speech
from mainspring.generation.long_form import Recording, listen
from mainspring.generation.options import GenerationOptions
from mainspring.generation.timestamps import Segment, split
from speech_oracle import generated, mask, pair, sound
from whispering import END, ENGLISH, PLAIN, START, TIME, TRANSLATE

SEEDS = (1, 6)


def same(seed: int, features: torch.Tensor, keep: Any = None, kind: str = "multilingual", **more):
    """The ids, once both agree on them."""
    theirs, ours = pair(seed, kind)
    wanted = generated(theirs, features, keep, **more)
    found = ours.generate(features, keep, **more)
    assert found.tolist() == wanted
    return wanted


def heard(ours: Bundle, recordings: list[Recording], **more: Any) -> list[Any]:
    return listen(ours.model, recordings, *speech.merge(ours.generation, more))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "more",
    [
        {},  # the language is detected
        {"language": "german"},
        {"language": ["de", "<|fr|>"], "task": "translate"},
        {"task": "transcribe", "return_timestamps": True},
        {"language": "en", "num_beams": 3},
        {"num_beams": 2, "return_timestamps": True, "length_penalty": 0.5},
        {"max_new_tokens": 5, "language": "zh"},
        {"repetition_penalty": 1.5, "no_repeat_ngram_size": 2, "return_timestamps": True},
    ],
)
def test_one_window(seed: int, more: dict[str, Any]) -> None:
    same(seed, sound(2, 40, seed), **more)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"language": "de", "task": "transcribe"},
        {"num_beams": 2, "language": "en"},
        {"condition_on_prev_tokens": True, "language": "fr"},
    ],
)
def test_many_windows(seed: int, more: dict[str, Any]) -> None:
    frames = sound(2, 120, seed)
    wanted = same(seed, frames[:1], return_timestamps=True, **more)
    assert sum(i >= TIME for i in wanted[0]) > 8
    if not more.get("condition_on_prev_tokens"):
        same(seed, frames, mask(120, 120, 67), return_timestamps=True, **more)


def test_one_language() -> None:
    same(1, sound(2, 40), kind="english")
    same(1, sound(1, 100), kind="english", return_timestamps=True)
    _, ours = pair(1, "english")
    with pytest.raises(BadOption, match="knows English only"):
        ours.generate(sound(1, 40), language="de")


def test_an_old_checkpoint() -> None:
    same(1, sound(2, 40), kind="old")
    same(1, sound(2, 40), kind="old", return_timestamps=True)


def test_old_settings_give_way_to_options() -> None:
    _, ours = pair(1)
    stated = {**ours.generation, "forced_decoder_ids": [[1, None], [2, TRANSLATE]]}
    for given, wanted in (
        ({}, [START, ENGLISH, TRANSLATE, PLAIN]),  # detected
        ({"language": "fr"}, [START, ENGLISH + 2, TRANSLATE + 1, PLAIN]),
        ({"task": "translate", "return_timestamps": True}, [START, ENGLISH, TRANSLATE]),
    ):
        settings = speech.merge(stated, given)
        assert speech.prompts(*settings, 1, lambda: [ENGLISH]) == [wanted]


# Tried again at the same temperature, a window gets the same text: what counts is when, and what is
# passed over.
THRESHOLDS = [
    {"temperature": (0.0, 0.0), "logprob_threshold": -0.35, "compression_ratio_threshold": 0.95},
    {
        "logprob_threshold": -0.32,
        "no_speech_threshold": 1e-4,
        "condition_on_prev_tokens": True,
    },
]


@pytest.mark.parametrize("more", THRESHOLDS)
def test_windows_that_are_tried_again_or_passed_over(more: dict[str, Any]) -> None:
    frames = sound(1, 110, 2)
    for seed in SEEDS:
        same(seed, frames, return_timestamps=True, language="en", **{"temperature": 0.0, **more})


def test_a_row_does_not_depend_on_those_beside_it() -> None:
    lengths, told = (110, 70, 30), []
    rows = [Recording(frames, n) for frames, n in zip(sound(3, 110, 2), lengths, strict=True)]
    _, ours = pair(6)
    for more in THRESHOLDS:
        together = heard(ours, rows, language="en", **more)
        assert together == [
            heard(ours, [row], language="en", return_timestamps=True, **more)[0] for row in rows
        ]
        told.append([sum(getattr(h, what) for h in together) for what in ("retried", "silent")])
    assert told[0][0] and not told[0][1] and told[1][1]


def test_drawn_by_chance() -> None:
    _, ours = pair(6)
    row = [Recording(sound(1, 100)[0], 100)]
    settings = {"temperature": (0.0, 1.0), "logprob_threshold": 0.0, "seed": 3}
    [first], [again] = (heard(ours, row, **settings) for _ in range(2))
    assert first == again and first.retried == first.windows
    [greedy] = heard(ours, row)
    assert first.ids != greedy.ids
    with pytest.raises(BadOption, match="needs a `logprob_threshold`"):
        heard(ours, row, no_speech_threshold=0.5)


def test_the_end_of_a_recording_ends_the_text() -> None:
    """Frames after the end are heard with the last window where they are silence, and never open a
    window of their own."""
    _, ours = pair(6)
    frames = sound(1, 40)[0]
    [whole] = heard(ours, [Recording(frames, 40)], return_timestamps=True)
    [short] = heard(ours, [Recording(frames, 20, tail=True)], return_timestamps=True)
    assert short.segments == whole.segments[: len(short.segments)]
    assert short.windows <= whole.windows


def test_windows_are_told() -> None:
    _, ours = pair(1)
    told: list[tuple[int, Segment]] = []
    rows = [Recording(frames, 100) for frames in sound(2, 100)]
    settings = speech.merge(ours.generation, {"language": "de"})
    found = listen(ours.model, rows, *settings, lambda row, new: told.extend((row, s) for s in new))
    for row, of_row in enumerate(found):
        assert [segment for number, segment in told if number == row] == of_row.segments
        starts = [segment.start for segment in of_row.segments]
        assert starts == sorted(starts)


def test_segments() -> None:
    def times(ids: list[int], at: int = 0) -> tuple[list[tuple[float, float]], int]:
        segments, step = split(ids, TIME, at, 40)
        assert [i for s in segments for i in s.ids] == ids[: sum(len(s.ids) for s in segments)]
        return [(s.start, s.end) for s in segments], step

    t = [TIME + i for i in range(21)]
    assert times([t[0], 1, t[4], t[4], 2, t[9]]) == ([(0, 8), (8, 18)], 40)
    assert times([t[1], 1, t[4], t[4], 2, t[9], t[9]], 100) == ([(102, 108), (108, 118)], 18)
    # What follows the last pair is heard again.
    assert times([t[1], 1, t[4], t[4], 2, 3]) == ([(2, 8)], 8)
    assert times([t[0], 1, t[7]]) == ([(0, 14)], 40)
    assert times([t[0], 1, 2]) == ([(0, 40)], 40)
    assert times([1, 2], 40) == ([(40, 80)], 40)
    assert times([]) == ([(0, 40)], 40)


def test_what_cannot_be() -> None:
    theirs, ours = pair(1)
    long = sound(2, 100)
    with pytest.raises(BadOption, match="attention_mask"):
        ours.generate(long)
    with pytest.raises(BadOption, match="did you mean `transcribe`"):
        ours.generate(long[:1], task="transcripe")
    with pytest.raises(BadOption, match="unknown language `klingon`"):
        ours.generate(long[:1], language="klingon")
    with pytest.raises(BadOption, match="2 languages are given for 1"):
        ours.generate(long[:1], language=["de", "en"])
    with pytest.raises(BadOption, match="unknown generation option `languge`"):
        ours.generate(long[:1], languge="de")
    with pytest.raises(BadOption, match="can be no more than 36"):
        ours.generate(long[:1, :, :40], language="de", max_new_tokens=37)
    with pytest.raises(BadOption, match="timestamps cannot be told"):
        settings = {k: v for k, v in ours.generation.items() if k != "no_timestamps_token_id"}
        replace(ours, generation=settings).generate(long[:1])
    with pytest.raises(Mismatch, match="does not hear"):
        from generation_oracle import t5

        options = GenerationOptions(decoder_start_token_id=0)
        listen(t5("plain")[1].model, [], speech.SpeechOptions(), options)
    assert END in ours.generation["begin_suppress_tokens"] and theirs is not None
