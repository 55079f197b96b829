"""Passages of documents with their vectors, in a folder, and those nearest to a question.

FOLDER/
    index.json          what made the vectors; each document's name, digest and passages
    passages.jsonl      one passage a line
    vectors.npy         their vectors, of length 1
    hnsw.faiss          a graph over them, where an approximate search was asked for

A document that has not changed keeps its vectors; an index that is stopped in the making is none.
"""

import json
import shutil
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import tee
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mainspring import events
from mainspring.data.passages import Document, Passage, passages
from mainspring.errors import BadData, BadOption
from mainspring.extras import HNSW
from mainspring.formulations.embedding import Embedder, Vector, embed, normalised
from mainspring.formulations.pairs import frame
from mainspring.formulations.prediction import tokenizer_of

FORMAT = 2  # 1 could have several documents under one name
INDEX, PASSAGES, VECTORS, GRAPH = "index.json", "passages.jsonl", "vectors.npy", "hnsw.faiss"
TOKENS = 160  # of a passage
ROWS = 1 << 16  # vectors that are compared at a time
LINKS, WIDTH = 32, 200  # of the approximate search's graph

Search = Literal["exact", "hnsw"]


@dataclass(frozen=True)
class Index:
    """An index that lies in `folder`. `starts` are where the lines of its passages begin."""

    folder: Path
    made: Mapping[str, Any]
    documents: Mapping[str, tuple[str, tuple[int, ...]]]  # name -> digest, numbers of passages
    vectors: Vector
    starts: "array[int]"

    def passage(self, number: int) -> Passage:
        with (self.folder / PASSAGES).open("rb") as lines:
            lines.seek(self.starts[number])
            return Passage(**json.loads(lines.readline()))

    def nearest(
        self, questions: Vector, count: int, search: Search = "exact"
    ) -> list[list[tuple[int, float]]]:
        """For each question the numbers of its `count` nearest passages, and the cosines, the
        nearest first."""
        count = min(count, len(self.vectors))
        if search == "hnsw":
            cosines, numbers = self._graph().search(questions, count)
        else:
            cosines, numbers = self._exact(questions, count)
        return [
            [(int(n), float(c)) for n, c in zip(*row, strict=True) if n >= 0]
            for row in zip(numbers, cosines, strict=True)
        ]

    def _exact(self, questions: Vector, count: int) -> tuple[np.ndarray, np.ndarray]:
        best: Vector = np.zeros((len(questions), 0), dtype=np.float32)
        numbers: NDArray[np.int64] = np.zeros((len(questions), 0), dtype=np.int64)
        for at in range(0, len(self.vectors), ROWS):
            found = questions @ self.vectors[at : at + ROWS].T
            best = np.concatenate([best, found], 1)
            here = np.broadcast_to(np.arange(at, at + found.shape[1]), found.shape)
            numbers = np.concatenate([numbers, here], 1)
            order = np.argsort(-best, axis=1, kind="stable")[:, :count]
            best = np.take_along_axis(best, order, 1)
            numbers = np.take_along_axis(numbers, order, 1)
        return best, numbers

    def _graph(self) -> Any:
        """The graph of the approximate search (Malkov and Yashunin, 2016), built when first asked
        for."""
        try:
            import faiss
        except ImportError:
            raise HNSW.missing() from None
        file = self.folder / GRAPH
        if file.exists():
            return faiss.read_index(str(file))
        graph = faiss.IndexHNSWFlat(self.vectors.shape[1], LINKS, faiss.METRIC_INNER_PRODUCT)
        graph.hnsw.efConstruction, graph.hnsw.efSearch = WIDTH, WIDTH
        for at in range(0, len(self.vectors), ROWS):
            graph.add(np.ascontiguousarray(self.vectors[at : at + ROWS]))
        faiss.write_index(graph, str(file))
        return graph


def open_index(folder: Path) -> Index | None:
    """The index in a folder; None where there is none that this release reads."""
    if not (folder / INDEX).is_file():
        return None
    try:
        stored = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        if stored["format"] != FORMAT:
            return None
        named = {name: (digest, tuple(at)) for name, (digest, at) in stored["documents"].items()}
        vectors = np.load(folder / VECTORS, mmap_mode="r")
        starts = array("q")
        with (folder / PASSAGES).open("rb") as lines:
            while lines.readline():
                starts.append(lines.tell())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadData(f"not an index that can be read ({error}); remove it", file=folder) from None
    starts.insert(0, 0)
    if len(starts) != len(vectors) + 1:
        raise BadData("its passages and vectors are not equally many; remove it", file=folder)
    return Index(folder, stored["made"], named, vectors, starts)


def update_index(
    folder: Path,
    model: Embedder,
    found: Iterable[Document],
    made: Mapping[str, Any],
    total: int | None = None,
) -> Index:
    """The index of these `total` documents in `folder`, which is not touched where nothing changed.

    `made` says how vectors are made: those of an index that was made otherwise are not kept.
    """
    before = open_index(folder)
    if before is not None and dict(before.made) != dict(made):
        events.note(f"{folder}: made with {dict(before.made)}; the index is built anew")
        before = None
    if before is None and folder.exists() and not _ours(folder):
        raise BadOption(f"--index {folder}: a folder with other files; name one of its own")
    folder.mkdir(parents=True, exist_ok=True)
    draft = Path(mkdtemp(prefix=".building-", dir=folder))
    try:
        writer = _Writer(draft, model.width, made)
        with writer.open() as add:
            for passage, vector in _vectors(model, _fresh(found, before, add, model, total)):
                add(passage, vector)
        kept = before is not None and writer.reused == len(writer.documents)
        if before is not None and kept and len(before.documents) == len(writer.documents):
            events.note(f"{folder}: {len(before.vectors)} passages, as before")
            return before
        writer.finish()
        # An index without its first file is none: what stops here is begun again, never mixed.
        for name in (INDEX, GRAPH):
            (folder / name).unlink(missing_ok=True)
        for name in (PASSAGES, VECTORS, INDEX):
            (draft / name).replace(folder / name)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    index = open_index(folder)
    assert index is not None
    events.note(
        f"{folder}: {len(index.vectors)} passages of {len(index.documents)} documents, "
        f"{writer.reused} of them as before"
    )
    return index


def _ours(folder: Path) -> bool:
    """Whether there is nothing in a folder but what an index has."""
    names = (INDEX, PASSAGES, VECTORS, GRAPH)
    return all(f.name in names or f.name.startswith(".building-") for f in folder.iterdir())


class _Writer:
    """The files of an index that is being made."""

    def __init__(self, folder: Path, width: int, made: Mapping[str, Any]):
        self.folder, self.width, self.made = folder, width, made
        self.documents: dict[str, tuple[str, list[int]]] = {}
        self.count = self.reused = 0

    def open(self) -> "_Writer":
        self.lines = (self.folder / PASSAGES).open("wb")
        self.numbers = (self.folder / f"{VECTORS}.part").open("wb")
        return self

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, *error: object) -> None:
        self.lines.close()
        self.numbers.close()

    def begin(self, document: Document, *, reused: bool = False) -> None:
        assert document.name not in self.documents, f"two documents are called {document.name}"
        self.documents[document.name] = (document.digest, [])
        self.reused += reused

    def __call__(self, passage: Passage, vector: Vector) -> None:
        self.documents[passage.document][1].append(self.count)
        self.lines.write(json.dumps(vars(passage), ensure_ascii=False).encode() + b"\n")
        self.numbers.write(np.ascontiguousarray(vector, dtype="<f4").tobytes())
        self.count += 1

    def finish(self) -> None:
        header = {"descr": "<f4", "fortran_order": False, "shape": (self.count, self.width)}
        part = self.folder / f"{VECTORS}.part"
        with part.open("rb") as numbers, (self.folder / VECTORS).open("wb") as out:
            np.lib.format.write_array_header_1_0(out, header)
            shutil.copyfileobj(numbers, out, 1 << 22)
        part.unlink()
        stored = {"format": FORMAT, "made": dict(self.made), "documents": self.documents}
        text = json.dumps(stored, ensure_ascii=False)
        (self.folder / INDEX).write_text(text, encoding="utf-8")


def _fresh(
    found: Iterable[Document],
    before: Index | None,
    add: _Writer,
    model: Embedder,
    total: int | None,
) -> Iterator[Passage]:
    """The passages whose vectors are to be made; those of documents as before are copied."""
    count = _counter(model)
    limit = min(TOKENS, model.limit - frame(tokenizer_of(model.bundle)).tokens)
    done, show = 0, events.counter("indexing", total, "documents")
    for document in found:
        digest, numbers = (
            ("", ()) if before is None else before.documents.get(document.name, ("", ()))
        )
        if before is not None and digest == document.digest:
            add.begin(document, reused=True)
            for number in numbers:
                add(before.passage(number), before.vectors[number])
        else:
            add.begin(document)
            yield from passages(document, count, limit)
        done += 1
        show(done)
    events.emit(events.Progress("indexing", done, done, "documents"))


def _counter(model: Embedder) -> Callable[[Iterable[str]], list[int]]:
    tokenizer = tokenizer_of(model.bundle)
    prompt = model.settings.prompt("document")

    def count(texts: Iterable[str]) -> list[int]:
        asked = [model.settings.read(prompt + text) for text in texts]
        return [len(ids) for ids in tokenizer.encode_many(asked, special=False)]

    return count


def _vectors(model: Embedder, found: Iterable[Passage]) -> Iterator[tuple[Passage, Vector]]:
    asked, kept = tee(found)
    texts = (passage.text for passage in asked)
    for made in embed(model, texts, prompt=model.settings.prompt("document")):
        yield next(kept), normalised(made.vector)
