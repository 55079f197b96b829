"""brat's standoff annotations, as `entities` and `relations` read them."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring import events
from mainspring.data.readers import read_rows, sources
from mainspring.data.skipped import SkipLog
from mainspring.errors import BadData
from mainspring.tasks import Task
from mainspring.tasks.entities import TASK as ENTITIES
from mainspring.tasks.reading import checked, match
from mainspring.tasks.relations import TASK as RELATIONS

TEXT = "Marie 😀 Curie lived in\nParis, France.\n"
MARKS = """T1\tPerson 0 13\tMarie 😀 Curie
T2\tCity 23 28\tParis
T3\tPlace 23 28;30 36\tParis France
R1\tLives_in Arg1:T1 Arg2:T2\t
R2\tLives_in Arg1:T1 Arg2:T3
E1\tLiving:T2 Who:T1
A1\tNegated E1
#1\tAnnotatorNotes T1\tsaid of her
*\tEquiv T1 T2

"""


def write(folder: Path, text: str = TEXT, marks: str = MARKS, name: str = "a") -> Path:
    (folder / f"{name}.txt").write_bytes(text.encode())
    (folder / f"{name}.ann").write_bytes(marks.encode())
    return folder


def read(path: Path, task: Task = ENTITIES) -> tuple[list[dict], SkipLog]:
    [source] = sources(path)
    with SkipLog() as skipped:
        rows = [e.values for e in checked(task, source, match(task, source, {}), skipped, {})]
    return rows, skipped


def test_entities_and_relations(tmp_path: Path) -> None:
    [row], skipped = read(write(tmp_path))
    person = {"label": "Person", "start": 0, "end": 13}
    assert row["text"] == TEXT
    assert row["entities"] == [person, {"label": "City", "start": 23, "end": 28}]
    assert skipped.total == 0 and skipped.mended == {"entity in several pieces": 1}
    [row], _ = read(tmp_path / "a.ann", RELATIONS)
    [relation] = row["relations"]
    assert relation["type"] == "Lives_in"
    assert (relation["head"]["text"], relation["tail"]["text"]) == ("Marie 😀 Curie", "Paris")


def test_line_ends_count_as_they_are(tmp_path: Path) -> None:
    marks = "T1\tCity 24 29\tParis\r\n"
    [row], skipped = read(write(tmp_path, TEXT.replace("\n", "\r\n"), marks))
    assert [row["text"][e["start"] : e["end"]] for e in row["entities"]] == ["Paris"]
    assert not skipped.total


@pytest.mark.parametrize(
    ("marks", "reason"),
    [
        ("T1\tCity 22 27\tParis\n", "entity not at its place"),
        ("T1\tCity 23 99\tParis\n", "offsets out of range"),
        ("T1 City 23 28 Paris\n", "wrong type"),
        ("T1\tCity 23 28\tParis\nR1\tin Arg1:T1 Arg2:T9\n", "unknown entity"),
    ],
)
def test_what_is_wrong_costs_its_text_and_is_told(marks: str, reason: str, tmp_path: Path) -> None:
    write(write(tmp_path, marks=marks), name="b")
    rows, skipped = read(tmp_path)
    assert len(rows) == 1 and skipped.counts == {reason: 1}
    assert "a.ann" in skipped.summary()


def test_one_without_the_other(tmp_path: Path) -> None:
    write(tmp_path)
    for name in ("b.txt", "c.ann", "README.txt", "annotation.conf"):
        (tmp_path / name).write_text("x")
    heard: list[events.Event] = []
    with events.listening(heard.append):
        rows, _ = read(tmp_path)
    assert len(rows) == 1
    assert "without the other: `b.txt`, `c.ann`" in " ".join(map(str, heard))
    with pytest.raises(BadData, match=r"no c\.txt beside it"):
        list(read_rows(tmp_path / "c.ann", SkipLog(strict=True)))


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(
    words=st.lists(
        st.text(st.characters(exclude_categories=("Z", "C")), min_size=1, max_size=5), min_size=1
    ),
    marked=st.sets(st.integers(0, 30)),
)
def test_places_survive(words: list[str], marked: set[int], tmp_path_factory) -> None:
    folder = tmp_path_factory.mktemp("brat")
    lines, wanted, at = [], [], 0
    for number, word in enumerate(words):
        if number in marked:
            lines.append(f"T{number}\tW {at} {at + len(word)}\t{word}")
            wanted.append((at, at + len(word)))
        at += len(word) + 1
    [row], skipped = read(write(folder, " ".join(words), "\n".join(lines)))
    assert [(e["start"], e["end"]) for e in row["entities"]] == wanted
    assert not skipped.total
