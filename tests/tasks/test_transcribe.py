"""`transcribe` on sound as people bring it, and its page."""

import io
import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import mainspring
import nano
from mainspring import cli, events
from mainspring.checkpoints.bundle import load
from mainspring.errors import BadData, BadOption, Mismatch, Missing
from mainspring.tasks.transcribe import TASK
from mainspring.testing import check_metric, check_reading
from whispering import RATE, speech, write_checkpoint

PAGE = Path(__file__).resolve().parents[2] / "docs" / "speech.md"
Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whisper")
    write_checkpoint(folder)
    return folder


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three recordings, a table that names them, and files that are none."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "audio").mkdir()
    for number, seconds in enumerate((0.6, 2.3, 1.0)):
        soundfile.write(folder / "audio" / f"{number}.flac", speech(seconds, number), RATE)
    rows = [f"audio/{number}.flac,Words {number}." for number in range(3)]
    lines = ["file_name,transcription", *rows, "audio/gone.flac,Nothing.", "audio/no.wav,Nothing."]
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    (folder / "audio" / "no.wav").write_text("this is text")
    return folder


def run(whisper: Path, *inputs: Any, **options: Any) -> Rows:
    options = {"precision": "float32", **options}
    return mainspring.run("transcribe", *inputs, model=str(whisper), **options)


def test_one_file(whisper: Path, sounds: Path) -> None:
    file = sounds / "audio" / "1.flac"
    [row] = run(whisper, file)
    [wanted] = load(whisper).transcribe(file)
    assert row["transcript"] == wanted.text and row["language"] == wanted.language
    assert row["segments"] == [vars(segment) for segment in wanted.segments]
    assert (row["seconds"], row["windows"]) == (2.3, wanted.windows)
    assert row["source_tokens_unread"] == 0 and row["tokens"] == wanted.tokens
    json.dumps(row)
    [english] = run(whisper, file, language="english", timestamps="no")
    assert english["language"] == "en" and english["segments"]  # a long one has times


def test_tables_and_folders(whisper: Path, sounds: Path) -> None:
    seen: list[events.Event] = []
    with events.listening(seen.append):
        table = run(whisper, sounds)
    assert [row["file_name"] for row in table] == [f"audio/{n}.flac" for n in range(3)]
    told = "\n".join(event.text for event in seen if isinstance(event, events.Warn))
    assert "2 rows skipped: 2 unreadable sound" in told
    with pytest.raises(BadData, match=r"metadata.csv:5: .*gone.flac: no such file"):
        run(whisper, sounds, strict=True)
    with events.listening(seen.append):
        folder = run(whisper, sounds / "audio")
    assert [row["transcript"] for row in folder] == [row["transcript"] for row in table]
    assert [Path(row["audio"]).name for row in folder] == ["0.flac", "1.flac", "2.flac"]


def test_words_beside_the_sound(whisper: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", speech(0.5), RATE)
    (tmp_path / "a.txt").write_text("Some words.\n")
    [row] = run(whisper, tmp_path)
    assert row["transcription"] == "Some words."
    found = mainspring.evaluate("transcribe", tmp_path, model=str(whisper), precision="float32")
    assert found.rows == 1 and found.scores["wer"] > 0


def test_evaluate(whisper: Path, sounds: Path, tmp_path: Path) -> None:
    right = [row["transcript"] for row in run(whisper, sounds)]
    rows = [
        {"path": str(sounds / "audio" / f"{n}.flac"), "sentence": f"{text.upper()}!"}
        for n, text in enumerate(right)
    ]
    data = nano.write_jsonl(rows, tmp_path / "rows.jsonl")
    found = mainspring.evaluate("transcribe", data, model=str(whisper), precision="float32")
    assert found.scores["wer"] == found.scores["cer"] == 0 < found.scores["wer_raw"]
    low, high = found.interval["wer_raw"]
    assert low <= found.scores["wer_raw"] <= high and "jiwer" in found.signature
    check_metric(TASK, ["some words", "and more of them"])
    check_reading(TASK, data, 3)


def test_long_recordings(whisper: Path, sounds: Path) -> None:
    file = sounds / "audio" / "1.flac"
    [cut] = run(whisper, file, on_long="cut")
    assert cut["source_tokens_unread"] == 26 and cut["seconds"] == 1.0  # 52 frames
    seen: list[events.Event] = []
    with events.listening(seen.append):
        [refused, short] = run(whisper, file, sounds / "audio" / "0.flac", on_long="refuse")
    assert refused["error"] == "the recording lasts 2 s and the model hears 1 s at a time"
    assert refused["transcript"] == "" and "error" not in short


def test_text_is_told_as_it_is_written(whisper: Path, sounds: Path) -> None:
    seen: list[events.Event] = []
    with events.listening(seen.append):
        [row] = run(whisper, sounds / "audio" / "1.flac")
    pieces = [event.text for event in seen if isinstance(event, events.Text)]
    assert len(pieces) == row["windows"] and "".join(pieces).strip() == row["transcript"]


def test_options_do_something(whisper: Path, sounds: Path) -> None:
    file = sounds / "audio" / "2.flac"
    texts = [
        run(whisper, file, **more)[0]["transcript"]
        for more in ({"language": "en"}, {"language": "en", "translate": "yes"})
    ]
    assert texts[0] != texts[1]
    drawn = [
        run(whisper, file, do_sample=True, temperature=2.0, seed=1)[0]["transcript"]
        for _ in range(2)
    ]
    assert drawn[0] == drawn[1] != run(whisper, file)[0]["transcript"]
    assert run(whisper, file, second_tries="yes", seed=1)[0]["windows"] >= 1
    assert run(whisper, file, precision="bfloat16")[0]["tokens"] > 0


def test_what_cannot_be(
    whisper: Path, sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = sounds / "audio" / "0.flac"
    with pytest.raises(Mismatch, match="`transcribe` cannot be fitted in this release"):
        mainspring.fit("transcribe", sounds, model=str(whisper), out=tmp_path / "out")
    with pytest.raises(Mismatch, match="an encoder that hears"):
        nano.bundle().save(tmp_path / "t5")
        run(tmp_path / "t5", file)
    with pytest.raises(Mismatch, match="an encoder that reads text"):
        mainspring.run("summarize", "A text.", model=str(whisper))
    with pytest.raises(Missing, match=r"no file or folder .*talk.wav"):
        run(whisper, tmp_path / "talk.wav")
    with pytest.raises(BadData, match="unreadable sound"):
        run(whisper, "just some words")
    with pytest.raises(BadData, match="not a sound file"):
        run(whisper, sounds / "audio" / "no.wav", strict=True)
    with pytest.raises(BadOption, match="unknown language `klingon`"):
        run(whisper, file, language="klingon")
    with pytest.raises(BadOption, match="--translate"):
        run(whisper, file, translate="maybe")
    with pytest.raises(BadOption, match="does not write one text"):
        run(whisper, file, choices=["yes", "no"])
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with pytest.raises(Missing, match="reads files"):
        run(whisper)


def test_a_file_that_ends_too_early(whisper: Path, sounds: Path, tmp_path: Path) -> None:
    """Its header is well; what is wrong shows when it is read, and the others are not lost."""
    whole = (sounds / "audio" / "1.flac").read_bytes()
    (tmp_path / "a.flac").write_bytes(whole[: len(whole) // 3])
    soundfile.write(tmp_path / "b.wav", np.zeros(800, "f4"), RATE)
    first, second = run(whisper, tmp_path / "a.flac", tmp_path / "b.wav")
    assert "error" not in second
    assert "not a sound file" in first.get("error", "") or first["seconds"] < 2.3


def test_the_page(
    whisper: Path, sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("recordings", "test"):
        Path(folder).mkdir()
    soundfile.write("talk.flac", speech(1.4), RATE)
    soundfile.write("recordings/a.ogg", speech(0.5), RATE)
    soundfile.write("test/a.wav", speech(0.5), RATE)
    Path("test/metadata.csv").write_text("file_name,text\na.wav,words\n")
    page = PAGE.read_text(encoding="utf-8").replace("openai/whisper-tiny", str(whisper))
    commands = re.search(r"^```bash\n(.*?)^```", page, re.M | re.S)
    assert commands is not None
    for line in commands[1].splitlines():
        code: object = 0
        try:
            cli.main(shlex.split(line)[1:])
        except SystemExit as ended:
            code = ended.code
        assert not code, line
    assert len(Path("texts.jsonl").read_text().splitlines()) == 1
    shown = re.search(r"^```python\n(.*?)^```", page, re.M | re.S)
    assert shown is not None
    capsys.readouterr()
    exec(shown[1], {"mainspring": mainspring})
    assert "  0." in capsys.readouterr().out


def test_real_recordings(whisper: Path, shared_data: Path, tmp_path: Path) -> None:
    """Folders of sound as they are published are read as they are."""
    import zipfile

    archive = shared_data / "speech" / "fsdd" / "test.zip"
    if not archive.is_file():
        pytest.skip("the recordings are not here")
    with zipfile.ZipFile(archive) as members:
        names = [n for n in members.namelist() if n.endswith((".csv", "_0.flac"))]
        members.extractall(tmp_path, names)
    found = mainspring.evaluate("transcribe", tmp_path, model=str(whisper), limit=4)
    assert found.rows == 4
