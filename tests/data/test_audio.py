"""Sound files of many formats and rates."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring.data import audio
from mainspring.data.audio import SUFFIXES, at_rate, check_audio, read_audio
from mainspring.errors import BadData, BadOption, Missing


def tone(rate: int, seconds: float = 0.5, pitch: float = 440) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * pitch * np.arange(int(rate * seconds)) / rate)).astype("f4")


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.sampled_from((8000, 11025, 22050, 44100, 48000)), st.sampled_from((8000, 16000, 24000)))
def test_a_tone_is_the_same_at_any_rate(given: int, rate: int) -> None:
    found = at_rate(tone(given), given, rate)
    wanted = tone(rate)
    assert abs(len(found) - len(wanted)) <= 1 and found.dtype == np.float32
    inside = slice(rate // 20, -rate // 20)  # at the ends the sound begins and stops
    assert np.abs(found[: len(wanted)][inside] - wanted[: len(found)][inside]).max() < 2e-3


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3", ".aiff"])
def test_formats(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"sound{suffix}"
    both = np.stack([tone(16000), np.zeros(8000, "f4")], 1)
    soundfile.write(file, both, 16000)
    check_audio(file)
    found = read_audio(file, 16000)
    assert suffix in SUFFIXES and len(found) >= 8000
    # The channels' mean; some formats lose a little, or begin a little later.
    power = np.sqrt((found**2).mean() * len(found) / 8000)
    assert power == pytest.approx(0.25 / np.sqrt(2), rel=0.02)
    if suffix in (".wav", ".flac"):
        np.testing.assert_allclose(found, both.mean(1), atol=1e-4)


def test_what_is_no_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, empty = tmp_path / "text.wav", tmp_path / "empty.wav"
    text.write_text("not sound")
    soundfile.write(empty, np.zeros(0, "f4"), 16000)
    for check in (check_audio, lambda file: read_audio(file, 16000)):
        with pytest.raises(BadData, match=r"text.wav: not a sound file that can be read"):
            check(text)
        with pytest.raises(BadData, match=r"empty.wav: no sound in it"):
            check(empty)
    with pytest.raises(BadData, match="no such file"):
        check_audio(tmp_path / "gone.wav")
    with pytest.raises(BadData, match="no finite numbers"):
        at_rate(np.array([0.1, np.nan], "f4"), 16000, 16000)
    with pytest.raises(BadOption, match="one channel"):
        at_rate(np.zeros((2, 5)), 16000, 16000)
    with pytest.raises(BadOption, match="rate must be above 0"):
        at_rate(np.zeros(5), 0, 16000)
    monkeypatch.setitem(__import__("sys").modules, "soxr", None)
    with pytest.raises(Missing, match=r"mainspring\[speech\]"):
        audio.at_rate(np.zeros(5), 8000, 16000)
