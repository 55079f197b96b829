"""A question is answered by a span of a text: an encoder reads both and points at start and end.

    [CLS] question [SEP] window of the context [SEP]      token types 0 … 0 1 … 1
      └ no answer in this window     └ start, end         loss on both, one cross-entropy each

A context that does not fit is read in windows that share `stride` tokens, the question before each
(Devlin et al., 2019, section 4.2). In training the windows without the answer point at the first
token; in prediction the best span of all windows counts, and where the model was taught that there
may be no answer it is given where the first token is likelier by the threshold.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from mainspring import events, spec
from mainspring.checkpoints.bundle import Bundle
from mainspring.formulations import (
    EncodedRow,
    Formulation,
    Inference,
    OnDone,
    Prediction,
    Setup,
    SpecialIds,
    Values,
)
from mainspring.formulations.inputs import in_batches, in_chunks, too_long
from mainspring.formulations.pairs import Pair, Window, pair_up, stride
from mainspring.formulations.prediction import OnText, tokenizer_of
from mainspring.formulations.span_examples import (
    HEAD,
    collate,
    encode,
    lengths,
    logits,
    losses,
    picture,
)
from mainspring.formulations.spans import (
    LARGEST,
    Candidate,
    Found,
    best_threshold,
    merged,
    window_candidates,
)

LONGEST = 30  # tokens of an answer
AT_ONCE = 1 << 22  # characters of contexts that are held as tokens at a time
LONG = 16  # windows of a row; where there are more, they are counted aloud
THRESHOLD, FOUND_THRESHOLD = "no_answer_threshold", "found_threshold"  # the user's, and fit's


def lacks(model: spec.Model) -> str | None:
    if model.encoder is None or model.decoder is not None:
        return "an encoder alone"
    return None if isinstance(model.encoder.embedding, spec.TokenEmbedding) else "text to read"


def learn(rows: Iterable[Values], setup: Setup) -> Setup:
    """Whether questions may have no answer: then a threshold is looked for on the validation rows,
    unless one is given. Names of classes that another task left have no meaning here."""
    setup = replace(setup, labels=())
    if not any(not row["answers"] for row in rows):
        return setup
    return replace(setup, options={**setup.options, FOUND_THRESHOLD: 0.0})


def threshold_of(options: Mapping[str, Any]) -> float | None:
    """The margin in logits above which "no answer" is said; None where there always is one."""
    return options.get(THRESHOLD, options.get(FOUND_THRESHOLD))


# -- prediction ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reading:
    """What was found in one row. `cut` counts the tokens that were not read."""

    found: Found
    places: np.ndarray
    tokens: int
    cut: int
    windows: int
    error: str | None = None

    def characters(self, candidate: Candidate, context: str) -> tuple[int, int]:
        """Where a candidate stands in the context, without the blanks around it."""
        start, end = int(self.places[candidate.first, 0]), int(self.places[candidate.last, 1])
        text = context[start:end]
        return start + len(text) - len(text.lstrip()), end - len(text) + len(text.rstrip())


def read(
    bundle: Bundle,
    rows: Iterable[Values],
    setup: Setup,
    how: Inference,
    on_done: OnDone = lambda done: None,
) -> Iterator[Reading]:
    """What is found in each row, in order. Rows are taken a few hundred at a time, fewer where
    their contexts are long; windows of like length go together. Where a row has many, they are
    counted in events of their own."""
    tokenizer = tokenizer_of(bundle)
    keep = max(LARGEST, int(setup.options.get("n_best", 1)))
    done = windows_read = windows_known = 0
    long = False
    sized = in_chunks(rows, how.chunk, length=lambda row: len(row["context"]), total=AT_ONCE)
    for chunk in sized:
        pairs = list(pair_up(chunk, tokenizer, setup))
        firsts = [_read(pair, setup, how) for pair in pairs]
        # Windows are made when they are read: those of a long text are far larger than the text.
        chosen = [
            (n, first, pairs[n].length(first)) for n in range(len(pairs)) for first in firsts[n]
        ]
        waiting = Counter(n for n, _, _ in chosen)
        windows_known += len(chosen)
        long = long or any(len(of_row) > LONG for of_row in firsts)
        found: dict[int, Found] = {}
        # The windows of a row come in their order: all but the last are of one length.
        for batch in in_batches(chosen, lambda item: item[2], how.tokens):
            windows = [pairs[n].window(first) for n, first, _ in batch]
            for (n, _, _), result in zip(batch, _point(bundle, windows, setup, keep), strict=True):
                before = found.get(n)
                known = [] if before is None else [(before.candidates, before.no_answer)]
                found[n] = merged([*known, result], keep)
            waiting -= Counter(n for n, _, _ in batch)
            if len(waiting) < len(chunk):
                on_done(done + len(chunk) - len(waiting))
            windows_read += len(batch)
            if long and windows_read < windows_known:
                events.emit(events.Progress("reading", windows_read, windows_known, "windows"))
        done += len(chunk)
        for n, pair in enumerate(pairs):
            yield _reading(pair, firsts[n], found.get(n), setup)
    if long:
        events.emit(events.Progress("reading", windows_read, windows_read, "windows"))


def _read(pair: Pair, setup: Setup, how: Inference) -> range:
    """Where the windows begin that are to be read."""
    firsts = pair.firsts(stride(setup))
    if len(firsts) == 1 or how.on_long == "split":
        return firsts
    return firsts[:1] if how.on_long == "cut" else firsts[:0]


@torch.inference_mode()
def _point(
    bundle: Bundle, windows: Sequence[Window], setup: Setup, keep: int
) -> Iterator[tuple[list[Candidate], float]]:
    """The `keep` best candidates of each window, and its logit of no answer."""
    rows = [EncodedRow(window.ids, (0, 0), second=window.second) for window in windows]
    tensors = collate(rows, SpecialIds(tokenizer_of(bundle).pad_id or 0), 0, 1)
    device = next(bundle.model.parameters()).device
    logits_BS2 = logits(bundle.model, tensors.to(device)).cpu().numpy()
    longest = int(setup.options.get("max_answer", LONGEST))
    for window, logits_S2 in zip(windows, logits_BS2, strict=True):
        start, end = logits_S2[: len(window.ids)].T
        found = window_candidates(
            start, end, window.second, window.tokens, window.first, longest, keep
        )
        yield found, float(start[0] + end[0])


def _reading(pair: Pair, firsts: range, found: Found | None, setup: Setup) -> Reading:
    tokens = pair.question_tokens + len(pair.places)
    if found is None:
        error = too_long(tokens, setup.limits.source)
        return Reading(Found((), 0.0), pair.places, tokens, tokens, 0, error)
    unread = max(0, len(pair.places) - firsts[-1] - pair.room)
    return Reading(found, pair.places, tokens, unread + pair.question_lost, len(firsts))


def prediction(reading: Reading, context: str, setup: Setup) -> Prediction:
    """A reading in the task's terms: the answer and its place, "" where there is none."""
    threshold = threshold_of(setup.options)
    shares, no_share = reading.found.shares(threshold is not None)
    spans = [reading.characters(candidate, context) for candidate in reading.found.candidates]
    listed = [
        {"answer": context[start:end], "start": start, "end": end, "score": round(share, 6)}
        for (start, end), share in zip(spans, shares, strict=True)
        if end > start
    ]
    none = {"answer": "", "start": None, "end": None, "score": round(no_share, 6)}
    silent = not listed or (threshold is not None and reading.found.margin > threshold)
    best = none if silent else listed[0]
    details = {name: best[name] for name in ("start", "end", "score")}
    if threshold is not None and listed:
        details["no_answer_margin"] = round(reading.found.margin, 4)
    if int(setup.options.get("n_best", 1)) > 1:
        details["alternatives"] = _distinct([*listed, *([none] if threshold is not None else [])])[
            : int(setup.options["n_best"])
        ]
    return Prediction(
        best["answer"],
        stop="refused" if reading.error else "",
        source_tokens=reading.tokens,
        source_tokens_unread=reading.cut,
        windows=reading.windows,
        error=reading.error,
        details=details,
    )


def _distinct(listed: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each span once (windows overlap), the likeliest first; a span's share is that of its best."""
    first: dict[tuple[Any, Any], dict[str, Any]] = {}
    for entry in sorted(listed, key=lambda entry: -entry["score"]):
        first.setdefault((entry["start"], entry["end"]), entry)
    return list(first.values())


def predict(
    bundle: Bundle,
    rows: Iterable[Values],
    setup: Setup,
    how: Inference,
    on_done: OnDone = lambda done: None,
    on_text: OnText | None = None,
) -> Iterator[Prediction]:
    """The span of each row's `context` that answers its `question`."""
    del on_text
    from itertools import tee

    asked, kept_rows = tee(rows)
    for reading, row in zip(read(bundle, asked, setup, how, on_done), kept_rows, strict=False):
        yield prediction(reading, row["context"], setup)


def calibrate(bundle: Bundle, rows: Sequence[Values], setup: Setup, how: Inference) -> Setup:
    """The threshold for "no answer" that gives the highest F1 on these rows, where the model was
    taught that there may be none."""
    from mainspring.metrics.answers import METRIC

    if FOUND_THRESHOLD not in setup.options or THRESHOLD in setup.options:
        return setup
    kind = METRIC.choose_kind([row["answers"] for row in rows])
    margins, gains = [], []
    for reading, row in zip(read(bundle, rows, setup, how), rows, strict=True):
        if not reading.found.candidates:
            continue
        start, end = reading.characters(reading.found.candidates[0], row["context"])
        guesses = [row["context"][start:end], ""]
        answered, silent = METRIC.score_rows(guesses, [row["answers"]] * 2, kind)
        margins.append(reading.found.margin)
        gains.append(answered["f1"] - silent["f1"])
    found = round(best_threshold(margins, gains), 4) if margins else 0.0
    return replace(setup, options={**setup.options, FOUND_THRESHOLD: found})


FORMULATION = Formulation(
    "span extraction",
    lacks,
    encode,
    collate,
    losses,
    lengths,
    predict,
    head=HEAD,
    learn=learn,
    picture=picture,
    calibrate=calibrate,
    lost=("inexact", "answers begin or end within a token, or are longer than a window"),
)
