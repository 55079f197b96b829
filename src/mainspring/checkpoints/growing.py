"""Giving a model tokens of a task's own: new ids in the tokenizer, new rows in its tables."""

import dataclasses
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from mainspring import events, spec
from mainspring.checkpoints.bundle import Bundle
from mainspring.checkpoints.chat import ROLES, TEMPLATE
from mainspring.checkpoints.tokenizer import Tokenizer
from mainspring.core.init import build
from mainspring.errors import BadOption, Mismatch
from mainspring.text import listed

# Where a model holds one row for each token, beside its tables.
OUTPUTS = ("heads.vocabulary.out.weight", "heads.vocabulary.bias")
SHOWN = 20
SEEN = 2  # how often a character must be there to get a token: what is seen once is not learnt


def unknown_characters(tokenizer: Tokenizer, texts: Iterable[str]) -> list[str]:
    """The characters that occur in the texts more than once and that the tokenizer reads as the
    unknown token, the most frequent first. None where it has no such token (it reads bytes)."""
    unknown, counts = tokenizer.unk_id, Counter[str]()
    for text in texts:
        counts.update(text)
    seen = [
        character
        for character, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        if count >= SEEN and not character.isspace()
    ]
    found = tokenizer.encode_many(seen, special=False)
    return [character for character, ids in zip(seen, found, strict=True) if unknown in ids]


def with_tokens(bundle: Bundle, tokens: Sequence[str], seed: int) -> Bundle:
    """The bundle with these tokens, each an id of its own that no text is cut into or out of.

    The rows of new tokens are drawn from `seed`, each channel with the mean and the deviation that
    it has in the table, so that they begin among the others (Hewitt, 2021).
    Tokens that are there already stay as they are. Mismatch where there is no tokenizer.
    """
    if bundle.tokenizer is None:
        raise Mismatch("this checkpoint has no tokenizer that could get new tokens")
    new = [token for token in tokens if bundle.tokenizer.id_of(token) is None]
    if not new:
        return bundle
    tokenizer = bundle.tokenizer.with_tokens(new)
    had = len(next(iter(bundle.model.tables.parameters())))
    rows = had if tokenizer.vocabulary <= had else -(-tokenizer.vocabulary // 64) * 64
    places = [place for token in new if (place := tokenizer.id_of(token)) is not None]
    tensors = {
        name: _grown(tensor, rows, bundle.tokenizer.vocabulary, places, f"{seed} {name}")
        if name.startswith("tables.") or name in OUTPUTS
        else tensor
        for name, tensor in bundle.model.state_dict().items()
    }
    model = build(_resized(bundle.spec, rows))
    model.load_state_dict(tensors, assign=True)
    shown = " ".join(new[:SHOWN]) + (" …" if len(new) > SHOWN else "")
    events.note(f"the tokenizer gets {len(new)} new tokens: {shown}")
    config = {**bundle.config, "vocab_size": rows}
    return dataclasses.replace(bundle, model=model.eval(), config=config, tokenizer=tokenizer)


def with_conversations(bundle: Bundle, seed: int, *, spelt: bool) -> Bundle:
    """The bundle, its tokenizer with a plain chat template where it has none.

    The marks of who speaks become tokens, or are `spelt` by those that are there (an adapter holds
    no new ones): BadOption where they cannot be.
    """
    if bundle.tokenizer is None or bundle.tokenizer.chat_template is not None:
        return bundle
    if spelt and not all(map(bundle.tokenizer.spells, ROLES)):
        raise BadOption(
            f"conversations need tokens of their own ({listed(ROLES)}) for this model, which an "
            "adapter cannot hold; leave --lora out"
        )
    if not spelt:
        bundle = with_tokens(bundle, ROLES, seed)
    assert bundle.tokenizer is not None
    events.note("the model has no chat template: it learns a plain one, which is saved with it")
    return dataclasses.replace(bundle, tokenizer=bundle.tokenizer.with_chat_template(TEMPLATE))


def _resized(model: spec.Model, rows: int) -> spec.Model:
    """The same model for a vocabulary of `rows`."""

    def stack(old: spec.Stack | None) -> spec.Stack | None:
        if old is None or not isinstance(old.embedding, spec.TokenEmbedding):
            return old
        embedding = dataclasses.replace(old.embedding, vocabulary=rows)
        return dataclasses.replace(old, embedding=embedding)

    heads = tuple(
        (name, dataclasses.replace(head, vocabulary=rows))
        if isinstance(head, spec.VocabularyHead)
        else (name, head)
        for name, head in model.heads
    )
    return spec.Model(stack(model.encoder), stack(model.decoder), heads)


def _grown(tensor: Tensor, rows: int, known: int, places: Sequence[int], name: str) -> Tensor:
    """A tensor of one row a token with `rows` of them, those at `places` drawn like the `known`
    ones before them; a bias begins at zero."""
    grown = torch.cat([tensor, tensor.new_zeros(rows - len(tensor), *tensor.shape[1:])])
    if tensor.dim() == 2:
        deviation, mean = torch.std_mean(tensor[:known].float(), 0)
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        for place in places:
            grown[place] = mean + deviation * torch.randn(mean.shape, generator=generator)
    return grown
