"""Text from one language into another: an encoder-decoder or a prompted decoder, told the languages
in the model's own way.

A text is translated line by line. Blank lines, indents and line ends stand in the answer where they
stand in the text; a line that is too long is read in windows that end at sentence ends.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from mainspring import events, languages
from mainspring.checkpoints.bundle import Bundle
from mainspring.checkpoints.multilingual import sides, target_prefix
from mainspring.checkpoints.tokenizer import Tokenizer
from mainspring.data.terms import Term, read_terms, terms_in
from mainspring.data.windows import text_windows
from mainspring.errors import BadOption, Mismatch
from mainspring.formulations import (
    EncodedRow,
    Formulation,
    Inference,
    OnDone,
    Prediction,
    Setup,
    Values,
    causal,
    sequence_to_sequence,
)
from mainspring.formulations.inputs import common_end, cut_before_end
from mainspring.formulations.prediction import SHORTEST, Encode, OnText, tokenizer_of, write
from mainspring.formulations.sequence_to_sequence import end_id, within_limits
from mainspring.generation.forced import generate_with
from mainspring.text import LINE_END, SPACELESS_CHARACTER, language_of, sentences

NAMES = ("{source}", "{target}")


def told(setup: Setup, tokenizer: Tokenizer) -> Setup:
    """The setup with the languages in its prefix and suffix, where `{source}` and `{target}` stand
    for their names. BadOption where they are not known."""
    source, target = languages_of(setup)
    shown = setup.prefix + setup.suffix
    if (NAMES[0] in shown and source is None) or (NAMES[1] in shown and target is None):
        raise BadOption(
            "this model is told the languages in words: give --source-language and "
            "--target-language (en, de …)"
        )

    def filled(text: str) -> str:
        for mark, code in zip(NAMES, (source, target), strict=True):
            text = text.replace(mark, languages.name(code or ""))
        return text

    prefix = target_prefix(tokenizer, target) + filled(setup.prefix)
    return replace(setup, prefix=prefix, suffix=filled(setup.suffix))


def languages_of(setup: Setup) -> tuple[str | None, str | None]:
    return setup.options.get("source_language"), setup.options.get("target_language")


# -- training --------------------------------------------------------------------------------------


def encode(rows: Sequence[Values], tokenizer: Tokenizer, setup: Setup) -> list[EncodedRow]:
    """Examples of rows with a `text` and a `target`."""
    setup = told(setup, tokenizer)
    read, written = sides(tokenizer, *languages_of(setup))
    if read.last:
        raise Mismatch(
            "models whose language stands behind the text (mBART of 25 languages) translate and "
            "are not fine-tuned here; take mBART-50, M2M100 or NLLB"
        )
    eos = end_id(tokenizer)
    sources = read.encode_many([setup.prefix + row["text"] for row in rows])
    targets = written.encode_many([row["target"] for row in rows])
    return within_limits(sources, targets, setup.limits, eos)


def encode_prompts(rows: Sequence[Values], tokenizer: Tokenizer, setup: Setup) -> list[EncodedRow]:
    return causal.encode(rows, tokenizer, told(setup, tokenizer))


# -- prediction ------------------------------------------------------------------------------------


def predict(
    bundle: Bundle,
    rows: Iterable[Values],
    setup: Setup,
    how: Inference,
    on_done: OnDone = lambda done: None,
    on_text: OnText | None = None,
) -> Iterator[Prediction]:
    """The translations an encoder-decoder writes of the rows' `text`."""
    tokenizer = tokenizer_of(bundle)
    setup = told(setup, tokenizer)
    read, written = sides(tokenizer, *languages_of(setup))
    options = how.options
    assert options is not None
    if read.last:
        options = replace(options, decoder_start_token_id=written.language)
    elif written.language is not None:
        options = replace(options, forced_bos_token_id=written.language)
    how = replace(how, options=options)

    def encode_texts(texts: Sequence[str]) -> list[list[int]]:
        return read.encode_many([setup.prefix + text for text in texts])

    return translate(bundle, rows, setup, how, encode_texts, on_done, on_text)


def predict_prompts(
    bundle: Bundle,
    rows: Iterable[Values],
    setup: Setup,
    how: Inference,
    on_done: OnDone = lambda done: None,
    on_text: OnText | None = None,
) -> Iterator[Prediction]:
    """The translations a decoder-only model answers with."""
    tokenizer = tokenizer_of(bundle)
    setup = told(setup, tokenizer)

    def encode_texts(texts: Sequence[str]) -> list[list[int]]:
        return causal.text_ids(texts, tokenizer, setup)

    return translate(bundle, rows, setup, how, encode_texts, on_done, on_text)


def translate(
    bundle: Bundle,
    rows: Iterable[Values],
    setup: Setup,
    how: Inference,
    encode: Encode,
    on_done: OnDone,
    on_text: OnText | None,
) -> Iterator[Prediction]:
    """The rows' texts piece by piece, put together again."""
    assert how.options is not None
    options = setup.options
    terms = read_terms(options["terms"]) if options.get("terms") else ()
    forcing = Forcing(bundle, how, setup, encode, terms) if terms else None
    streams = how.options.num_beams * how.options.num_return_sequences == 1 and not terms
    on_text = on_text if streams else None
    by_sentence = options.get("split_at") == "sentence"
    waiting: deque[Document] = deque()
    ends: deque[int] = deque()  # how many pieces there are up to each text that is not done
    read = done = 0  # pieces, texts

    def pieces() -> Iterator[str]:
        nonlocal read
        for row in rows:
            document = cut_up(row["text"], setup.limits.source, how, encode, by_sentence)
            waiting.append(document)
            read += len(document.pieces)
            ends.append(read)
            if on_text is not None and document.gaps[0]:
                on_text(document.gaps[0])
            yield from document.pieces

    def show(finished: int) -> None:
        nonlocal done
        while ends and ends[0] <= finished:
            ends.popleft()
            done += 1
        on_done(done)

    answers: list[Prediction] = []
    for made in write(bundle, pieces(), setup, how, encode, show, on_text):
        document = waiting[0]
        text = document.pieces[len(answers)]
        answer = replace(made, value=" ".join(made.value.split()))
        answers.append(answer if forcing is None else forcing.apply(text, answer))
        if on_text is not None:
            on_text(document.after(len(answers) - 1, answers))
        if len(answers) == len(document.pieces):
            waiting.popleft()
            yield document.joined(answers)
            answers = []


@dataclass(frozen=True)
class Document:
    """A text as the `pieces` to translate and what stands around them: `gaps[i]` before piece i,
    the last behind all. None is a place between two pieces of one line."""

    pieces: tuple[str, ...]
    gaps: tuple[str | None, ...]

    def after(self, place: int, answers: Sequence[Prediction]) -> str:
        """What stands behind the piece at `place`; between pieces of a line a blank, or nothing
        where the language of the answer has none."""
        gap = self.gaps[place + 1]
        if gap is not None:
            return gap
        return "" if language_of(answers[place].value) in ("zh", "ja") else " "

    def joined(self, answers: Sequence[Prediction]) -> Prediction:
        """One prediction of those of the pieces."""
        texts = [self.gaps[0] or ""]
        for place, answer in enumerate(answers):
            texts += [answer.value, self.after(place, answers)]
        refused = next((a for a in answers if a.error is not None), None)
        return Prediction(
            "" if refused else "".join(texts),
            refused.stop if refused else _stop([answer.stop for answer in answers]),
            sum(answer.tokens for answer in answers),
            sum(answer.source_tokens for answer in answers),
            sum(answer.source_tokens_unread for answer in answers),
            len(answers) if None in self.gaps else 1,
            refused.error if refused else None,
        )


def _stop(stops: Sequence[str]) -> str:
    return "length" if "length" in stops else stops[-1]


def cut_up(
    text: str, limit: int, how: Inference, encode: Encode, by_sentence: bool = False
) -> Document:
    """The lines of a text, those that are too long in windows (`on_long="split"`), or all in
    sentences. A text of nothing but blanks is one empty piece."""
    gaps: list[str | None] = [""]
    pieces: list[str] = []

    def add_gap(more: str) -> None:
        gaps[-1] = (gaps[-1] or "") + more

    def count(texts: Sequence[str]) -> list[int]:
        return [len(ids) for ids in encode(texts)]

    ends = LINE_END.findall(text)
    for line, end in zip(LINE_END.split(text), [*ends, ""], strict=True):
        body = line.strip()
        at = line.find(body) if body else len(line)
        add_gap(line[:at])
        spans = sentences(body) if by_sentence else [(0, len(body))] if body else []
        if how.on_long == "split" and spans:
            sizes = count([body[start:end] for start, end in spans])
            spans = [
                (start + a, start + b)
                for (start, end), size in zip(spans, sizes, strict=True)
                for a, b in (
                    text_windows(body[start:end], count, limit)
                    if size > limit
                    else [(0, end - start)]
                )
            ]
        parts = [part for start, end in spans if (part := body[start:end].strip())]
        for place, part in enumerate(parts):
            if place:
                gaps[-1] = None
            pieces.append(part)
            gaps.append("")
        add_gap(line[at + len(body) :] + end)
    if not pieces:
        return Document(("",), ("", gaps[0]))
    return Document(tuple(pieces), tuple(gaps))


# -- terms -----------------------------------------------------------------------------------------


class Forcing:
    """Sees to it that the terms of a text are in its translation.

    A translation that has them stays; otherwise the text is translated once more by a search in
    which they must occur (`generation.forced`).
    """

    def __init__(
        self, bundle: Bundle, how: Inference, setup: Setup, encode: Encode, terms: tuple[Term, ...]
    ):
        self.bundle, self.how, self.setup, self.encode = bundle, how, setup, encode
        self.tokenizer = tokenizer_of(bundle)
        self.ids = {term: phrase_ids(self.tokenizer.writer, term.target) for term in terms}

    @cached_property
    def shortest(self) -> list[list[int]]:
        return self.encode(SHORTEST)

    def apply(self, text: str, answer: Prediction) -> Prediction:
        wanted = terms_in(text, self.ids)
        if answer.error or all(term.is_written(answer.value) for term in wanted):
            return answer
        assert self.how.options is not None
        [ids] = self.encode([text])
        limit = self.setup.limits.source
        if len(ids) > limit:
            ids, _ = cut_before_end(ids, limit, common_end(ids, *self.shortest))
        device = next(self.bundle.model.parameters()).device
        made = generate_with(
            self.bundle.model,
            torch.tensor([ids], device=device),
            None,
            self.how.options,
            [self.ids[term] for term in wanted],
        )
        value = " ".join(self.tokenizer.decode(made.new_ids(0)).split())
        missing = [term.target for term in wanted if not term.is_written(value)]
        if missing:
            events.warn(f"terms written otherwise than asked for: {', '.join(missing)}")
        return replace(answer, value=value, stop=made.stops[0], tokens=made.tokens[0])


def phrase_ids(tokenizer: Tokenizer, phrase: str) -> list[int]:
    """The tokens that write `phrase` in the middle of a text; BadOption where none do."""
    if SPACELESS_CHARACTER.match(phrase):
        # Alone, SentencePiece puts a blank before it.
        before, whole = tokenizer.encode_many(["、", "、" + phrase], special=False)
        ids = whole[len(before) :] if whole[: len(before)] == before else []
        if tokenizer.decode(ids) == phrase:
            return ids
    [ids] = tokenizer.encode_many([" " + phrase], special=False)
    if tokenizer.decode(ids).strip() != phrase:
        raise BadOption(
            f"--terms: this model's vocabulary cannot write {phrase!r}; leave that term out"
        )
    return ids


SEQUENCES = Formulation(
    "translation",
    sequence_to_sequence.lacks,
    encode,
    sequence_to_sequence.collate,
    sequence_to_sequence.losses,
    sequence_to_sequence.lengths,
    predict,
    generates=True,
    packs=True,
)
PROMPTS = replace(
    causal.FORMULATION,
    name="prompted translation",
    encode=encode_prompts,
    predict=predict_prompts,
    holds=False,  # a text is translated line by line
)
