"""From texts to generated texts: windows over long inputs, batches by length, answers in order.

Texts are taken a few hundred at a time: within such a chunk pieces of like length go together, so
that little padding is computed, and the answers come back in the order of the texts. Nothing else
is held, so any number of texts can stream through.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mainspring.checkpoints.bundle import Bundle
from mainspring.checkpoints.tokenizer import Tokenizer
from mainspring.data.windows import text_windows
from mainspring.errors import Mismatch
from mainspring.formulations import (
    Inference,
    Limits,
    OnDone,
    Predict,
    Prediction,
    Setup,
    Values,
)
from mainspring.formulations.inputs import (
    common_end,
    cut_before_end,
    in_batches,
    in_chunks,
    source_tensors,
    too_long,
)
from mainspring.generation.options import GenerationOptions
from mainspring.generation.search import generate

Encode = Callable[[Sequence[str]], list[list[int]]]
Read = Callable[[Sequence[str], Tokenizer, Setup], list[list[int]]]
OnText = Callable[[str], None]
SHORTEST = ("", "x")  # texts that have nothing in common: what they end with stands behind all


@dataclass
class _Piece:
    text: int  # which text of the chunk it belongs to
    ids: list[int]
    answer: str = ""
    stop: str = ""
    tokens: int = 0


def generation_options(
    generation_config: Mapping[str, Any], limits: Limits, given: Mapping[str, Any]
) -> GenerationOptions:
    """The checkpoint's options under the user's; the length limit is the task's unless given."""
    lengths = ("max_new_tokens", "max_length")
    if not any(given.get(name) is not None for name in lengths):
        given = {**given, "max_new_tokens": limits.target}
        generation_config = {k: v for k, v in generation_config.items() if k not in lengths}
    return GenerationOptions.merge(generation_config, **given)


def tokenizer_of(bundle: Bundle) -> Tokenizer:
    """The tokenizer, which whoever reads text needs."""
    if bundle.tokenizer is None:
        raise Mismatch("this checkpoint has no tokenizer, so it cannot read text")
    return bundle.tokenizer


def writing(read: Read) -> Predict:
    """The `predict` of a formulation that writes a text to the rows' `text`; `read(texts,
    tokenizer, setup)` gives what the model reads for each."""

    def predict(
        bundle: Bundle,
        rows: Iterable[Values],
        setup: Setup,
        how: Inference,
        on_done: OnDone = lambda done: None,
        on_text: OnText | None = None,
    ) -> Iterator[Prediction]:
        tokenizer = tokenizer_of(bundle)

        def encode(texts: Sequence[str]) -> list[list[int]]:
            return read(texts, tokenizer, setup)

        texts = (row["text"] for row in rows)
        return write(bundle, texts, setup, how, encode, on_done, on_text)

    return predict


def write(
    bundle: Bundle,
    texts: Iterable[str],
    setup: Setup,
    how: Inference,
    encode: Encode,
    on_done: OnDone = lambda done: None,
    on_text: OnText | None = None,
) -> Iterator[Prediction]:
    """What the model writes to each text, in order.

    `encode` turns texts into what the model reads for them. `on_done(count)` is called after each
    batch, with the number of texts that are done to their last window. `on_text` gets the pieces
    of each answer as they are written, one text at a time; where there is one.
    """
    tokenizer = tokenizer_of(bundle)
    assert how.options is not None
    copies = how.options.num_beams * how.options.num_return_sequences
    one_by_one = on_text is not None and copies == 1
    done = 0
    for chunk in in_chunks(texts, 1 if one_by_one else how.chunk):
        pieces, answers = _pieces(chunk, setup.limits.source, how, encode, tokenizer)
        waiting = Counter(piece.text for piece in pieces)
        budget = 1 if one_by_one else max(1, how.tokens // copies)
        for batch in in_batches(pieces, lambda piece: len(piece.ids), budget):
            _answer(bundle, batch, how, tokenizer, on_text if one_by_one else None)
            waiting -= Counter(piece.text for piece in batch)
            on_done(done + len(chunk) - len(waiting))
        done += len(chunk)
        for piece in pieces:
            answers[piece.text] = _joined(answers[piece.text], piece)
        yield from answers


def _pieces(
    texts: Sequence[str], limit: int, how: Inference, encode: Encode, tokenizer: Tokenizer
) -> tuple[list[_Piece], list[Prediction]]:
    """What the model is to read for each text, and the still empty answers."""
    pieces: list[_Piece] = []
    answers: list[Prediction] = []
    encoded = encode(texts)
    is_cut = how.on_long == "cut" and any(len(ids) > limit for ids in encoded)
    shortest = encode(SHORTEST) if is_cut else []
    for number, (text, ids) in enumerate(zip(texts, encoded, strict=True)):
        answer = Prediction("", source_tokens=len(ids), windows=0)
        if len(ids) <= limit:
            parts = [ids]
        elif how.on_long == "refuse" or (how.on_long == "split" and how.constraint):
            error = too_long(len(ids), limit)
            if how.on_long == "split":
                error += (
                    "; the answers to its windows cannot be joined to one that fits: "
                    "--on-long cut reads the beginning"
                )
            answer = Prediction(
                "",
                stop="refused",
                source_tokens=len(ids),
                source_tokens_unread=len(ids),
                windows=0,
                error=error,
            )
            parts = []
        elif how.on_long == "cut":
            part, lost = cut_before_end(ids, limit, common_end(ids, *shortest))
            answer = Prediction("", source_tokens=len(ids), source_tokens_unread=lost, windows=0)
            parts = [part]
        else:
            spans = text_windows(text, lambda t: [len(row) for row in encode(t)], limit)
            parts = encode([text[start:end] for start, end in spans])
        answers.append(answer)
        pieces += [_Piece(number, part) for part in parts]
    return pieces, answers


def _inputs(bundle: Bundle, pieces: Sequence[_Piece], tokenizer: Tokenizer) -> tuple[Any, Any]:
    """Ids and mask of some pieces; prompts of a decoder-only model are padded on the left."""
    left = bundle.spec.encoder is None
    rows = [piece.ids for piece in pieces]
    pad = tokenizer.pad_id or 0
    device = next(bundle.model.parameters()).device
    ids_BS, keep_BS = source_tensors(rows, pad, device, left=left)
    return ids_BS, None if keep_BS is None else keep_BS.long()


def _answer(
    bundle: Bundle,
    batch: list[_Piece],
    how: Inference,
    tokenizer: Tokenizer,
    on_text: OnText | None,
) -> None:
    assert how.options is not None
    ids_BS, mask_BS = _inputs(bundle, batch, tokenizer)
    free = how.constraint is None  # else blanks at the ends may be what was asked for
    told = None if on_text is None else _Telling(tokenizer, on_text, free)
    made = generate(
        bundle.model,
        ids_BS,
        mask_BS,
        how.options,
        told,
        decode=tokenizer.decode,
        constraint=how.constraint,
    )
    for row, piece in enumerate(batch):
        first = row * how.options.num_return_sequences  # the sequences of an input: best first
        text = tokenizer.decode(made.new_ids(first))
        piece.answer = text.strip() if free else text
        piece.stop, piece.tokens = made.stops[first], made.tokens[first]


class _Telling:
    """Tells the text of one answer as it grows: a character may consist of several tokens, and is
    told when it is whole. With `strip` blanks before the first word are left out."""

    def __init__(self, tokenizer: Tokenizer, on_text: OnText, strip: bool):
        self.tokenizer, self.on_text, self.strip = tokenizer, on_text, strip
        self.ids: list[int] = []
        self.told = 0

    def __call__(self, rows: Tensor, ids: Tensor) -> None:
        self.ids.append(int(ids))
        text = self.tokenizer.decode(self.ids)
        text = text.lstrip() if self.strip else text
        if not text.endswith("\ufffd") and len(text) > self.told:
            self.on_text(text[self.told :])
            self.told = len(text)


def _joined(answer: Prediction, piece: _Piece) -> Prediction:
    """`answer` with one more window's text behind what it has."""
    return Prediction(
        f"{answer.value} {piece.answer}".strip() if answer.windows else piece.answer,
        "length" if "length" in (answer.stop, piece.stop) else piece.stop,
        answer.tokens + piece.tokens,
        answer.source_tokens,
        answer.source_tokens_unread,
        answer.windows + 1,
        answer.error,
    )
