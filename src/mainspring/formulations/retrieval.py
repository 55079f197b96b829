"""Questions answered from many documents: the nearest passages are found, read, and cited.

question ──> retriever ──> passages of the index ──> reader ──> answer, with document and characters

The retriever is a sentence encoder (Reimers and Gurevych, 2019). A reader that points reads each
passage and the best span of all counts, its logit interpolated with the passage's similarity
(Yang et al., 2019); one that writes reads the passages together.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mainspring.checkpoints.bundle import Bundle, load
from mainspring.checkpoints.packaged import cache_folder
from mainspring.data.passages import Passage, documents
from mainspring.data.skipped import SkipLog
from mainspring.events import listening, warn
from mainspring.formulations import (
    Formulation,
    Inference,
    OnDone,
    Prediction,
    Setup,
    Values,
    generated_answers,
    span_extraction,
)
from mainspring.formulations.embedding import Embedder, embed, embedder, normalised
from mainspring.formulations.inputs import in_chunks
from mainspring.formulations.passage_index import Index, update_index
from mainspring.formulations.prediction import OnText, tokenizer_of
from mainspring.formulations.spans import LARGEST

RETRIEVER, PASSAGES = "minilm", 5
AT_ONCE = 32  # questions
SIMILARITY = 10.0  # logits that a cosine of 1 counts


@dataclass(frozen=True)
class Hit:
    """A passage and how near it is to the question (the cosine of their vectors)."""

    passage: Passage
    similarity: float


@dataclass(frozen=True)
class Retriever:
    """Finds passages for questions."""

    model: Embedder
    index: Index
    count: int
    search: Any

    def find(self, questions: Sequence[str]) -> list[list[Hit]]:
        """The nearest passages of each question, the nearest first."""
        made = embed(self.model, questions, prompt=self.model.settings.prompt("query"))
        vectors = normalised(np.stack([one.vector for one in made]))
        return [
            [Hit(self.index.passage(number), cosine) for number, cosine in row]
            for row in self.index.nearest(vectors, self.count, self.search)
        ]


def open_retriever(setup: Setup, how: Inference) -> Retriever:
    """The retriever that the options name, over an index that is made or brought up to date."""
    options = setup.options
    name, place = options.get("retriever", RETRIEVER), options["documents"]
    bundle = load(name)
    model = embedder(bundle)
    how.prepare(bundle.model)
    made = {"retriever": str(name), "tokens": model.limit, "width": model.width}
    with SkipLog() as skipped:
        index = update_index(
            index_folder(place, str(name), options.get("index")),
            model,
            documents(place, skipped),
            made,
            _count(place),
        )
    if skipped.total:
        warn(f"{skipped.total} documents skipped: {skipped.summary()}")
    return Retriever(
        model, index, options.get("passages", PASSAGES), options.get("search", "exact")
    )


def _count(place: str) -> int:
    """How many documents there are."""
    with SkipLog() as unlisted, listening(lambda event: None):
        return sum(1 for _ in documents(place, unlisted))


def index_folder(place: str, retriever: str, named: str | None) -> Path:
    """Where an index lies: where the user says, else in the cache folder, by what it is of."""
    if named is not None:
        return Path(named)
    whole = f"{Path(place).resolve()}\n{retriever}"
    digest = hashlib.blake2b(whole.encode(), digest_size=8).hexdigest()
    return cache_folder() / "indexes" / f"{Path(place).name}-{digest}"


# -- readers ---------------------------------------------------------------------------------------


def point(
    bundle: Bundle, rows: Sequence[Values], found: Sequence[list[Hit]], setup: Setup, how: Inference
) -> Iterator[Prediction]:
    """The best span over all passages of each question."""
    asked = [
        {"question": row["question"], "context": hit.passage.text}
        for row, hits in zip(rows, found, strict=True)
        for hit in hits
    ]
    readings = span_extraction.read(bundle, asked, setup, how)
    for _, hits in zip(rows, found, strict=True):
        yield _best_span(hits, [next(readings) for _ in hits], setup)


def _best_span(
    hits: Sequence[Hit], readings: Sequence[span_extraction.Reading], setup: Setup
) -> Prediction:
    threshold = span_extraction.threshold_of(setup.options)
    listed = []
    for hit, reading in zip(hits, readings, strict=True):
        none = 0.0 if threshold is None else reading.found.no_answer
        for candidate in reading.found.candidates:
            start, end = reading.characters(candidate, hit.passage.text)
            if end > start:
                key = candidate.logit - none + SIMILARITY * hit.similarity
                listed.append((key, reading.found.margin, hit, start, end))
    listed.sort(key=lambda entry: -entry[0])
    listed = listed[:LARGEST]
    tokens = sum(reading.tokens for reading in readings)
    if not listed:
        return Prediction("", source_tokens=tokens, details=_cited(None, None, None, 0.0))
    keys = np.array([entry[0] for entry in listed])
    shares = (np.exp(keys - keys.max()) / np.exp(keys - keys.max()).sum()).tolist()
    entries = [
        {"answer": hit.passage.text[a:b], **_cited(hit, a, b, share)}
        for (_, _, hit, a, b), share in zip(listed, shares, strict=True)
    ]
    margin = listed[0][1]
    silent = threshold is not None and margin > threshold
    best = {"answer": "", **_cited(None, None, None, 0.0)} if silent else entries[0]
    details = {name: value for name, value in best.items() if name != "answer"}
    if threshold is not None:
        details["no_answer_margin"] = round(margin, 4)
    count = int(setup.options.get("n_best", 1))
    if count > 1:
        details["alternatives"] = entries[:count]
    return Prediction(
        best["answer"],
        source_tokens=tokens,
        source_tokens_unread=sum(reading.cut for reading in readings),
        windows=sum(reading.windows for reading in readings),
        texts=len(readings),
        details=details,
    )


def _cited(hit: Hit | None, start: int | None, end: int | None, score: float) -> dict[str, Any]:
    """Where an answer stands: its document and characters there, and the passage around it."""
    if hit is None:
        empty = dict.fromkeys(("document", "start", "end", "passage", "similarity"))
        return {**empty, "score": round(score, 6)}
    passage = hit.passage
    return {
        "document": passage.document,
        "start": None if start is None else passage.start + start,
        "end": None if end is None else passage.start + end,
        "score": round(score, 6),
        "passage": passage.text.strip(),
        "similarity": round(hit.similarity, 4),
    }


def write(
    formulation: Formulation,
    bundle: Bundle,
    rows: Sequence[Values],
    found: Sequence[list[Hit]],
    setup: Setup,
    how: Inference,
    on_text: OnText | None,
) -> Iterator[Prediction]:
    """What is written from as many of the passages as fit, the nearest first; the passage that
    holds the answer word for word is cited, or else the nearest."""
    assert formulation.predict is not None
    fitting = [_fitting(row, hits, bundle, setup) for row, hits in zip(rows, found, strict=True)]
    asked = [
        {
            "question": row["question"],
            "context": "\n\n".join(hit.passage.text.strip() for hit in hits),
        }
        for row, hits in zip(rows, fitting, strict=True)
    ]
    cut = replace(how, on_long="cut")
    made = formulation.predict(bundle, asked, setup, cut, lambda done: None, on_text)
    for prediction, hits in zip(made, fitting, strict=True):
        answer = prediction.value.casefold()
        holding = [hit for hit in hits if answer and answer in hit.passage.text.casefold()]
        hit = holding[0] if holding else hits[0] if answer else None
        start = end = None
        if (
            hit is not None
            and holding
            and len(hit.passage.text.casefold()) == len(hit.passage.text)
        ):
            start = hit.passage.text.casefold().index(answer)
            end = start + len(answer)
        details = _cited(hit, start, end, 0.0)
        del details["score"]  # what is written has none
        yield replace(prediction, details=details)


def _fitting(row: Values, hits: list[Hit], bundle: Bundle, setup: Setup) -> list[Hit]:
    """As many of the nearest passages as the model reads at once, at least one."""
    tokenizer = tokenizer_of(bundle)
    texts = [hit.passage.text for hit in hits]
    question, *sizes = [len(ids) for ids in tokenizer.encode_many([row["question"], *texts])]
    room = setup.limits.source - question - 32  # what the prompt puts around
    held = np.cumsum(sizes)
    return hits[: max(1, int((held <= room).sum()))]


def over_documents(formulation: Formulation) -> Formulation:
    """A formulation that answers questions about a text, for questions about a folder of them."""

    def predict(
        bundle: Bundle,
        rows: Iterable[Values],
        setup: Setup,
        how: Inference,
        on_done: OnDone = lambda done: None,
        on_text: OnText | None = None,
    ) -> Iterator[Prediction]:
        retriever = open_retriever(setup, how)
        done = 0
        for chunk in in_chunks(rows, AT_ONCE):
            found = retriever.find([row["question"] for row in chunk])
            if formulation.generates:
                only = on_text if len(chunk) == 1 else None
                made = write(formulation, bundle, chunk, found, setup, how, only)
            else:
                made = point(bundle, chunk, found, setup, how)
            for prediction in made:
                done += 1
                on_done(done)
                yield prediction

    return replace(formulation, predict=predict)


SPANS = over_documents(span_extraction.FORMULATION)
SEQUENCE_TO_SEQUENCE = over_documents(generated_answers.SEQUENCE_TO_SEQUENCE)
CAUSAL = over_documents(generated_answers.CAUSAL)
