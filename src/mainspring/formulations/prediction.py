"""From texts to predictions: windows over long inputs, batches by length, answers in order.

Texts are taken a few hundred at a time: within such a chunk pieces of like length go together, so
that little padding is computed, and the answers come back in the order of the texts. Nothing else
is held, so any number of texts can stream through.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import torch

from mainspring.checkpoints.bundle import Bundle
from mainspring.data.windows import text_windows
from mainspring.errors import Mismatch
from mainspring.formulations import Limits
from mainspring.formulations.sequence_to_sequence import cut, padded
from mainspring.generation.options import GenerationOptions
from mainspring.generation.search import generate

OnLong = Literal["split", "cut", "refuse"]


@dataclass(frozen=True)
class Prediction:
    """What was generated for one text.

    `stop` says why it ended: "eos", "length" (the limit was hit), "stop". `tokens` counts what was
    generated, `source_tokens` what the text has, `source_tokens_unread` those that were cut off.
    `windows` is how many pieces a long text was read in; their answers are joined by a blank.
    `error` is set, and the rest empty, where a text was refused.
    """

    text: str
    stop: str
    tokens: int
    source_tokens: int
    source_tokens_unread: int = 0
    windows: int = 1
    error: str | None = None


@dataclass(frozen=True)
class Settings:
    """How texts are predicted on. `tokens` bounds the source tokens of a batch, padding included;
    with beams it holds for all beams together."""

    prefix: str
    limits: Limits
    options: GenerationOptions
    on_long: OnLong = "split"
    tokens: int = 8192
    chunk: int = 256


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


def predict(
    bundle: Bundle,
    texts: Iterable[str],
    settings: Settings,
    on_done: Callable[[int], None] = lambda done: None,
) -> Iterator[Prediction]:
    """A prediction for each text, in order. `on_done(count)` is called after each batch, with the
    number of texts that are done to their last window."""
    if bundle.tokenizer is None:
        raise Mismatch("this checkpoint has no tokenizer, so it cannot read text")
    done = 0
    iterator = iter(texts)
    while chunk := list(islice(iterator, settings.chunk)):
        pieces, answers = _pieces(bundle, chunk, settings)
        waiting = Counter(piece.text for piece in pieces)
        for batch in _batches(pieces, settings):
            _answer(bundle, batch, settings)
            waiting -= Counter(piece.text for piece in batch)
            on_done(done + len(chunk) - len(waiting))
        done += len(chunk)
        for piece in pieces:
            answers[piece.text] = _joined(answers[piece.text], piece)
        yield from answers


def _pieces(
    bundle: Bundle, texts: Sequence[str], settings: Settings
) -> tuple[list[_Piece], list[Prediction]]:
    """What the model is to read for each text, and the still empty answers."""
    tokenizer, limit = bundle.tokenizer, settings.limits.source
    assert tokenizer is not None

    def encode(parts: Sequence[str]) -> list[list[int]]:
        return tokenizer.encode_many([settings.prefix + part for part in parts])

    pieces: list[_Piece] = []
    answers: list[Prediction] = []
    for number, (text, ids) in enumerate(zip(texts, encode(texts), strict=True)):
        answer = Prediction("", "", 0, len(ids), windows=0)
        if len(ids) <= limit:
            parts = [ids]
        elif settings.on_long == "refuse":
            error = f"the text has {len(ids)} tokens and the model reads {limit}"
            answer = Prediction("", "refused", 0, len(ids), len(ids), 0, error)
            parts = []
        elif settings.on_long == "cut":
            eos = tokenizer.eos_id if ids[-1] == tokenizer.eos_id else None
            kept, lost = (ids[:limit], len(ids) - limit) if eos is None else cut(ids, limit, eos)
            answer = Prediction("", "", 0, len(ids), lost, 0)
            parts = [kept]
        else:
            spans = text_windows(text, lambda t: [len(row) for row in encode(t)], limit)
            parts = encode([text[start:end] for start, end in spans])
        answers.append(answer)
        pieces += [_Piece(number, part) for part in parts]
    return pieces, answers


def _batches(pieces: Sequence[_Piece], settings: Settings) -> Iterator[list[_Piece]]:
    """Pieces of like length together, the longest first, within the token budget."""
    copies = settings.options.num_beams * settings.options.num_return_sequences
    batch: list[_Piece] = []
    for piece in sorted(pieces, key=lambda piece: -len(piece.ids)):
        longest = len(batch[0].ids) if batch else len(piece.ids)
        if batch and (len(batch) + 1) * longest * copies > settings.tokens:
            yield batch
            batch = []
        batch.append(piece)
    if batch:
        yield batch


def _answer(bundle: Bundle, batch: list[_Piece], settings: Settings) -> None:
    tokenizer = bundle.tokenizer
    assert tokenizer is not None
    pad = tokenizer.pad_id or 0
    device = next(bundle.model.parameters()).device
    ids_BS = padded([piece.ids for piece in batch], pad, 1).to(device)
    lengths_B = torch.tensor([len(piece.ids) for piece in batch], device=device)
    keep_BS = (torch.arange(ids_BS.shape[1], device=device) < lengths_B[:, None]).long()
    mask = None if bool(keep_BS.all()) else keep_BS
    made = generate(bundle.model, ids_BS, mask, settings.options, decode=tokenizer.decode)
    copies = settings.options.num_return_sequences
    for row, piece in enumerate(batch):
        first = row * copies  # several sequences per input come best first
        piece.answer = tokenizer.decode(made.new_ids(first)).strip()
        piece.stop, piece.tokens = made.stops[first], made.tokens[first]


def _joined(answer: Prediction, piece: _Piece) -> Prediction:
    """`answer` with one more window's text behind what it has."""
    return Prediction(
        f"{answer.text} {piece.answer}".strip(),
        "length" if "length" in (answer.stop, piece.stop) else piece.stop,
        answer.tokens + piece.tokens,
        answer.source_tokens,
        answer.source_tokens_unread,
        answer.windows + 1,
        answer.error,
    )
