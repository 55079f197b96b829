"""One decoder reads and writes: plain text continued, prompts answered, conversations held.

    text             a b c d e </s>             loss on every token
    prompt, answer   p p p p ▸ a a a </s>       loss on the answer and its end
    conversation     u u ▸ a a </s> u ▸ a </s>  loss on what the assistant says

How a prompt is laid out is the model's business: its chat template where it has one, otherwise
prefix, text and suffix as they are. Padding stands behind a row's end, where a causal model's real
tokens cannot see it, so a training batch needs no mask.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from typing import Any

import torch
from torch import Tensor

from mainspring import spec
from mainspring.checkpoints.bundle import Bundle
from mainspring.checkpoints.tokenizer import Tokenizer
from mainspring.core.model import Transformer
from mainspring.errors import BadData
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
    shown_tokens,
)
from mainspring.formulations.inputs import common_end, cut_before_end, padded
from mainspring.formulations.packing import source_parts
from mainspring.formulations.prediction import SHORTEST, OnText, tokenizer_of, write, writing
from mainspring.formulations.sequence_to_sequence import end_id, vocabulary_nats

Message = Mapping[str, Any]


def lacks(model: spec.Model) -> str | None:
    if model.decoder is None or model.encoder is not None:
        return "a decoder alone"
    if "vocabulary" not in dict(model.heads):
        return "a vocabulary head"
    return None


# -- prompts ---------------------------------------------------------------------------------------


def text_ids(texts: Sequence[str], tokenizer: Tokenizer, setup: Setup) -> list[list[int]]:
    """The ids of prompts that hold a text each: what the chat template makes of it, or else prefix,
    text and suffix, with the special tokens that the tokenizer adds before a text."""
    if tokenizer.chat_template is not None:
        asked = [[{"role": "user", "content": setup.prefix + text}] for text in texts]
        written = [tokenizer.chat(messages, answer=True) for messages in asked]
        return tokenizer.encode_many(written, special=False)
    ids = tokenizer.encode_many([f"{setup.prefix}{text}{setup.suffix}" for text in texts])
    eos = tokenizer.eos_id
    # Some tokenizers end every text; an answer begins before that end.
    return [row[:-1] if row and row[-1] == eos else row for row in ids]


# -- training --------------------------------------------------------------------------------------


def encode(rows: Sequence[Values], tokenizer: Tokenizer, setup: Setup) -> list[EncodedRow]:
    """Examples of rows that hold a `text` and a `target`, `messages`, or a `text` alone.

    `source` are all tokens of a row, `target` the label of each: the token itself where it carries
    loss, else `IGNORED`.
    """
    kinds = {_kind(row) for row in rows}
    examples: list[EncodedRow] = []
    for kind in sorted(kinds):
        chosen = [row for row in rows if _kind(row) == kind]
        examples += ENCODERS[kind](chosen, tokenizer, setup)
    return examples


def _kind(row: Values) -> str:
    return "messages" if "messages" in row else "answer" if "target" in row else "text"


def _encode_answers(rows: Sequence[Values], tokenizer: Tokenizer, setup: Setup) -> list[EncodedRow]:
    eos, limits = end_id(tokenizer), setup.limits
    prompts = text_ids([row["text"] for row in rows], tokenizer, setup)
    answers = tokenizer.encode_many([row["target"] for row in rows], special=False)
    behind = common_end(*text_ids(SHORTEST, tokenizer, setup))
    examples = []
    for prompt, answer in zip(prompts, answers, strict=True):
        read, lost = cut_before_end(prompt, limits.source, behind)
        kept = answer[: limits.target - 1]
        examples.append(_example(read, [*kept, eos], lost, len(answer) - len(kept)))
    return examples


def _example(prompt: list[int], answer: list[int], lost: int, answer_lost: int) -> EncodedRow:
    ids = [*prompt, *answer]
    return EncodedRow(ids, [IGNORED] * len(prompt) + answer, lost, answer_lost)


def _encode_messages(
    rows: Sequence[Values], tokenizer: Tokenizer, setup: Setup
) -> list[EncodedRow]:
    """Conversations: each answer of the assistant carries loss, up to its end.

    The template is asked twice for each answer, with and without it, so that what it puts around
    messages is never guessed at. Of a conversation that is too long the beginning is kept, or the
    end where no answer begins before it.
    """
    limit = setup.limits.source + setup.limits.target
    examples = []
    for row in rows:
        ids: list[int] = []
        labels: list[int] = []
        messages = row["messages"]
        told = 0  # characters of the conversation that have become ids
        for number, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            before = tokenizer.chat(messages[:number], answer=True)
            until = tokenizer.chat(messages[: number + 1], answer=False)
            prompt, answer = tokenizer.encode_many(
                [before[told:], until[len(before) :].rstrip("\n")], special=False
            )
            ids += [*prompt, *answer]
            labels += [IGNORED] * len(prompt) + answer
            told = len(before) + len(until[len(before) :].rstrip("\n"))
        lost = max(0, len(ids) - limit)
        first = 0 if any(label != IGNORED for label in labels[:limit]) else lost
        kept = slice(first, first + limit)
        if any(label != IGNORED for label in labels[kept]):
            examples.append(EncodedRow(ids[kept], labels[kept], lost))
    return examples


def _encode_texts(rows: Sequence[Values], tokenizer: Tokenizer, setup: Setup) -> list[EncodedRow]:
    """Plain texts joined by the end token and cut into pieces, so that nothing is lost."""
    eos, size = end_id(tokenizer), setup.limits.source
    bos = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    joined: list[int] = []
    for ids in tokenizer.encode_many([row["text"] for row in rows], special=False):
        joined += [*ids, eos]
    size -= len(bos)
    cuts = [*range(0, len(joined), size), len(joined)]
    pieces = [[*bos, *joined[start:end]] for start, end in pairwise(cuts)]
    # The first token of a piece is predicted by nothing.
    return [EncodedRow(ids, [IGNORED, *ids[1:]]) for ids in pieces if len(ids) > 1]


ENCODERS = {"answer": _encode_answers, "messages": _encode_messages, "text": _encode_texts}


def collate(examples: Sequence[EncodedRow], ids: SpecialIds, seed: int, multiple: int) -> Batch:
    """Pads on the right; labels stand where their token is read, one place before it."""
    del seed
    source_BS = padded([example.source for example in examples], ids.pad, multiple)
    labels_BS = padded([example.target for example in examples], IGNORED, multiple)
    parts = source_parts(examples, multiple)
    if parts is not None:  # no example is predicted from the one before it
        labels_BS = labels_BS.masked_fill(parts.begins_BT, IGNORED)
    ahead_BS = torch.full_like(labels_BS, IGNORED)
    ahead_BS[:, :-1] = labels_BS[:, 1:]
    learnt = int((ahead_BS != IGNORED).sum())
    tokens = sum(len(example.source) for example in examples)
    return Batch(source_BS, None, ahead_BS, tokens - learnt, learnt, source_parts=parts)


def losses(model: Transformer, batch: Batch) -> Tensor:
    """The summed cross-entropy of each row's labels, in nats, float32 (B)."""
    parts = batch.source_parts
    if parts is None:
        hidden_BSD = model.decode(batch.source_BS, keep_BS=batch.keep_BS)
    else:
        hidden_BSD = model.decode(
            batch.source_BS, at_BT=parts.at_BT, segments=(parts.segments_BT, parts.segments_BT)
        )
    return vocabulary_nats(model, hidden_BSD, batch.labels_BT).sum(1)


def lengths(example: EncodedRow) -> tuple[int, int]:
    return len(example.source), 0


def picture(row: EncodedRow, tokenizer: Tokenizer, setup: Setup) -> str:
    """Runs of tokens: `░` are read, `■` carry loss."""
    del setup
    parts: list[str] = []
    run: list[int] = []
    for number, (token, label) in enumerate(zip(row.source, row.target, strict=True)):
        learnt = label != IGNORED
        if run and learnt != (row.target[number - 1] != IGNORED):
            parts.append(shown_tokens(tokenizer, run))
            run = []
        if not run:
            parts.append("■" if learnt else "░")
        run.append(token)
    return " ".join([*parts, shown_tokens(tokenizer, run)])


# -- prediction ------------------------------------------------------------------------------------


SHORTER = {
    "cut": "; its last turn alone is too long",
    "split": "; --on-long cut leaves out the first turns of a conversation",
    "refuse": "",
}

write_texts = writing(text_ids)


def predict(
    bundle: Bundle,
    rows: Iterable[Values],
    setup: Setup,
    how: Inference,
    on_done: OnDone = lambda done: None,
    on_text: OnText | None = None,
) -> Iterator[Prediction]:
    """What the model writes to each row's `text`, or next in its `messages`."""
    before = 0
    for converse, group in groupby(rows, key=lambda row: "messages" in row):
        writes, done = hold if converse else write_texts, before

        def told(count: int, done: int = done) -> None:
            on_done(done + count)

        for answer in writes(bundle, group, setup, how, told, on_text):
            before += 1
            yield answer


def hold(
    bundle: Bundle,
    rows: Iterable[Values],
    setup: Setup,
    how: Inference,
    on_done: OnDone = lambda done: None,
    on_text: OnText | None = None,
) -> Iterator[Prediction]:
    """What the assistant says next in conversations. One that is too long is refused, or with
    `on_long="cut"` loses its first turns."""
    tokenizer = tokenizer_of(bundle)
    waiting: deque[_Laid] = deque()

    def encode(texts: Sequence[str]) -> list[list[int]]:
        return tokenizer.encode_many(texts, special=False)

    def texts() -> Iterator[str]:
        for row in rows:
            waiting.append(_laid(row["messages"], tokenizer, setup, how))
            yield waiting[-1].text

    refusing = replace(how, on_long="refuse")
    for made in write(bundle, texts(), setup, refusing, encode, on_done, on_text):
        laid = waiting.popleft()
        if laid.error is not None:
            yield Prediction("", stop="refused", windows=0, error=laid.error)
        elif made.error is not None:
            yield replace(made, error=made.error + SHORTER[how.on_long])
        else:
            unread, read = laid.unread, made.source_tokens
            yield replace(made, source_tokens=read + unread, source_tokens_unread=unread)


@dataclass(frozen=True)
class _Laid:
    """A conversation as the model reads it, the tokens of the turns that were left out, and why
    the model's template refuses it."""

    text: str
    unread: int = 0
    error: str | None = None


def _laid(messages: Sequence[Message], tokenizer: Tokenizer, setup: Setup, how: Inference) -> _Laid:
    def size(text: str) -> int:
        return len(tokenizer.encode(text, special=False))

    try:
        text = tokenizer.chat(messages, answer=True)
        whole = size(text)
        while how.on_long == "cut" and size(text) > setup.limits.source:
            messages = _without_first_turn(messages)
            if not messages:
                break
            text = tokenizer.chat(messages, answer=True)
        return _Laid(text, whole - size(text))
    except BadData as error:
        return _Laid(".", error=str(error))  # something is written to it, and not told


def _without_first_turn(messages: Sequence[Message]) -> list[Message]:
    """The conversation without what was first asked in it and said to that; nothing where that is
    all. What the system says stays."""
    system = [message for message in messages if message["role"] == "system"]
    turns = [message for message in messages if message["role"] != "system"]
    asks = [at for at, message in enumerate(turns) if message["role"] == "user"]
    return [*system, *turns[asks[1] :]] if len(asks) > 1 else []


FORMULATION = Formulation(
    "prompt and answer",
    lacks,
    encode,
    collate,
    losses,
    lengths,
    predict,
    generates=True,
    picture=picture,
    packs=True,
    holds=True,
)
