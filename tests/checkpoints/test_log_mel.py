"""The front end against `transformers`' feature extractor for Whisper, on made and real sound."""

import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring.checkpoints.log_mel import FILE, PROCESSOR_FILE, LogMel, mel_filters, read_log_mel
from mainspring.data.audio import read_audio
from mainspring.errors import BadWeights, Mismatch


def theirs(**more: Any) -> Any:
    from transformers import WhisperFeatureExtractor

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return WhisperFeatureExtractor(**more)


def tone(samples: int, seed: int) -> np.ndarray:
    """Sound whose pitch and loudness change, with noise and a silence in it."""
    rng, at = np.random.default_rng(seed), np.arange(samples) / 16000
    pitch = 200 * 2 ** (3 * rng.random())
    wave = np.sin(2 * np.pi * pitch * at * (1 + at / 60)) * np.exp(-3 * (at % 1.7))
    wave += 0.01 * rng.standard_normal(samples)
    wave[samples // 3 : samples // 2] = 0
    return (0.4 * wave).astype(np.float32)


def close(ours: torch.Tensor, wanted: Any) -> None:
    torch.testing.assert_close(ours, torch.as_tensor(wanted), atol=1e-5, rtol=1e-5)


def test_windows_equal_those_of_transformers() -> None:
    sounds = [tone(n, n) for n in (1, 150, 16000, 70123, 480000)]
    sounds += [np.zeros(800, np.float32), np.ones(400, np.float32)]
    found = theirs()(sounds, sampling_rate=16000, return_attention_mask=True, return_tensors="pt")
    features, mask = LogMel()(sounds)
    close(features, found["input_features"])
    assert torch.equal(mask, found["attention_mask"].long())


def test_long_sound_equals_that_of_transformers() -> None:
    sounds = [tone(n, n) for n in (700123, 20000)]
    for batch in (sounds, sounds[:1]):
        found = theirs()(
            batch,
            sampling_rate=16000,
            truncation=False,
            padding="longest",
            return_attention_mask=True,
            return_tensors="pt",
        )
        features, mask = LogMel()(batch)
        close(features, found["input_features"])
        assert torch.equal(mask, found["attention_mask"].long())


@settings(max_examples=10, deadline=None, derandomize=True)
@given(
    st.fixed_dictionaries(
        {
            "feature_size": st.sampled_from((4, 80, 128)),
            "sampling_rate": st.sampled_from((8000, 16000, 22050)),
            "hop_length": st.sampled_from((80, 160)),
            "n_fft": st.sampled_from((256, 400)),
            "chunk_length": st.sampled_from((1, 2)),
        }
    ),
    st.integers(1, 40000),
)
def test_every_setting(stated: dict[str, int], samples: int) -> None:
    front = read_log_mel({FILE: json.dumps(stated).encode()}, stated["feature_size"])
    sound = tone(samples, 1)
    extractor = theirs(**stated)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = extractor(
            sound,
            sampling_rate=stated["sampling_rate"],
            truncation=False,
            max_length=max(samples, front.window),
            return_tensors="pt",
        )
    close(front([sound])[0], found["input_features"])


def test_the_filters_are_those_of_whisper() -> None:
    filters = mel_filters(80, 400, 16000)
    assert filters.shape == (80, 201)
    # Of the table that OpenAI's program brings (mel_filters.npz, `mel_80`).
    np.testing.assert_allclose(filters[0, 1], 0.02486259490251541, rtol=1e-6)
    assert filters[0, 0] == filters[0, 2] == 0 and (filters >= 0).all()


def test_real_speech(shared_data: Path, tmp_path: Path) -> None:
    archives = sorted((shared_data / "speech").glob("*/test.zip"))
    if not archives:
        pytest.skip("no recordings among the real data")
    sounds = []
    for archive in archives:
        with zipfile.ZipFile(archive) as members:
            names = [name for name in members.namelist() if name.endswith(".flac")][:2]
            files = [Path(members.extract(name, tmp_path / archive.parent.name)) for name in names]
            sounds += [read_audio(file, 16000) for file in files]
    features, _ = LogMel()(sounds)
    found = theirs()(sounds, sampling_rate=16000, return_tensors="pt")
    close(features, found["input_features"])


def test_what_checkpoints_say() -> None:
    assert read_log_mel({}, 128) == LogMel(128)
    kind = {"feature_extractor_type": "WhisperFeatureExtractor"}
    nested = json.dumps({"feature_extractor": {**kind, "hop_length": 80}}).encode()
    assert read_log_mel({PROCESSOR_FILE: nested}, 80) == LogMel(hop=80)
    plain = {**kind, "nb_max_frames": 3000, "n_samples": 480000, "return_attention_mask": False}
    assert read_log_mel({FILE: json.dumps(plain).encode()}, 80) == LogMel()

    def refused(stated: Any, error: type[Exception], told: str) -> None:
        with pytest.raises(error, match=told):
            read_log_mel(
                {FILE: stated if isinstance(stated, bytes) else json.dumps(stated).encode()}, 80
            )

    refused({"feature_extractor_type": "SpeechT5FeatureExtractor"}, Mismatch, "SpeechT5")
    refused({**kind, "dither": 0.1}, Mismatch, "`dither` 0.1 is not supported")
    refused({**kind, "feature_size": 128}, Mismatch, "makes 128 mel bands, and the model reads 80")
    refused(b"{", BadWeights, "not valid JSON")
