"""The page: whole in itself, and what documents say is never markup on it."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from mainspring.errors import BadOption
from mainspring.graph.exporting import Drawing
from mainspring.graph.facts import Edge, Evidence
from mainspring.graph.page import busiest, page

EVIL = (
    "</script><script>alert(1)</script><!--<img src=x onerror=alert(2)>\u2028 & \" ' ${x} {{data}}"
)


def drawing(edges: list[tuple[str, str]], label: str = "") -> Drawing:
    at = Evidence("file:///a", "a.txt", 0, 3, label, 0.5, label or "toy")
    labels = {name: label for edge in edges for name in edge} if label else {}
    return Drawing(labels, dict(labels), {Edge(a, "urn:r", b): [at] for a, b in edges})


class Reader(HTMLParser):
    """Elements with their attributes, and the text of each script."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] == "script":
            self.scripts.append(data)


def read(html: str) -> tuple[Reader, dict]:
    reader = Reader()
    reader.feed(html)
    return reader, json.loads(reader.scripts[0])


def test_everything_is_on_the_page() -> None:
    html, drawn, there = page(drawing([("urn:a", "urn:b"), ("urn:b", "urn:c")]), "news", 300)
    reader, data = read(html)
    assert (drawn, there) == (3, 3)
    assert {node["label"] for node in data["nodes"]} == {"a", "b", "c"}
    assert [data["nodes"][link["to"]]["label"] for link in data["links"]] == ["b", "c"]
    assert data["links"][0]["places"][0]["place"] == "a.txt, characters 0 to 3"
    assert not any({"src", "href"} & set(attributes) for _, attributes in reader.elements)
    assert not re.search(r"https?://|@import|url\(", html)
    [policy] = [a["content"] for tag, a in reader.elements if tag == "meta" and "http-equiv" in a]
    assert policy is not None and policy.startswith("default-src 'none'")


def test_what_documents_say_stays_data() -> None:
    plain, _, _ = page(drawing([("urn:a", "urn:b")]), "x", 300)
    html, _, _ = page(drawing([("urn:a", "urn:b")], EVIL), EVIL, 300)
    reader, data = read(html)
    assert [tag for tag, _ in reader.elements] == [tag for tag, _ in read(plain)[0].elements]
    assert data["title"] == EVIL and {node["label"] for node in data["nodes"]} == {EVIL}
    block = html[html.index('id="data">') :].split("</script>")[0]
    assert not set("<&\u2028") & set(block[len('id="data">') :])
    script = reader.scripts[1]
    assert "innerHTML" not in script and "insertAdjacent" not in script and "eval" not in script


def test_a_large_graph_is_drawn_in_part() -> None:
    edges = [("urn:hub", f"urn:{i}") for i in range(50)] + [("urn:x", "urn:y")]
    html, drawn, there = page(drawing(edges), "large", 20)
    _, data = read(html)
    assert (drawn, there, data["all"]) == (20, 53, 53)
    assert {node["label"] for node in data["nodes"]}.isdisjoint({"x", "y"})
    assert len(data["links"]) == 19


def test_the_busiest_part_hangs_together() -> None:
    beside = {"a": {"b"}, "b": {"a"}, "h": {"i", "j"}, "i": {"h"}, "j": {"h", "k"}, "k": {"j"}}
    from collections import Counter

    degrees = Counter({"a": 3, "b": 3, "h": 4, "i": 1, "j": 2, "k": 1})
    assert busiest(beside, degrees, 3) == ["h", "j", "i"]
    assert busiest(beside, degrees, 99) == ["h", "j", "i", "k", "a", "b"]


def test_an_empty_graph_and_limits() -> None:
    html, drawn, there = page(drawing([]), "empty", 300)
    assert (drawn, there) == (0, 0) and read(html)[1]["nodes"] == []
    for nodes in (1, 5000):
        with pytest.raises(BadOption, match="--nodes must lie between 2 and 2000"):
            page(drawing([]), "x", nodes)


def test_the_script_is_short() -> None:
    """It is read by whoever wonders what the page does."""
    import mainspring.graph.page as module

    template = Path(module.__file__).with_name("page.html").read_text(encoding="utf-8")
    script = template[template.index('"use strict"') : template.rindex("</script>")]
    assert len(script.splitlines()) <= 150
