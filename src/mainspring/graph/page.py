"""One HTML page that draws the graph, with everything in it: no network, no library.

What documents say is data on the page, never markup: it stands in a JSON block whose "<" are
escaped, and the script shows it as text only. A policy in the page forbids it to load anything.
"""

import json
from collections import Counter
from collections.abc import Mapping
from heapq import heappop, heappush
from pathlib import Path
from typing import Any

from mainspring.errors import BadOption
from mainspring.graph.exporting import Drawing
from mainspring.text import shorten

MOST = 2_000  # nodes; the layout compares each with each
PLACES = 5  # of a fact that are told
TEXT = 300  # characters of a place that are shown


def page(drawn: Drawing, title: str, nodes: int) -> tuple[str, int, int]:
    """(the page, how many things it draws, how many there are): the busiest part of the graph,
    where there are more than `nodes`. BadOption for more than `MOST`."""
    if not 2 <= nodes <= MOST:
        raise BadOption(f"--nodes must lie between 2 and {MOST}")
    beside: dict[str, set[str]] = {}
    degrees: Counter[str] = Counter()
    for edge in drawn.edges:
        degrees.update((edge.head, edge.tail))
        beside.setdefault(edge.head, set()).add(edge.tail)
        beside.setdefault(edge.tail, set()).add(edge.head)
    kept = busiest(beside, degrees, nodes)
    number = {name: at for at, name in enumerate(kept)}
    values = {edge.tail for edge in drawn.edges if edge.is_value}
    things = [
        {
            "label": name if name in values else drawn.label(name),
            "iri": "" if name in values else name,
            "type": "" if name in values else drawn.types.get(name, ""),
            "facts": degrees[name],
        }
        for name in kept
    ]
    links: list[dict[str, Any]] = []
    for edge, places in drawn.edges.items():
        if edge.head in number and edge.tail in number:
            told = [
                {
                    "place": _place(at.place, at.start, at.end, at.line),
                    "text": shorten(at.text, TEXT),
                    "score": at.score,
                    "model": at.model,
                }
                for at in places[:PLACES]
            ]
            links.append(
                {
                    "from": number[edge.head],
                    "to": number[edge.tail],
                    "label": drawn.label(edge.relation),
                    "places": told,
                    "more": max(0, len(places) - PLACES),
                }
            )
    data = {"title": title, "all": len(degrees), "nodes": things, "links": links}
    template = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    return template.replace("{{data}}", script_json(data)), len(kept), len(degrees)


def busiest(beside: Mapping[str, set[str]], degrees: Counter[str], most: int) -> list[str]:
    """Up to `most` things that hang together: from the one with the most facts on, always the next
    with the most of those beside them."""
    order = sorted(degrees, key=lambda name: (-degrees[name], name))
    kept: dict[str, None] = {}
    for first in order:
        waiting = [(-degrees[first], first)]
        while waiting and len(kept) < most:
            _, name = heappop(waiting)
            if name not in kept:
                kept[name] = None
                for other in beside[name] - kept.keys():
                    heappush(waiting, (-degrees[other], other))
    return list(kept)


def _place(place: str, start: int | None, end: int | None, line: int | None) -> str:
    if start is not None:
        return f"{place}, characters {start} to {end}"
    return place if line is None else f"{place}, line {line}"


def script_json(data: Any) -> str:
    """JSON that cannot end the script element it stands in, nor begin a comment in it."""
    text = json.dumps(data, ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
