"""Triples written by a chat model under a grammar: every end is a piece of the passage.

The answer is JSON, `[{"head": …, "type": …, "tail": …}, …]`, and the grammar lets heads and tails
only be whole words of the passage (llguidance's `substring_chunks`), or characters of a script that
has no blanks, so that nothing is made up and each has its place. Relation names come from a list,
where one is given, or are a few small words.
"""

import json
import re
from collections.abc import Iterator, Sequence
from functools import cache

import torch

from mainspring.checkpoints.bundle import Bundle
from mainspring.errors import BadOption, Mismatch
from mainspring.formulations import Limits
from mainspring.formulations.prediction import generation_options, tokenizer_of
from mainspring.generation.constrained import constrain
from mainspring.generation.search import generate
from mainspring.graph.extraction import read_relations, with_score
from mainspring.graph.records import Extract, Found
from mainspring.text import IDEOGRAPH, SPACELESS, letter

MOST = 6  # triples of a passage
ROOM = 40  # tokens for each

EXAMPLE = "Ada Lovelace was born in London and worked with Charles Babbage."
EXAMPLE_ANSWER = [
    {"head": "Ada Lovelace", "type": "born in", "tail": "London"},
    {"head": "Ada Lovelace", "type": "worked with", "tail": "Charles Babbage"},
]
INSTRUCTION = (
    "List the facts that the text states, as JSON: head and tail are names in the text, type says "
    "how the head stands to the tail."
)


def by_prompt(bundle: Bundle, relations: Sequence[str] = ()) -> Extract:
    """What a chat model writes about each passage. `relations` are the names it may use. Mismatch
    where it is no chat model; Missing where llguidance is not installed."""
    tokenizer = tokenizer_of(bundle)
    if bundle.spec.encoder is not None or tokenizer.chat_template is None:
        raise Mismatch("triples by prompt need a chat model, such as `starter`")
    if any(re.search(r'["\\\n]', name) or not name.strip() for name in relations):
        raise BadOption("--relation-names: a name may hold no quotes, backslashes or line ends")

    def extract(passages: Sequence[str]) -> Iterator[Found]:
        for passage in passages:
            yield _read(bundle, passage, relations)

    return extract


def _read(bundle: Bundle, passage: str, relations: Sequence[str]) -> Found:
    tokenizer = tokenizer_of(bundle)
    # What JSON would have to escape becomes a blank, one for one: places stay as they are.
    plain = re.sub(r'["\\\x00-\x1f\x7f]', " ", passage)
    if not re.search(r"\w", plain):
        return Found()
    constraint = constrain(tokenizer, grammar=grammar(plain, relations))
    limits = Limits(0, MOST * ROOM)
    options = generation_options(bundle.generation, limits, {"do_sample": False})
    ids = tokenizer.encode(tokenizer.chat(messages(plain, relations), answer=True), special=False)
    device = next(bundle.model.parameters()).device
    prompt_BT = torch.tensor([ids], device=device)
    made = generate(bundle.model, prompt_BT, None, options, constraint=constraint)
    written = made.new_ids(0)
    found = read_relations(complete(tokenizer.decode(written)), plain)
    return with_score(_true_texts(found, passage), sureness(bundle, ids, written))


def messages(passage: str, relations: Sequence[str]) -> list[dict[str, str]]:
    """The conversation that asks for triples: one example, then the passage."""
    names = f" Types: {', '.join(relations)}." if relations else ""
    return [
        {"role": "user", "content": f"{INSTRUCTION}{names}\n\nText: {EXAMPLE}"},
        {"role": "assistant", "content": json.dumps(EXAMPLE_ANSWER)},
        {"role": "user", "content": f"Text: {passage}"},
    ]


def grammar(passage: str, relations: Sequence[str]) -> str:
    """The answers that are allowed, in llguidance's form of Lark."""
    names = " | ".join(json.dumps(name, ensure_ascii=False) for name in relations)
    words = json.dumps({"substring_chunks": _chunk().findall(passage)}, ensure_ascii=False)
    free = "[a-z]{2,14}( [a-z]{2,14}){0,3}"
    if IDEOGRAPH.search(passage):
        free += f"|{IDEOGRAPH.pattern}{{1,8}}"
    return "\n".join(
        [
            'start: "[]" | "[" triple more "]"',
            "more: " + "".join('("," " "? triple ' for _ in range(MOST - 1)) + ")?" * (MOST - 1),
            r'triple: "{\"head\": \"" part "\", \"type\": \"" name "\", \"tail\": \"" part "\"}"',
            f"name: {names}" if names else f"name: /{free}/",
            "part: %regex " + words,
        ]
    )


@cache
def _chunk() -> re.Pattern[str]:
    """What a part of a passage consists of: words, characters of scripts without blanks, blanks,
    and other characters."""
    return re.compile(rf"[{SPACELESS}]|(?:{letter()})+|\s+|.")


def complete(answer: str) -> list[dict[str, str]]:
    """The triples of an answer; of one that the length cut, those that are whole."""
    found = re.finditer(r'\{"head": "([^"]*)", "type": "([^"]*)", "tail": "([^"]*)"\}', answer)
    return [dict(zip(("head", "type", "tail"), match.groups(), strict=True)) for match in found]


def _true_texts(found: Found, passage: str) -> Found:
    """The places as they are, with the passage's own characters."""
    from dataclasses import replace

    relations = tuple(
        replace(
            r,
            head=replace(r.head, text=passage[r.head.start : r.head.end]),
            tail=replace(r.tail, text=passage[r.tail.start : r.tail.end]),
        )
        for r in found.relations
    )
    return replace(found, relations=relations)


@torch.inference_mode()
def sureness(bundle: Bundle, prompt: Sequence[int], written: Sequence[int]) -> float:
    """The geometric mean of the probabilities (0 to 1) that the model gave the tokens it wrote,
    without the grammar."""
    if not written:
        return 0.0
    device = next(bundle.model.parameters()).device
    ids_BT = torch.tensor([[*prompt, *written]], device=device)
    hidden_BTD = bundle.model.decode(ids_BT)[:, len(prompt) - 1 : -1]
    logits_BTV = bundle.model.read("vocabulary", hidden_BTD).float()
    chosen_BT1 = ids_BT[:, len(prompt) :, None]
    return float(logits_BTV.log_softmax(-1).gather(2, chosen_BT1).mean().exp())
