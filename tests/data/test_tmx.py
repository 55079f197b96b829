"""Translation memories, and files side by side in two languages."""

from pathlib import Path

import pytest

from mainspring.data.readers import columns, read_rows, sources
from mainspring.data.skipped import SkipLog
from mainspring.errors import BadData

HEAD = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE tmx SYSTEM "tmx14.dtd">
<tmx version="1.4"><header srclang="en"/><body>
"""
UNIT = '<tu><tuv xml:lang="{}"><seg>{}</seg></tuv><tuv xml:lang="{}"><seg>{}</seg></tuv></tu>\n'


def memory(file: Path, body: str, end: str = "</body></tmx>", head: str = HEAD) -> Path:
    file.write_text(head + body + end, encoding="utf-8")
    return file


def rows(path: Path, log: SkipLog | None = None) -> list[dict[str, str]]:
    return [row.values for row in read_rows(path, log or SkipLog())]


def test_units_become_rows(tmp_path: Path) -> None:
    body = UNIT.format("EN-US", "Tom &amp; Jerry", "de", "Tom und Jerry 😀")
    body += (
        '<tu>\n<note>x</note><tuv lang="en_us"><seg>Press <bpt i="1">&lt;b&gt;</bpt>OK'
        '<ept i="1">&lt;/b&gt;</ept><hi>!</hi></seg></tuv>'
        '<tuv xml:lang="de"><prop>y</prop><seg> OK\n drücken </seg></tuv>'
        '<tuv xml:lang="de"><seg>noch eins</seg></tuv></tu>'
    )
    file = memory(tmp_path / "a.tmx", body)
    found = list(read_rows(file, SkipLog(strict=True)))
    assert [row.values for row in found] == [
        {"en-us": "Tom & Jerry", "de": "Tom und Jerry 😀"},
        {"en-us": "Press OK!", "de": "OK\n drücken"},
    ]
    assert [row.line for row in found] == [4, 5]
    assert columns(file) == ["en-us", "de"]


def test_what_stands_alone_in_a_segment_parts_words(tmp_path: Path) -> None:
    english = 'one<ph>&lt;br/&gt;</ph>two <it pos="begin">(</it>three<ph/>, f<bpt i="1"/>our'
    body = UNIT.format("en", english, "zh", "一<ph/>二 3<ph/>4")
    assert rows(memory(tmp_path / "a.tmx", body)) == [
        {"en": "one two three, four", "zh": "一二 3 4"}
    ]


def test_units_keep_their_name_and_other_segments_are_told_of(tmp_path: Path) -> None:
    other = '<tuv xml:lang="de"><seg>Farbton</seg></tuv></tu>'
    unit = UNIT.format("en", "Hue", "de", "Farbe").replace("<tu>", '<tu tuid="7">')
    file = memory(tmp_path / "a.tmx", unit.replace("</tu>", other))
    with SkipLog(tmp_path / "skipped.jsonl") as log:
        assert rows(file, log) == [{"tuid": "7", "en": "Hue", "de": "Farbe"}]
    assert log.mended == {"first of several": 1} and not log.total
    assert "a second segment in de: Farbton" in (tmp_path / "skipped.jsonl").read_text()


def test_units_that_say_too_little_are_listed(tmp_path: Path) -> None:
    body = UNIT.format("en", "one", "de", "eins") + UNIT.format("en", "two", "de", " ")
    body += UNIT.format("en", "three", "", "drei") + UNIT.format("en", "four", "de", "vier")
    log = SkipLog()
    found = rows(memory(tmp_path / "a.tmx", body), log)
    assert [row["de"] for row in found] == ["eins", "vier"]
    assert log.counts == {"missing partner": 2}
    assert "a.tmx:5" in log.summary() and "found: en" in log.summary()


def test_what_stands_before_broken_xml_is_kept(tmp_path: Path) -> None:
    body = UNIT.format("en", "one", "de", "eins") * 3
    file = memory(tmp_path / "a.tmx", body, end="<tu><tuv></tu>")
    log = SkipLog()
    assert len(rows(file, log)) == 3
    assert log.counts == {"unreadable file": 1}
    assert "broken XML: mismatched tag" in log.summary()
    with pytest.raises(BadData, match=r"a\.tmx:7: broken XML"):
        rows(file, SkipLog(strict=True))


def test_entities_are_refused_and_nothing_is_fetched(tmp_path: Path) -> None:
    bomb = '<!DOCTYPE tmx [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;&a;">]><tmx><body>'
    with pytest.raises(BadData, match="declares an entity, `a`"):
        rows(memory(tmp_path / "a.tmx", UNIT.format("en", "&b;", "de", "x"), head=bomb))
    (tmp_path / "secret").write_text("secret")
    outside = f'<!DOCTYPE tmx [<!ENTITY s SYSTEM "{tmp_path}/secret">]><tmx><body>'
    with pytest.raises(BadData, match="declares an entity, `s`"):
        rows(memory(tmp_path / "b.tmx", UNIT.format("en", "&s;", "de", "x"), head=outside))


def test_other_xml_and_other_encodings(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="not a TMX file: it begins with <html>"):
        rows(memory(tmp_path / "a.tmx", "", head="<html>", end="</html>"))
    file = tmp_path / "b.tmx"
    text = HEAD.replace("UTF-8", "iso-8859-1") + UNIT.format("en", "over", "de", "über")
    file.write_bytes((text + "</body></tmx>").encode("latin-1"))
    assert rows(file) == [{"en": "over", "de": "über"}]
    file.write_bytes((text + "</body></tmx>").replace("iso-8859-1", "utf-16").encode("utf-16"))
    assert rows(file) == [{"en": "over", "de": "über"}]
    file.write_bytes((HEAD + UNIT.format("en", "x", "de", "y")).encode() + b"<tu>\xff\xfe</tu>")
    log = SkipLog()
    assert rows(file, log) == [{"en": "x", "de": "y"}]
    assert log.counts == {"unreadable file": 1}


def test_a_long_memory_streams(tmp_path: Path) -> None:
    file = tmp_path / "long.tmx"
    with file.open("w", encoding="utf-8") as out:
        out.write(HEAD)
        out.writelines(UNIT.format("en", f"number {i}", "de", f"Zahl {i}") for i in range(20_000))
        out.write("</body></tmx>")
    stream = read_rows(file, SkipLog())
    assert next(stream).values == {"en": "number 0", "de": "Zahl 0"}
    assert sum(1 for _ in stream) == 19_999


# -- files side by side ----------------------------------------------------------------------------


def write(folder: Path, **files: str) -> Path:
    for name, content in files.items():
        (folder / name.replace("_", ".")).write_text(content, encoding="utf-8")
    return folder


def test_files_side_by_side_in_two_languages(tmp_path: Path) -> None:
    write(tmp_path, train_en="one\ntwo\n", train_de="eins\nzwei\n", README_md="x")
    write(tmp_path, test_en="three\n", test_de="drei\n")
    found = {source.split: source for source in sources(tmp_path)}
    assert list(found) == ["train", "test"]
    read = [row.values for row in read_rows(found["train"], SkipLog())]
    assert read == [{"de": "eins", "en": "one"}, {"de": "zwei", "en": "two"}]
    # One of the two names the pair.
    assert rows(tmp_path / "test.en") == [{"de": "drei", "en": "three"}]
    assert sources(tmp_path / "test.en")[0].split is None


def test_lines_without_a_partner_are_listed(tmp_path: Path) -> None:
    write(tmp_path, a_en="one\ntwo\nthree\n", a_zh="一\n二\n")
    log = SkipLog()
    assert rows(tmp_path / "a.zh", log) == [{"en": "one", "zh": "一"}, {"en": "two", "zh": "二"}]
    assert log.counts == {"missing partner": 1}
    assert "a.zh has no line 3" in log.summary()


def test_one_language_or_three_are_no_pair(tmp_path: Path) -> None:
    write(tmp_path, a_en="one\n")
    with pytest.raises(BadData, match="no file beside it with the same lines in another language"):
        sources(tmp_path / "a.en")
    with pytest.raises(BadData, match="no data in this folder"):
        sources(tmp_path)
    write(tmp_path, a_de="eins\n", a_fr="un\n")
    with pytest.raises(BadData, match="come in twos"):
        sources(tmp_path)
