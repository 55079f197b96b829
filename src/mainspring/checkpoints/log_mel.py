"""Log-mel frames of sound, as Whisper reads them (Radford et al., 2022, section 2.2).

samples ── short-time Fourier transform ──> power ── mel filters ──> log10 ──> about -1..1

The settings are those of `preprocessor_config.json`, the numbers those of transformers'
`WhisperFeatureExtractor`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mainspring.errors import BadWeights, Mismatch

FILE, PROCESSOR_FILE = "preprocessor_config.json", "processor_config.json"
HIGHEST = 8000.0  # Hz, whatever the sampling rate
RANGE = 8.0  # what lies further below the loudest value, in powers of ten, is cut off
BLOCK = 3000  # frames that are computed at a time


@dataclass(frozen=True)
class LogMel:
    """`bins` mel bands of `points` samples every `hop` samples; `rate` samples a second; a window
    of the model is `seconds` long. Quiet is `padding`."""

    bins: int = 80
    rate: int = 16000
    hop: int = 160
    points: int = 400
    seconds: float = 30
    padding: float = 0.0

    @property
    def window(self) -> int:
        """Samples of a window."""
        return int(self.seconds * self.rate)

    def frames(self, samples: int) -> int:
        """How many frames have sound of so many samples in them."""
        return -(-samples // self.hop)

    def __call__(self, sounds: Sequence[Tensor | np.ndarray]) -> tuple[Tensor, Tensor]:
        """Features (rows, bins, frames), float32, and their mask (rows, frames), 1 where there is
        sound: all as long as the longest, and at least a window."""
        waves = [torch.as_tensor(sound, dtype=torch.float32) for sound in sounds]
        longest = max(self.window, *(len(wave) for wave in waves))
        padded = [F.pad(wave, (0, longest - len(wave)), value=self.padding) for wave in waves]
        features = torch.stack([self.features(wave) for wave in padded])
        ends = torch.tensor([[self.frames(len(wave))] for wave in waves])
        return features, (torch.arange(features.shape[2]) < ends).long()

    def features(self, wave: Tensor) -> Tensor:
        """Features (bins, frames) of samples (T) as they are."""
        count, hop, margin = len(wave) // self.hop, self.hop, self.points // 2
        mel = torch.from_numpy(mel_filters(self.bins, self.points, self.rate))
        window = torch.hann_window(self.points)
        # Mirrored at both ends; the last frame, centred on the end, is left out.
        wave = F.pad(wave[None], (margin, margin), mode="reflect")[0]
        blocks = []
        for at in range(0, count, BLOCK):
            part = wave[at * hop : (min(at + BLOCK, count) - 1) * hop + self.points]
            spectrum = torch.stft(
                part, self.points, hop, window=window, center=False, return_complex=True
            )
            blocks.append((mel @ spectrum.abs() ** 2).clamp(min=1e-10).log10())
        logs = torch.cat(blocks, 1)
        return (torch.maximum(logs, logs.max() - RANGE) + 4) / 4


@cache
def mel_filters(bins: int, points: int, rate: int) -> np.ndarray:
    """Triangles over the frequencies of a Fourier transform (bins, points // 2 + 1), float32, of
    equal area, on Slaney's mel scale (Auditory Toolbox, 1998): linear up to 1 kHz, then
    logarithmic."""
    step = np.log(6.4) / 27  # of a mel, in the logarithmic part
    knee, knee_mels = 1000.0, 15.0
    highest = knee_mels + np.log(HIGHEST / knee) / step
    mels = np.linspace(0.0, highest, bins + 2)
    edges = np.where(mels < knee_mels, mels * 200 / 3, knee * np.exp(step * (mels - knee_mels)))
    at = np.linspace(0, rate // 2, points // 2 + 1)
    rising = (at - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - at) / np.diff(edges)[1:, None]
    area = 2 / (edges[2:] - edges[:-2])
    return (np.maximum(0, np.minimum(rising, falling)) * area[:, None]).astype(np.float32)


KEYS = {
    "feature_size": "bins",
    "sampling_rate": "rate",
    "hop_length": "hop",
    "n_fft": "points",
    "chunk_length": "seconds",
    "padding_value": "padding",
}


def read_log_mel(files: Mapping[str, bytes], bins: int) -> LogMel:
    """The front end that a checkpoint's small files describe, for a model of so many `bins`.

    Where they describe none it is Whisper's own. Mismatch where it is of another kind.
    """
    settings: dict[str, Any] = {"feature_size": bins}
    for name in (PROCESSOR_FILE, FILE):
        if name not in files:
            continue
        try:
            stated = json.loads(files[name])
        except ValueError as error:
            raise BadWeights(f"{name}: not valid JSON ({error}); copy it again") from None
        settings |= stated.get("feature_extractor", {}) if name == PROCESSOR_FILE else stated
    kind = settings.get("feature_extractor_type", "WhisperFeatureExtractor")
    if kind != "WhisperFeatureExtractor" or settings.get("dither"):
        what = f"`dither` {settings['dither']}" if settings.get("dither") else f"`{kind}`"
        raise Mismatch(f"{FILE}: {what} is not supported; only Whisper's log-mel frames are")
    found = LogMel(**{KEYS[key]: value for key, value in settings.items() if key in KEYS})
    if found.bins != bins:
        raise Mismatch(f"{FILE}: makes {found.bins} mel bands, and the model reads {bins}")
    return found
