"""Families of checkpoints: how each one's config and tensor names translate to ours.

A family is data. It imports no torch, knows nothing of `core`, and never imports another family;
both it and the core speak `spec`.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mainspring.spec import Head, Model
from mainspring.weights.maps import Ignored, Pair

Config = Mapping[str, Any]


@dataclass(frozen=True)
class TokenLayout:
    """The special tokens of a tokenizer that is trained for a new model.

    `special` are their texts by the parts they play ("pad", "eos", "bos", "unk", "cls", "sep",
    "mask"), in the order of their ids from 0. `before` and `after` are the parts put around each
    text, `after` also behind the second text of a pair. `sentinels` counts T5's `<extra_id_…>`,
    which are the last ids. With `ideographs_apart` each Chinese character is a token, as in
    BERT's vocabularies: whoever marks words in a text finds their edges between tokens.
    """

    special: Mapping[str, str]
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    sentinels: int = 0
    ideographs_apart: bool = False


TEXT_TO_TEXT = TokenLayout(
    {"pad": "<pad>", "eos": "</s>", "unk": "<unk>"}, after=("eos",), sentinels=100
)


@dataclass(frozen=True)
class Family:
    """One family of checkpoints.

    `spec(config, names)` builds the model spec from a `config.json` and the tensor names of the
    weight files (whether a head is tied is read from the file, not guessed from the config).
    `pairs(model)` lists the weight map for exactly that spec.
    `aliases` maps a tensor that may merely repeat another to that other: where both are equal in
    the file the first is dropped before anything else looks at it.
    `sizes` are configs for models trained from scratch, without the vocabulary size; `tokens` is
    the layout of the tokenizers trained for them.
    `architecture` names the `transformers` class that a saved folder is opened with.
    `saved_config(config, model)` is the `config.json` to save for a config that was read.
    `renames` are (pattern, replacement) pairs, regular expressions that turn other spellings of
    tensor names (older files, files of a model without its head) into those of `pairs`.
    `modules` are such pairs too: from the names of `pairs` to those that the modules of
    `transformers` have where they differ (adapters are stored under these).
    `head(name, config)` is the spec of a head as this family has it, for models that get a new one.
    `examples` are small whole configs, each optional feature in some of them: the contract tests
    of `mainspring.testing` run on them.
    """

    name: str
    model_types: tuple[str, ...]
    architecture: str
    spec: Callable[[Config, Collection[str]], Model]
    pairs: Callable[[Model], Iterable[Pair]]
    aliases: Mapping[str, str] = field(default_factory=dict)
    ignored: tuple[Ignored, ...] = ()
    sizes: Mapping[str, Config] = field(default_factory=dict)
    tokens: TokenLayout = TEXT_TO_TEXT
    saved_config: Callable[[Config, Model], Config] = lambda config, model: config
    renames: tuple[tuple[str, str], ...] = ()
    modules: tuple[tuple[str, str], ...] = ()
    head: Callable[[str, Config], Head] | None = None
    examples: tuple[Config, ...] = ()

    def canonical(self, name: str) -> str:
        """The name that `pairs` knows a stored tensor by."""
        for pattern, replacement in self.renames:
            name = re.sub(pattern, replacement, name)
        return name
