"""A label for each word of a text, by an encoder: named entities and whatever else tags say.

    text     Angela      Merkel  in  Paris         tokens  [CLS] An ##gela Merkel in Paris [SEP]
    tags     B-PER       I-PER   O   B-LOC         labels        B  -      I      O  B

Words that the data has carry their label at their first token; where the data has characters only,
and in scripts without spaces, every token carries one. Long texts are read in overlapping windows
(`units.overlapping_windows`): each token is answered for by the window in which it stands further
from the edge, and what is decided for the last unit of a window binds the first of the next.
"""

from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mainspring import events, spec
from mainspring.checkpoints.bundle import Bundle
from mainspring.checkpoints.tokenizer import Tokenizer
from mainspring.core.model import Transformer
from mainspring.data.entities import (
    Entity,
    parse_tag,
    repair_tags,
    scheme_of,
    spans_to_tags,
    tags_to_spans,
    utf16_places,
)
from mainspring.errors import BadData, BadOption, Mismatch
from mainspring.formulations import (
    IGNORED,
    Batch,
    EncodedRow,
    Formulation,
    Inference,
    OnDone,
    Prediction,
    Setup,
    SpecialIds,
    Values,
)
from mainspring.formulations.inputs import (
    in_batches,
    in_chunks,
    kept,
    padded,
    source_tensors,
    too_long,
)
from mainspring.formulations.prediction import OnText, tokenizer_of
from mainspring.formulations.tagging import Rules, best_labels, broken_rules, rules_of
from mainspring.formulations.units import (
    Units,
    Window,
    overlapping_windows,
    read_units,
    unit_tags,
)
from mainspring.text import word_spans

HEAD = "token_classes"
OVERLAP = 64  # tokens that neighbouring windows have in common
AT_ONCE = 1_000_000  # characters whose tokens are held at a time, or one text
MANY = 10  # entities; that the ends of so many are wrong alike is no chance

# Where more than this share of the training entities begins or ends within a word, what is read
# later is told apart by tokens instead of words.
CUT_WORDS = 0.01


def lacks(model: spec.Model) -> str | None:
    if model.encoder is None or model.decoder is not None:
        return "an encoder alone"
    if not isinstance(model.encoder.embedding, spec.TokenEmbedding):
        return "an encoder that reads tokens"
    return None


# -- learning what there is --------------------------------------------------------------------


def learn(rows: Iterable[Values], setup: Setup) -> Setup:
    """The labels of the training rows (those of the checkpoint stay where they hold them all), and
    whether entities begin and end with words. BadData where all of many end one character too
    early, as places do whose last character is counted in; a warning where places seem to count
    UTF-16 units."""
    if setup.prefix:
        raise BadOption("--prefix: a text whose places are to be told is read as it is")
    count: Counter[str] = Counter()
    cut = placed = early = shifted = behind = 0
    for row in rows:
        entities: list[Entity] = row["entities"]
        count.update(entity["label"] for entity in entities)
        if entities and row.get("words") is None:
            starts, ends = (set(marks) for marks in zip(*word_spans(row["text"]), strict=True))
            cut += sum(e["start"] not in starts or e["end"] not in ends for e in entities)
            placed += len(entities)
            early += sum(e["end"] not in ends and e["end"] + 1 in ends for e in entities)
            if at := utf16_places(row["text"]):
                moved = [e for e in entities if at.get(e["start"]) != e["start"]]
                behind += len(moved)
                shifted += sum(
                    e["start"] not in starts and at.get(e["start"], -1) in starts for e in moved
                )
    if not count:
        raise BadData("the training rows hold no entity; is it the right column?")
    if early == placed >= MANY:
        raise BadData(
            f"all {placed} entities end one character before their word does: an end is one past "
            "the last character, so add one to each"
        )
    # Blanks are cut off from spans: a place after a short word may still look right.
    if shifted * 4 >= behind * 3 > 0:
        events.warn(
            f"{shifted} of {behind} entities behind an emoji or the like begin within a word, but "
            "with one if places count UTF-16 units, as JavaScript does: make them count characters"
        )
    needed = ["O", *(f"{prefix}-{label}" for label in sorted(count) for prefix in "BI")]
    labels = setup.labels if set(needed) <= set(setup.labels) else tuple(needed)
    units = "tokens" if cut > CUT_WORDS * count.total() else "words"
    return replace(setup, labels=labels, options={**setup.options, "units": units})


# -- training ----------------------------------------------------------------------------------


def encode(rows: Sequence[Values], tokenizer: Tokenizer, setup: Setup) -> list[EncodedRow]:
    """Examples of rows with `text`, `entities` and, where they are known, the places of `words`.

    A row gives as many as it has windows. `target_lost` counts the entities that do not begin and
    end with a unit, and so cannot be learnt exactly.
    """
    numbers = {label: number for number, label in enumerate(setup.labels)}
    before, after = tokenizer.frame
    size = window_size(setup, tokenizer)
    examples = []
    all_units = read_units(
        [row["text"] for row in rows], [row.get("words") for row in rows], tokenizer, within=True
    )
    for row, units in zip(rows, all_units, strict=True):
        tags, inexact = unit_tags(units, row["entities"])
        labels = np.full(len(units.ids), IGNORED, np.int64)
        labels[np.array(units.at, np.int64)] = [numbers.get(tag, IGNORED) for tag in tags]
        for window in overlapping_windows(len(units.ids), size, min(OVERLAP, size // 2)):
            own = np.full(window.end - window.start, IGNORED, np.int64)
            mine = slice(window.own_start - window.start, window.own_end - window.start)
            own[mine] = labels[window.own_start : window.own_end]
            if not (own != IGNORED).any():
                continue
            ids = [*before, *units.ids[window.start : window.end], *after]
            target = [*[IGNORED] * len(before), *own.tolist(), *[IGNORED] * len(after)]
            examples.append(EncodedRow(ids, target, 0, inexact))
            inexact = 0
    return examples


def window_size(setup: Setup, tokenizer: Tokenizer) -> int:
    """How many tokens of a text one window holds."""
    around = sum(map(len, tokenizer.frame))
    size = setup.limits.source - around
    if size < 1:
        raise BadOption(f"--max-source {setup.limits.source} leaves no room beside {around} tokens")
    return size


def collate(examples: Sequence[EncodedRow], ids: SpecialIds, seed: int, multiple: int) -> Batch:
    """Pads texts and their labels alike."""
    del seed  # nothing is drawn here
    sources = [example.source for example in examples]
    source_BS = padded(sources, ids.pad, multiple)
    labels_BS = padded([example.target for example in examples], IGNORED, multiple)
    learnt = int((labels_BS != IGNORED).sum())
    tokens = sum(map(len, sources))
    return Batch(source_BS, kept(sources, source_BS.shape[1]), labels_BS, tokens - learnt, learnt)


def losses(model: Transformer, batch: Batch) -> Tensor:
    """The summed cross-entropy of each example's labels, in nats, float32 (B)."""
    logits_BSC = read_logits(model, batch.source_BS, batch.keep_BS)
    return (
        F.cross_entropy(
            logits_BSC.flatten(0, 1),
            batch.labels_BT.flatten(),
            ignore_index=IGNORED,
            reduction="none",
        )
        .view_as(batch.labels_BT)
        .sum(1)
    )


def read_logits(model: Transformer, source_BS: Tensor, keep_BS: Tensor | None) -> Tensor:
    """What the head says of each token (B, S, classes), float32."""
    return model.read(HEAD, model.encode(source_BS, keep_BS), keep_BS).float()


def lengths(example: EncodedRow) -> tuple[int, int]:
    return len(example.source), 0


def picture(row: EncodedRow, tokenizer: Tokenizer, setup: Setup, most: int = 16) -> str:
    """Tokens with their labels; those without carry no loss."""
    shown = [
        token if label == IGNORED else f"{token} ■{setup.labels[label]}"
        for token, label in zip(tokenizer.tokens(row.source), row.target, strict=True)
    ]
    left = len(shown) - most
    return " ".join(shown[:most]) + (f" … {left} more" if left > 0 else "")


# -- prediction --------------------------------------------------------------------------------


@dataclass
class _Text:
    """A row on its way: its units, and what is decided so far."""

    row: Values
    units: Units
    windows: list[Window]
    error: str | None = None
    unread: int = 0
    labels: "array[int]" = field(default_factory=lambda: array("H"))
    scores: "array[float]" = field(default_factory=lambda: array("f"))
    repairs: int = 0


@dataclass
class _Piece:
    """One window of a text; `first` is its first own unit, `own` how many it has. The model's
    log-probabilities are kept of those and of the units behind them, which help to decide."""

    text: _Text
    window: Window
    first: int
    own: int
    last: bool
    found_UC: np.ndarray | None = None


def predict(
    bundle: Bundle,
    rows: Iterable[Values],
    setup: Setup,
    how: Inference,
    on_done: OnDone = lambda done: None,
    on_text: OnText | None = None,
) -> Iterator[Prediction]:
    """The entities of each row's `text` (of its `words`, where they are given), in order.

    Held at a time are the tokens of some texts and the windows of one chunk, whatever the length
    of a text.
    """
    del on_text  # nothing is written
    tokenizer = tokenizer_of(bundle)
    size = window_size(setup, tokenizer)
    rules = _rules(bundle, setup)
    done = 0
    groups = in_chunks(rows, how.chunk, length=lambda row: len(row["text"]), total=AT_ONCE)
    for group in groups:
        texts = _read(group, tokenizer, setup, how, size)
        ready = 0
        for chunk in in_chunks(_pieces(texts), how.chunk):
            for batch in in_batches(chunk, lambda p: p.window.end - p.window.start, how.tokens):
                _look(bundle, batch, tokenizer)
            for piece in chunk:
                _decide(piece, rules, constrained=setup.options.get("decoding") != "argmax")
                ready += piece.last
            on_done(done + ready)
        done += len(texts)
        for text in texts:
            yield _prediction(text, setup, tokenizer)


def _rules(bundle: Bundle, setup: Setup) -> Rules:
    head = dict(bundle.spec.heads).get(HEAD)
    assert isinstance(head, spec.TokenClassHead)
    if len(setup.labels) != head.classes:
        raise Mismatch(
            f"the model tells {head.classes} classes apart and names {len(setup.labels)} "
            "(`id2label` in config.json); name them all"
        )
    return rules_of(setup.labels)


def _read(
    rows: Sequence[Values], tokenizer: Tokenizer, setup: Setup, how: Inference, size: int
) -> list[_Text]:
    """The rows' units and windows, as `how.on_long` wants them."""
    all_units = read_units(
        [row["text"] for row in rows],
        [row.get("words") for row in rows],
        tokenizer,
        "tokens" if setup.options.get("units") == "tokens" else "words",
    )
    texts = []
    for row, units in zip(rows, all_units, strict=True):
        count = len(units.ids)
        windows = list(overlapping_windows(count, size, min(OVERLAP, size // 2)))
        text = _Text(row, units, windows)
        if len(windows) > 1 and how.on_long == "refuse":
            around = sum(map(len, tokenizer.frame))
            text.error = too_long(count + around, setup.limits.source)
            text.windows, text.unread = [], count
        elif len(windows) > 1 and how.on_long == "cut":
            text.windows, text.unread = [Window(0, size, 0, size)], count - size
        texts.append(text)
    return texts


def _pieces(texts: Iterable[_Text]) -> Iterator[_Piece]:
    for text in texts:
        first = 0
        for number, window in enumerate(text.windows):
            end = bisect_left(text.units.at, window.own_end)
            yield _Piece(text, window, first, end - first, number + 1 == len(text.windows))
            first = end


@torch.inference_mode()
def _look(bundle: Bundle, batch: Sequence[_Piece], tokenizer: Tokenizer) -> None:
    """Fills in what the model says of each piece's own units and of those behind them."""
    before, after = tokenizer.frame
    device = next(bundle.model.parameters()).device
    rows = [[*before, *p.text.units.ids[p.window.start : p.window.end], *after] for p in batch]
    ids_BS, keep_BS = source_tensors(rows, tokenizer.pad_id or 0, device)
    logits_BSC = read_logits(bundle.model, ids_BS, keep_BS)
    found_BSC = logits_BSC.log_softmax(-1).cpu().numpy()
    for row, piece in enumerate(batch):
        units = piece.text.units
        last = bisect_left(units.at, piece.window.end)
        at = np.array(units.at[piece.first : last], np.int64)
        piece.found_UC = found_BSC[row, at - piece.window.start + len(before)].copy()


def _decide(piece: _Piece, rules: Rules, *, constrained: bool) -> None:
    """Decides on the labels of a piece's own units; those of the piece before are decided."""
    text, found_UC = piece.text, piece.found_UC
    assert found_UC is not None
    free = found_UC.argmax(1)
    before = text.labels[-1] if text.labels else None
    text.repairs += broken_rules(free[: piece.own], rules, before)
    labels = best_labels(found_UC, rules, before, ends=piece.last) if constrained else free
    own = labels[: piece.own]
    text.labels.extend(own.tolist())
    text.scores.extend(np.exp(found_UC[np.arange(len(own)), own]).tolist())
    piece.found_UC = None


def _prediction(text: _Text, setup: Setup, tokenizer: Tokenizer) -> Prediction:
    """The entities of a text that is read to its end."""
    row, units = text.row, text.units
    scheme = scheme_of(setup.labels)
    tags, _ = repair_tags((setup.labels[label] for label in text.labels), scheme)
    found: list[dict[str, Any]] = []
    for label, first, end in tags_to_spans(tags):
        start, stop = units.starts[first], units.ends[end - 1]
        score = float(np.mean(text.scores[first:end]))
        words = row["text"][start:stop]
        entity = {"label": label, "text": words, "start": start, "end": stop}
        found.append({**entity, "score": round(score, 4), "entity_group": label, "word": words})
    known = {parse_tag(label, scheme)[1] for label in setup.labels}
    unknown = sum(e["label"] not in known for e in row.get("entities") or ())
    counts = {"tag repairs": text.repairs, "entities of unknown labels": unknown}
    return Prediction(
        found,
        stop="refused" if text.error else "",
        source_tokens=len(units.ids) + sum(map(len, tokenizer.frame)),
        source_tokens_unread=text.unread,
        windows=len(text.windows),
        error=text.error,
        details=_of_words(row, found),
        counts={name: count for name, count in counts.items() if count},
    )


def _of_words(row: Values, found: Sequence[Entity]) -> dict[str, Any]:
    """For a row of words: the text that offsets refer to, and a tag for each word."""
    words = row.get("words")
    if words is None:
        return {}
    starts, ends = [start for start, _ in words], [end for _, end in words]
    spans = [
        (e["label"], bisect_left(starts, e["start"]), 1 + bisect_left(ends, e["end"]))
        for e in found
    ]
    return {"text": row["text"], "predicted_tags": spans_to_tags(spans, len(words))}


FORMULATION = Formulation(
    "token classification",
    lacks,
    encode,
    collate,
    losses,
    lengths,
    predict,
    head=HEAD,
    learn=learn,
    lost=("inexact", "entities begin or end within a token"),
    picture=picture,
)
