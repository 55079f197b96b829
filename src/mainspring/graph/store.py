"""The graph on disk: an Oxigraph store, one writer, and one transaction for each document.

    DIR/graph.json   format, and the IRI under which names are made
    DIR/triples/     the store (RocksDB)
    DIR/lock         held by whoever reads or writes; the system frees it when a process dies

The default graph holds each fact once. The named graph of a document holds the facts it states and
their provenance. A fact leaves the default graph with the last document that states it, so nothing
is counted, and withdrawing a document is removing its graph.

Whether a document is done stands in its graph, and so becomes true in the same transaction as all
that it says: a killed build has no half-written documents.
"""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mainspring.errors import BadData, BadOption, Missing
from mainspring.extras import GRAPH
from mainspring.graph import vocabulary
from mainspring.locks import in_use

if TYPE_CHECKING:
    import pyoxigraph as ox

FORMAT = 1
MANIFEST, TRIPLES, LOCK = "graph.json", "triples", "lock"
DONE = "done"
OTHERWISE = "wait for it to end"  # where the store is in use


@dataclass(frozen=True)
class Written:
    """What one document puts into the store: facts, and what else its graph says about them."""

    iri: str
    facts: "frozenset[ox.Triple]"
    provenance: "frozenset[ox.Triple]"


class GraphStore:
    """An open store; `base` is the IRI under which names of entities and relations are made."""

    def __init__(self, folder: Path, base: str, rdf: "ox.Store"):
        self.folder, self.base, self.rdf = folder, base, rdf

    def close(self) -> None:
        """Lets the store go: it is closed with the last reference to it."""
        del self.rdf

    # -- reading -----------------------------------------------------------------------------------

    def documents(self) -> list[str]:
        """The IRIs of all documents, in order."""
        return sorted(graph.value for graph in self.rdf.named_graphs())

    def all_values(self, document: str, name: str, of: str | None = None) -> list[str]:
        """What a document's graph says of the document, or of another `of` its nodes, in order."""
        import pyoxigraph as ox

        graph, subject = ox.NamedNode(document), ox.NamedNode(of or document)
        found = self.rdf.quads_for_pattern(subject, ox.NamedNode(name), None, graph)
        return sorted(str(quad.object.value) for quad in found)  # type: ignore[union-attr]

    def value(self, document: str, name: str) -> str | None:
        """The first of them, if there is any."""
        return next(iter(self.all_values(document, name)), None)

    def is_done(self, document: str, content: str, settings: str) -> bool:
        """Whether this text was read with these settings."""
        known = (vocabulary.CONTENT, vocabulary.SETTINGS, vocabulary.STATE)
        return [self.value(document, name) for name in known] == [content, settings, DONE]

    def has(self, document: str) -> bool:
        import pyoxigraph as ox

        return self.rdf.contains_named_graph(ox.NamedNode(document))

    # -- writing -----------------------------------------------------------------------------------

    def replace(self, written: Written) -> None:
        """Puts a document in the place of what its graph held, in one transaction."""
        self._update([*self._removal(written.iri), *_insertion(written)])

    def add(self, written: Written) -> None:
        """Adds to a document's graph, in one transaction."""
        import pyoxigraph as ox

        graph = ox.NamedNode(written.iri)

        def quads() -> "Iterator[ox.Quad]":
            for triple in written.facts:
                said = triple.subject, triple.predicate, triple.object
                yield ox.Quad(*said)
                yield ox.Quad(*said, graph)
            for triple in written.provenance:
                yield ox.Quad(triple.subject, triple.predicate, triple.object, graph)

        with self._noticing():
            self.rdf.extend(quads())

    def remove(self, documents: Iterable[str]) -> None:
        """Removes documents, and the facts that no other states; one transaction each."""
        for document in documents:
            self._update(self._removal(document))

    def flush(self) -> None:
        """Puts everything onto the disk."""
        self.rdf.flush()

    def _removal(self, document: str) -> list[str]:
        import pyoxigraph as ox

        graph, everywhere = ox.NamedNode(document), ox.DefaultGraph()
        orphans = []
        for quad in self.rdf.quads_for_pattern(None, None, None, graph):
            triple = quad.triple
            said = triple.subject, triple.predicate, triple.object
            if ox.Quad(*said, everywhere) in self.rdf:
                stated = self.rdf.quads_for_pattern(*said, None)
                if not any(other.graph_name not in (graph, everywhere) for other in stated):
                    orphans.append(f"{triple} .")
        removal = [f"DELETE DATA {{ {' '.join(orphans)} }}"] if orphans else []
        return [*removal, f"DROP SILENT GRAPH {graph}"]

    def _update(self, operations: list[str]) -> None:
        with self._noticing():
            self.rdf.update(" ;\n".join(operations))

    @contextmanager
    def _noticing(self) -> Iterator[None]:
        """BadData where the disk takes no more."""
        try:
            yield
        except (OSError, RuntimeError) as error:
            raise BadData(f"could not be written ({error})", file=self.folder) from error


def _insertion(written: Written) -> list[str]:
    facts = "\n".join(sorted(f"{triple} ." for triple in written.facts))
    rest = "\n".join(sorted(f"{triple} ." for triple in written.provenance))
    return [f"INSERT DATA {{ {facts}\nGRAPH <{written.iri}> {{ {facts}\n{rest} }} }}"]


# -- opening ---------------------------------------------------------------------------------------


@contextmanager
def writing(folder: str | Path, what: str, base: str | None = None) -> Iterator[GraphStore]:
    """The store at `folder` for the only writer, made where there is none. `what` is told to others
    who want it meanwhile; `base` must be the one it was made with. BadOption, BadData."""
    GRAPH.check()
    folder = Path(folder)
    if not _is_store(folder):
        _make(folder, base or vocabulary.BASE)
    with in_use(folder / LOCK, what, OTHERWISE):
        made = _base(folder)
        if base is not None and base != made:
            raise BadOption(f"--base {base}: {folder} was made with {made}; use another store")
        with closing(GraphStore(folder, made, _open(folder, "write"))) as store:
            yield store
            store.flush()


@contextmanager
def existing(folder: str | Path) -> Iterator[str]:
    """Keeps writers away from the store at `folder`; its base. Missing where there is none."""
    folder = Path(folder)
    if not _is_store(folder):
        stated = "no such folder" if not folder.exists() else "no graph in this folder"
        raise Missing(f"--store {folder}: {stated}; make one: mainspring graph build DOCS")
    with in_use(folder / LOCK, "reading", OTHERWISE, shared=True):
        yield _base(folder)


@contextmanager
def reading(folder: str | Path) -> Iterator[GraphStore]:
    """The store at `folder` for one of any number of readers. Missing where there is none."""
    with existing(folder) as base:
        store = GraphStore(Path(folder), base, _open(Path(folder), "read"))
        with closing(store):
            yield store


def _is_store(folder: Path) -> bool:
    return (folder / MANIFEST).is_file()


def _make(folder: Path, base: str) -> None:
    if not vocabulary.is_iri(base) or base[-1] not in "/#:":
        raise BadOption(f"--base {base}: must be an IRI that ends in /, # or :")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadOption(f"--store {folder}: is there and is no graph; name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{MANIFEST}.{os.getpid()}"
    draft.write_text(json.dumps({"format": FORMAT, "base": base}) + "\n", encoding="utf-8")
    draft.replace(folder / MANIFEST)


def _base(folder: Path) -> str:
    file = folder / MANIFEST
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        number, base = int(manifest["format"]), str(manifest["base"])
    except (ValueError, KeyError, TypeError):
        raise BadData("not the description of a graph", file=file) from None
    if number != FORMAT:
        raise BadData(f"format {number}; this version of Mainspring reads {FORMAT}", file=file)
    return base


def _open(folder: Path, mode: Literal["read", "write"]) -> "ox.Store":
    try:
        import pyoxigraph as ox
    except ModuleNotFoundError:
        raise GRAPH.missing() from None
    triples = folder / TRIPLES
    try:
        if mode == "write" or not triples.exists():
            return ox.Store(str(triples))
        return ox.Store.read_only(str(triples))
    except (OSError, RuntimeError) as error:
        raise BadData(f"the store cannot be opened ({error})", file=triples) from None
