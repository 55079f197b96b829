"""The folder of a graph: what is no graph is refused with a reason."""

import json
from pathlib import Path

import pytest
from toy_extractor import CURIE, build, documents

from mainspring.errors import BadData, BadOption, Missing
from mainspring.graph import store


def opened(folder: Path, base: str | None = None) -> None:
    with store.writing(folder, "testing", base):
        pass


def test_a_store_is_made_where_there_is_none(tmp_path: Path) -> None:
    opened(tmp_path / "deep" / "kg", "https://example.org/kg/")
    with store.reading(tmp_path / "deep" / "kg") as graph:
        assert graph.base == "https://example.org/kg/" and graph.documents() == []


def test_names_are_made_under_the_base(tmp_path: Path) -> None:
    opened(tmp_path / "kg", "https://example.org/kg/")
    build(tmp_path / "kg", documents(a=CURIE))
    with store.reading(tmp_path / "kg") as graph:
        subjects = {quad.subject.value for quad in graph.rdf}
    assert "https://example.org/kg/entity/person:marie_curie" in subjects


def test_no_store(tmp_path: Path) -> None:
    refused = pytest.raises(Missing, match="nowhere: no such folder; make one: mainspring graph")
    with refused, store.reading(tmp_path / "nowhere"):
        pass
    with pytest.raises(Missing, match="no graph in this folder"), store.reading(tmp_path):
        pass


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(BadOption, match="is there and is no graph; name a new folder"):
        opened(tmp_path)
    with pytest.raises(BadOption, match="is there and is no graph"):
        opened(tmp_path / "thesis.txt")
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("base", ["kg", "https://example.org/kg", "https://exa mple.org/"])
def test_a_base_that_is_no_iri(tmp_path: Path, base: str) -> None:
    with pytest.raises(BadOption, match="must be an IRI that ends in"):
        opened(tmp_path / "kg", base)


def test_a_store_keeps_its_base(tmp_path: Path) -> None:
    opened(tmp_path / "kg", "https://example.org/kg/")
    opened(tmp_path / "kg")
    with pytest.raises(
        BadOption, match=r"was made with https://example.org/kg/; use another store"
    ):
        opened(tmp_path / "kg", "https://example.org/other/")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "not the description"),
        ("[]", "not the"),
        ('{"format": 2, "base": "urn:x:"}', "reads 1"),
    ],
)
def test_a_description_that_is_broken(tmp_path: Path, text: str, told: str) -> None:
    opened(tmp_path / "kg")
    (tmp_path / "kg" / store.MANIFEST).write_text(text, encoding="utf-8")
    with pytest.raises(BadData, match=told), store.reading(tmp_path / "kg"):
        pass


def test_triples_that_are_broken(tmp_path: Path) -> None:
    build(tmp_path / "kg", documents(a=CURIE))
    for file in (tmp_path / "kg" / store.TRIPLES).glob("CURRENT"):
        file.write_bytes(b"garbage")
    refused = pytest.raises(BadData, match="the store cannot be opened")
    with refused, store.reading(tmp_path / "kg"):
        pass


def test_a_lock_that_nobody_explains(tmp_path: Path) -> None:
    """What is written in the lock's file is for people; the lock itself is the system's."""
    with store.writing(tmp_path / "kg", "building"):
        assert json.loads((tmp_path / "kg" / store.LOCK).read_text())["doing"] == "building"
        (tmp_path / "kg" / store.LOCK).write_text("")
        with pytest.raises(BadOption, match="another process has it open"):
            opened(tmp_path / "kg")


def test_who_reads_need_not_be_able_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tmp_path / "kg", documents(a=CURIE))
    lock = tmp_path / "kg" / store.LOCK
    before, real = lock.read_text(), Path.open

    def refusing(self: Path, mode: str = "r", *args: object, **options: object) -> object:
        if self == lock and mode != "r":
            raise PermissionError(13, "Permission denied")
        return real(self, mode, *args, **options)

    monkeypatch.setattr(Path, "open", refusing)
    with store.reading(tmp_path / "kg") as graph:
        assert graph.documents()
    assert lock.read_text() == before
    refused = pytest.raises(BadData, match=r"cannot be written \(Permission denied\)")
    with refused, store.writing(tmp_path / "kg", "testing"):
        pass
