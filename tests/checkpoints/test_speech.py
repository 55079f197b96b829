"""Recordings to text with times, against `transformers`' feature extractor, `generate` and
tokenizer on the same folder."""

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import nano
from mainspring.checkpoints.bundle import Bundle, load
from mainspring.errors import BadOption, Mismatch
from whispering import END, RATE, TIME, speech, write_checkpoint

PRECISE = {"time_precision": 0.05, "time_precision_features": 0.025}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("whisper")


@pytest.fixture(scope="module")
def ours(place: Path) -> Bundle:
    write_checkpoint(place)
    return load(place)


def opened(folder: Path) -> Any:
    """The model that `transformers` opens."""
    from transformers import WhisperForConditionalGeneration

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return WhisperForConditionalGeneration.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def theirs(ours: Bundle, place: Path) -> Any:
    return opened(place)


def reference(theirs: Any, folder: Path, sound: np.ndarray, **options: Any) -> Any:
    """(text, segments) as `transformers` has them."""
    from transformers import WhisperFeatureExtractor, WhisperTokenizer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        extractor = WhisperFeatureExtractor.from_pretrained(folder)
        tokenizer = WhisperTokenizer.from_pretrained(folder)
        long = {"truncation": False, "padding": "longest"} if len(sound) > RATE else {}
        features = extractor(sound, sampling_rate=RATE, return_tensors="pt", **long)
        found = theirs.generate(
            features["input_features"], return_segments=True, **PRECISE, **options
        )

        def text(ids: Any) -> str:
            return tokenizer.decode(ids, skip_special_tokens=True).strip()

        segments = [
            {
                "start": round(min(float(s["start"]), len(sound) / RATE), 2),
                "end": round(min(float(s["end"]), len(sound) / RATE), 2),
                "text": text(s["tokens"]),
            }
            for s in found["segments"][0]
            if text(s["tokens"])
        ]
        return text(found["sequences"][0]), segments


def told(transcript: Any) -> Any:
    return transcript.text, [vars(segment) for segment in transcript.segments]


@pytest.mark.parametrize("seconds", [1, 3.7])
def test_texts_and_times_equal_those_of_transformers(
    theirs: Any, ours: Bundle, place: Path, seconds: float
) -> None:
    sound = speech(seconds, 1)
    options = {"language": "de", "task": "transcribe"}
    wanted = reference(theirs, place, sound, return_timestamps=True, **options)
    [found] = ours.transcribe(sound, language="de")
    assert told(found) == wanted and len(wanted[1]) > 1
    assert found.language == "de" and found.seconds == seconds
    if seconds == 1:
        wanted = reference(theirs, place, sound, return_timestamps=False, **options)
        [found] = ours.transcribe(sound, language="german", return_timestamps=False)
        assert told(found) == wanted


def test_recordings_do_not_depend_on_one_another(ours: Bundle) -> None:
    sounds = [speech(seconds, 3) for seconds in (0.4, 2.5, 1.0, 1.3, 0.01)]
    together = ours.transcribe(*sounds)
    assert together == [ours.transcribe(sound)[0] for sound in sounds]
    for sound, found in zip(sounds, together, strict=True):
        times = [time for s in found.segments for time in (s.start, s.end)]
        assert times == sorted(times) and all(t <= len(sound) / RATE for t in times)
        assert found.language in ("en", "de", "fr", "zh") and found.windows >= 1


def test_files_of_any_rate(ours: Bundle, tmp_path: Path) -> None:
    file = tmp_path / "sound.flac"
    sound = speech(1.5, 4, rate=8000)
    soundfile.write(file, sound, 8000, subtype="PCM_24")
    [read], [given] = (
        ours.transcribe(file),
        ours.transcribe(torch.tensor(sound), sampling_rate=8000),
    )
    assert read.seconds == given.seconds == 1.5 and read.text


def test_what_is_asked_for(ours: Bundle) -> None:
    sound = speech(1, 1)
    asked = ({"language": "en"}, {"language": "zh"}, {"language": "en", "task": "translate"})
    sounds = [speech(1, seed) for seed in range(4)]
    texts = {str([found.text for found in ours.transcribe(*sounds, **more)]) for more in asked}
    assert len(texts) == 3
    long = speech(3, 2)
    [plain], [wide] = ours.transcribe(long), ours.transcribe(long, num_beams=3)
    assert plain.text != wide.text
    several = ours.transcribe(sound, long, sound, language=["en", "de", "zh"])
    assert [found.language for found in several] == ["en", "de", "zh"]
    assert several[1] == ours.transcribe(long, language="de")[0]
    [short] = ours.transcribe(sound, max_new_tokens=3)
    assert short.cut >= 1 and short.tokens <= 3 * short.windows
    with pytest.raises(BadOption, match="1 languages are given for 2 recordings"):
        ours.transcribe(sound, sound, language=["en"])


def test_a_text_is_as_long_as_the_model_can_write(ours: Bundle) -> None:
    bare = {k: v for k, v in ours.generation.items() if k != "max_length"}
    [found] = replace(ours, generation=bare).transcribe(speech(1, 1), return_timestamps=False)
    assert found == ours.transcribe(speech(1, 1), return_timestamps=False)[0]


def test_english_only(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, is_multilingual=False, lang_to_id=None, task_to_id=None)
    ours, theirs = load(tmp_path), opened(tmp_path)
    [found] = ours.transcribe(speech(2.2, 1))
    assert told(found) == reference(theirs, tmp_path, speech(2.2, 1), return_timestamps=True)
    assert found.language is None
    with pytest.raises(BadOption, match="English only"):
        ours.transcribe(speech(1), language="de")


def test_saved_and_opened_again(theirs: Any, ours: Bundle, place: Path, tmp_path: Path) -> None:
    ours.save(tmp_path)
    for name in ("preprocessor_config.json", "normalizer.json", "tokenizer.json"):
        assert (tmp_path / name).read_bytes() == (place / name).read_bytes()
    stated = json.loads((tmp_path / "generation_config.json").read_text())
    assert stated == ours.generation and stated["lang_to_id"]
    assert load(tmp_path).transcribe(speech(1.2)) == ours.transcribe(speech(1.2))
    options = {"return_timestamps": True, "language": "en"}
    wanted = reference(theirs, place, speech(1, 1), **options)
    assert reference(opened(tmp_path), tmp_path, speech(1, 1), **options) == wanted
    # What stands around a text is what the file says, and what transformers puts there.
    assert ours.tokenizer is not None
    assert ours.tokenizer.encode("ab")[-1] == END and ours.tokenizer.vocabulary > TIME


def test_what_cannot_hear(ours: Bundle) -> None:
    with pytest.raises(Mismatch, match="does not hear"):
        nano.bundle().transcribe(speech(1))
    with pytest.raises(Mismatch, match="no tokenizer"):
        replace(ours, tokenizer=None).transcribe(speech(1))
    other = {"preprocessor_config.json": b'{"feature_size": 4, "chunk_length": 2}'}
    with pytest.raises(Mismatch, match="a window has 200 frames, and the model reads 40"):
        replace(ours, extra_files=other).transcribe(speech(1))
