"""Sound files to samples: any format that libsndfile reads, any rate, one channel.

Needs `pip install 'mainspring[speech]'` (soundfile and soxr).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mainspring.data.documents import read_whole
from mainspring.data.rows import Row
from mainspring.data.skipped import SkipLog
from mainspring.errors import BadData, BadOption
from mainspring.extras import SOUND

if TYPE_CHECKING:
    import numpy as np

SUFFIXES = (
    *(".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".aifc", ".au"),
    *(".caf", ".w64", ".rf64"),
)

BLOCK = 1 << 20  # samples of each channel


def read_audio(file: Path, rate: int) -> "np.ndarray":
    """The samples of a file at `rate` a second, float32 in -1..1, channels averaged.

    BadData where the file holds no sound that can be read.
    """
    import numpy as np

    with _opened(file) as sound:
        # Block by block: several channels of an hour would take gigabytes.
        parts = []
        while len(block := sound.read(BLOCK, dtype="float32", always_2d=True)):
            parts.append(block.mean(1))
        samples = np.concatenate(parts) if parts else np.zeros(0, np.float32)
        return at_rate(samples, sound.samplerate, rate, file)


def at_rate(samples: "np.ndarray", given: int, rate: int, file: Path | None = None) -> "np.ndarray":
    """Samples (T) taken `given` times a second as if taken `rate` times. BadData where there are
    none, or some are no numbers."""
    import numpy as np

    samples = np.ascontiguousarray(samples, dtype=np.float32)
    if samples.ndim != 1:
        raise BadOption(f"sound must have one channel, and has the shape {samples.shape}")
    if given < 1:
        raise BadOption(f"the sampling rate must be above 0, and is {given}")
    if not samples.size:
        raise BadData("no sound in it", file=file)
    if not np.isfinite(samples).all():
        raise BadData("samples that are no finite numbers", file=file)
    if given == rate:
        return samples
    return np.asarray(_package("soxr").resample(samples, given, rate), dtype=np.float32)


def check_audio(file: Path) -> None:
    """BadData where the file is not there or its header says that it holds no sound."""
    SOUND.check()  # soxr too, which is asked for only once a model is loaded
    if not file.is_file():
        raise BadData("no such file", file=file)
    with _opened(file) as sound:
        if not sound.frames:
            raise BadData("no sound in it", file=file)


def read_recording(path: Path, skipped: SkipLog) -> Iterator[Row]:
    """A sound file as a row that names it in the column `audio`; what is spoken in `a.wav` may
    stand in `a.txt` beside it."""
    values = {"audio": str(path)}
    partner = path.with_suffix(".txt")
    if partner.is_file():
        text = read_whole(partner, skipped)
        if text is not None:
            values["transcription"] = text.strip()
    yield Row(values, str(path), 1)


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    soundfile = _package("soundfile")
    try:
        with soundfile.SoundFile(file) as sound:
            yield sound
    except (soundfile.SoundFileError, OSError) as error:
        raise BadData(f"not a sound file that can be read ({error})", file=file) from None


def _package(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise SOUND.missing() from None
