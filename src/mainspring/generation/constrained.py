"""Text that fits a JSON schema, a regular expression, a grammar or a list of choices: nothing else
can be written.

    constraint = constrain(tokenizer, json_schema={"type": "object", ...})
    generate(model, ids, None, options, constraint=constraint)

`llguidance` knows which tokens may follow what is written; a processor bans all others before the
choice, so that the constraint holds in greedy decoding, sampling and beams, for every model with a
byte-level or SentencePiece vocabulary. A row that ends by the end-of-sequence token fits as a
whole; one that the length limit cuts is the beginning of a text that fits. What `generate` writes
is meant as the tokenizer decodes it: SentencePiece's blank before the first word is no part of it.
"""

import json
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from mainspring.errors import BadOption, Mismatch
from mainspring.generation.grammars import compiled
from mainspring.generation.processors import Processor, Written

if TYPE_CHECKING:
    import llguidance
    import tokenizers

FOLLOWED = 256  # texts whose state is remembered at least; those of older steps are found anew
BYTE = re.compile("<0x([0-9A-Fa-f]{2})>")


class HasBackend(Protocol):
    """A tokenizer of the `tokenizers` library, such as `mainspring.checkpoints` opens."""

    backend: "tokenizers.Tokenizer"


@dataclass(frozen=True)
class Constraint:
    """What may be written, with the vocabulary it is written in; `constrain` makes one."""

    grammar: str
    tokenizer: HasBackend

    def processor(
        self, first: int, vocabulary: int, eos_ids: Sequence[int], *, branches: bool = False
    ) -> Processor:
        """The processor for texts that begin at position `first`, `vocabulary` logits wide.

        `branches`: in a beam search, where beams without hope go on.
        """
        if not eos_ids:
            raise BadOption(
                "a constraint needs `eos_token_id`: without it a text that is complete cannot end"
            )
        known = _vocabulary(self.tokenizer, vocabulary, tuple(eos_ids))
        import llguidance

        def matcher(tokens: "llguidance.LLTokenizer") -> "llguidance.LLMatcher":
            return llguidance.LLMatcher(tokens, self.grammar, log_level=0)

        return Fitting(
            matcher(known.inside),
            None if known.first is None else matcher(known.first),
            known.begin,
            first,
            frozenset(eos_ids),
            branches,
        )


def constrain(
    tokenizer: HasBackend,
    *,
    json_schema: str | Mapping[str, Any] | bool | None = None,
    regex: str | None = None,
    grammar: str | None = None,
    choices: Sequence[str] | None = None,
) -> Constraint:
    """The constraint that one of the options states; the whole output must fit it.

    `json_schema` is a JSON schema as data or as text; the output is one line of JSON. `regex` is
    in the syntax of Rust's regex crate, `grammar` in that of Lark (with llguidance's additions),
    `choices` are texts one of which is written. BadOption says what is wrong with it, or that the
    schema uses a keyword that is not supported; Missing, that `llguidance` is not installed.
    """
    given = {"json_schema": json_schema, "regex": regex, "grammar": grammar, "choices": choices}
    names = [name for name, value in given.items() if value is not None]
    if len(names) != 1:
        raise BadOption(f"give one of {', '.join(given)}; given: {', '.join(names) or 'none'}")
    stated = compiled(
        f"`{names[0]}`", json_schema=json_schema, regex=regex, grammar=grammar, choices=choices
    )
    return Constraint(stated, tokenizer)


class Fitting:
    """Bans every token after which what a row has written could not become a text that fits.

    The state is found by what is written, so that rows may leave, branch and change places.
    """

    def __init__(
        self,
        root: "llguidance.LLMatcher",
        opening: "llguidance.LLMatcher | None",
        begin: Callable[[int], list[int]],
        first: int,
        eos_ids: frozenset[int],
        branches: bool = False,
    ):
        self.root, self.opening, self.begin = root, opening, begin
        self.first, self.eos_ids, self.branches = first, eos_ids, branches
        self.room = FOLLOWED
        # None: the text is complete, or a beam that has no probability left the path.
        self.followed: OrderedDict[tuple[int, ...], llguidance.LLMatcher | None] = OrderedDict()

    def __call__(self, scores: Tensor, written: Written) -> Tensor:
        if written.length < self.first:
            return scores
        rows = written.ids_BT[:, self.first :].tolist()
        self.room = max(FOLLOWED, 2 * len(rows))
        banned_BV = torch.stack([self._banned(tuple(row), scores.shape[1]) for row in rows])
        scores.masked_fill_(banned_BV.to(scores.device), -torch.inf)
        if bool((scores.amax(1) == -torch.inf).any()):
            raise BadOption(
                "the constraint and the other options together leave no token to choose: give "
                "fewer bans (`min_new_tokens`, `suppress_tokens`, `no_repeat_ngram_size` …)"
            )
        return scores

    def _banned(self, row: tuple[int, ...], vocabulary: int) -> Tensor:
        matcher = self._follow(row) if row or self.opening is None else self.opening
        if matcher is None:
            return torch.zeros(vocabulary, dtype=torch.bool)
        import numpy as np

        bits = np.frombuffer(matcher.compute_bitmask(), np.uint8)
        if matcher.is_error():
            problem = matcher.get_error().partition("\n")[0]
            raise Mismatch(f"the constraint cannot be followed: {problem}")
        allowed = np.unpackbits(bits, bitorder="little")[:vocabulary]
        if not allowed.any():
            raise Mismatch(
                "no token of this vocabulary can go on towards a text that fits the constraint"
            )
        return torch.from_numpy(allowed == 0)

    def _follow(self, row: tuple[int, ...]) -> "llguidance.LLMatcher | None":
        if row in self.followed:
            return self.followed[row]
        if row and row[:-1] in self.followed:
            before, newest = self.followed[row[:-1]], row[-1:]
        else:
            before, newest = self.root, row
        matcher = None
        if before is not None and not self.eos_ids.intersection(newest):
            matcher = before.deep_copy()
            consumed = list(newest)
            if before is self.root and newest:
                consumed[:1] = self.begin(newest[0])
            if not matcher.consume_tokens(consumed):
                if not self.branches:
                    problem = matcher.get_error().partition("\n")[0]
                    raise Mismatch(f"the constraint cannot be followed: {problem}")
                matcher = None
        self.followed[row] = matcher
        if len(self.followed) > self.room:
            self.followed.popitem(last=False)
        return matcher


# -- the vocabulary, as bytes ---------------------------------------------------------------------


@dataclass(frozen=True)
class _Vocabulary:
    """A tokenizer in llguidance's form: the tokens as they are within a text and, where the
    tokenizer drops a blank there, as they are at its beginning. `begin(id)` are the tokens that
    spell within a text what a first token spells."""

    inside: "llguidance.LLTokenizer"
    first: "llguidance.LLTokenizer | None"
    begin: Callable[[int], list[int]]


_known: WeakKeyDictionary[HasBackend, dict[Any, _Vocabulary]] = WeakKeyDictionary()


def _vocabulary(tokenizer: HasBackend, vocabulary: int, eos_ids: tuple[int, ...]) -> _Vocabulary:
    """The tokenizer in llguidance's form, made once."""
    import llguidance

    made = _known.setdefault(tokenizer, {})
    key = vocabulary, eos_ids
    if key not in made:
        written = token_bytes(tokenizer.backend)
        blanks = _dropped_blanks(tokenizer.backend, written)

        def wrapped(spelled: _Spelled) -> llguidance.LLTokenizer:
            return llguidance.LLTokenizer(
                llguidance.TokenizerWrapper(spelled), eos_token=list(eos_ids)
            )

        inside = _Spelled(tokenizer.backend, written, vocabulary, eos_ids)
        first = None
        if blanks:
            opening = written | {i: written[i][1:] for i in blanks}
            first = wrapped(_Spelled(tokenizer.backend, opening, vocabulary, eos_ids))

        def begin(token: int) -> list[int]:
            return inside.longest_fits(written[token][1:]) if token in blanks else [token]

        made[key] = _Vocabulary(wrapped(inside), first, begin)
    return made[key]


def _dropped_blanks(
    backend: "tokenizers.Tokenizer", written: Mapping[int, bytes]
) -> frozenset[int]:
    """The tokens whose blank is not decoded where they come first: none, or all that begin with
    one."""
    with_blank = [i for i, token in written.items() if re.match(rb" \w", token)]
    if not with_blank or backend.decode(with_blank[:1]).startswith(" "):
        return frozenset()
    return frozenset(i for i, token in written.items() if token.startswith(b" "))


class _Spelled:
    """The bytes that each token writes, under the names that llguidance reads."""

    def __init__(
        self,
        backend: "tokenizers.Tokenizer",
        written: Mapping[int, bytes],
        vocabulary: int,
        eos_ids: Sequence[int],
    ):
        size = max(vocabulary, max(written, default=0) + 1)
        self.tokens = [written.get(i, b"") for i in range(size)]
        added = backend.get_added_tokens_decoder()
        special = {i for i, token in added.items() if token.special}
        self.special_token_ids = sorted(special.union(eos_ids))
        self.eos_token_id, self.bos_token_id = eos_ids[0], None
        self.backend = backend
        self.ids = {token: i for i, token in written.items() if i not in special}
        self.longest = max(map(len, self.ids), default=0)

    def __call__(self, text: str) -> list[int]:
        """How a text within a text is cut. A SentencePiece tokenizer puts a blank before it, and
        then the longest tokens that fit are taken instead."""
        ids: list[int] = self.backend.encode(text, add_special_tokens=False).ids
        wanted = text.encode()
        if b"".join(self.tokens[i] for i in ids) == wanted:
            return ids
        return self.longest_fits(wanted)

    def longest_fits(self, wanted: bytes) -> list[int]:
        """Tokens that spell `wanted`, the longest that fits first; up to where there is none."""
        ids: list[int] = []
        at = 0
        while at < len(wanted):
            ends = range(min(at + self.longest, len(wanted)), at, -1)
            end = next((end for end in ends if wanted[at:end] in self.ids), None)
            if end is None:
                break
            ids.append(self.ids[wanted[at:end]])
            at = end
        return ids


def token_bytes(backend: "tokenizers.Tokenizer") -> dict[int, bytes]:
    """The bytes that each token stands for within a text. Mismatch for vocabularies of words that
    do not say where blanks are."""
    state = json.loads(backend.to_str())
    described = json.dumps(state["decoder"], ensure_ascii=False)
    by_byte = '"ByteLevel"' in described
    if not by_byte and '"Metaspace"' not in described and "▁" not in described:
        raise Mismatch(
            "constrained output needs a byte-level or SentencePiece tokenizer, and this one is "
            "neither"
        )
    added = {token.content for token in backend.get_added_tokens_decoder().values()}
    table = _byte_alphabet() if by_byte else {}
    falls_back = bool(state["model"].get("byte_fallback"))

    def spell(token: str) -> bytes:
        if token in added:
            return token.encode()
        if by_byte:
            return b"".join(table.get(letter, letter.encode()) for letter in token)
        if falls_back and (byte := BYTE.fullmatch(token)):
            return bytes.fromhex(byte[1])
        return token.replace("▁", " ").encode()

    return {i: spell(token) for token, i in backend.get_vocab(with_added_tokens=True).items()}


def _byte_alphabet() -> dict[str, bytes]:
    """The letter that stands for each byte in byte-level vocabularies (GPT-2, 2019): itself where
    it can be seen, else the next of the letters from 256 on."""
    seen = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [byte for byte in range(256) if byte not in seen]
    letters = {byte: chr(byte) for byte in seen} | {
        byte: chr(256 + i) for i, byte in enumerate(hidden)
    }
    return {letter: bytes([byte]) for byte, letter in letters.items()}
