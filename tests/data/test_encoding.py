"""Files that are not UTF-8: read as the user says, and told of where nobody said anything."""

import json
from pathlib import Path

import pytest

import mainspring
from mainspring.data.readers import read_rows
from mainspring.data.rows import likely_encodings, reading_as
from mainspring.data.skipped import SkipLog
from mainspring.errors import BadData, BadOption

TEXTS = {
    "gb18030": ["这个酒店很好，房间干净。", "服务太差了，再也不来。", "早餐不错，价格也合适。"],
    "big5": ["這個酒店很好，房間乾淨。", "服務太差了，再也不來。", "早餐不錯，價格也合適。"],
    "shift_jis": ["このホテルはとても良かったです。", "サービスが悪かった。", "朝食は美味しい。"],
    "cp1252": ["Très bon hôtel, café délicieux.", "Le service était déplorable.", "Déçu à Noël."],
}


def table(folder: Path, encoding: str, times: int = 1) -> Path:
    file = folder / f"{encoding}.csv"
    lines = [f'"{text} {n}",{n % 2}' for n in range(times) for text in TEXTS[encoding]]
    file.write_text("\n".join(["text,label", *lines, "plain,1"]), encoding=encoding)
    return file


@pytest.mark.parametrize("encoding", TEXTS)
def test_files_are_read_as_the_user_says(encoding: str, tmp_path: Path) -> None:
    file = table(tmp_path, encoding)
    with SkipLog() as skipped, reading_as(encoding):
        rows = list(read_rows(file, skipped))
    assert [row.values["text"] for row in rows] == [*(f"{t} 0" for t in TEXTS[encoding]), "plain"]
    with SkipLog() as skipped:  # and nothing is left of it behind
        assert [row.values["text"] for row in read_rows(file, skipped)] == ["plain"]
    assert skipped.counts == {"undecodable bytes": 3}


@pytest.mark.parametrize("encoding", ["gb18030", "big5"])
def test_the_encoding_is_told_from_the_bytes(encoding: str, tmp_path: Path) -> None:
    file = table(tmp_path, encoding, 20)
    assert likely_encodings(file) == (encoding,)
    with SkipLog() as skipped:
        list(read_rows(file, skipped))
    assert f"it looks like {encoding}: --encoding {encoding}" in skipped.summary()


WESTERN = {
    "es": "El niño comió piñas en España. Mañana será otro día.",
    "fr": "Le garçon a mangé une crêpe à l'école, très bonne.",
    "de": "Größe und Übermut tun selten gut.",
    "pt": "Açúcar não é coração.",
}


@pytest.mark.parametrize("language", WESTERN)
def test_letters_of_western_europe_are_not_taken_for_others(language: str, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("text\nplain\n" + f'"{WESTERN[language]}"\n' * 9, encoding="cp1252")
    with SkipLog() as skipped:
        list(read_rows(file, skipped))
    assert "it looks like cp1252 or cp1250: --encoding cp1252" in skipped.summary()


OTHER = {
    "cp1254": "Çocuklar bahçede oynuyor, güneş parlıyor ve ağaçlar yeşil; teşekkür ederim.",
    "cp1250": "Az időjárás ma nagyon szép, de holnap esős lesz. Köszönöm szépen a könyvet.",
}


@pytest.mark.parametrize("encoding", OTHER)
def test_the_language_tells_other_pages_of_latin_letters(encoding: str, tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text(OTHER[encoding] + "\n", encoding=encoding)
    assert likely_encodings(file) == (encoding, "cp1252")


def test_a_file_of_which_most_is_utf8_is_not_given_another_encoding(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    good = [f'"{text}"\n'.encode() for text in WESTERN.values()] * 3
    file.write_bytes(b"text\n" + b"".join([*good, "déjà\n".encode("cp1252"), *good]))
    with SkipLog() as skipped:
        rows = list(read_rows(file, skipped))
    assert len(rows) == 24 and likely_encodings(file) == ()
    assert "mend the lines that have another" in skipped.summary()


def test_a_mark_says_more_than_the_user(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("text\n结果\n", encoding="utf-8-sig")
    with SkipLog() as skipped, reading_as("gb18030"):
        assert [row.values for row in read_rows(file, skipped)] == [{"text": "结果"}]


@pytest.mark.parametrize("name", ["gbx", "hex", "rot13", ""])
def test_encodings_that_there_are_not(name: str) -> None:
    with pytest.raises(BadOption, match="--encoding"), reading_as(name):
        pass


def test_a_run_that_cannot_begin_says_why(tmp_path: Path, trained: Path) -> None:
    file = tmp_path / "pairs.csv"
    rows = [f"{t} {n},{t[:3]}" for n in range(9) for t in TEXTS["gb18030"]]
    file.write_text("\n".join(["article,summary", *rows]), encoding="gb18030")
    options = {"model": str(trained), "steps": 1, "batch_tokens": 500, "metric_rows": 0}
    with pytest.raises(BadData, match="--encoding gb18030"):
        mainspring.fit("summarize", file, out=tmp_path / "a", **options)
    with file.open("a", encoding="ascii") as more:
        more.write("\nthe river,a river")
    with pytest.raises(BadData, match=r"two different rows.*27 undecodable.*--encoding gb18030"):
        mainspring.fit("summarize", file, out=tmp_path / "b", **options)
    mainspring.fit("summarize", file, out=tmp_path / "c", encoding="gb18030", **options)
    run = json.loads((tmp_path / "c" / "run.json").read_text())
    assert not run["skipped"] and run["options"]["encoding"] == "gb18030"


def test_every_verb_that_reads_files_takes_it(tmp_path: Path, trained: Path) -> None:
    file = tmp_path / "pairs.csv"
    rows = [f"{t},{t[:3]}" for t in TEXTS["gb18030"]]
    file.write_text("\n".join(["article,summary", *rows]), encoding="gb18030")
    options = {"model": str(trained), "encoding": "gb18030", "max_new_tokens": 2}
    made = mainspring.run("summarize", file, **options)
    assert [row["article"] for row in made] == TEXTS["gb18030"]
    assert mainspring.evaluate("summarize", file, **options).rows == 3
    assert not list(tmp_path.glob("*.skipped.jsonl"))
