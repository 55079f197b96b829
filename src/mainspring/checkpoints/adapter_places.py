"""Where an adapter stands: the linear layers of a model under the names that `transformers` gives
them, and PEFT's ways to choose among them."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import nn

from mainspring import spec
from mainspring.core.model import Transformer
from mainspring.errors import BadOption
from mainspring.families import Family
from mainspring.weights.maps import Joined, Pair, Same, Transposed

Targets = Sequence[str] | str | None
"""PEFT's `target_modules`: names of modules or their ends, or one regular expression; None (or
"all-linear") is every linear layer of the stacks."""


@dataclass(frozen=True)
class Place:
    """A linear layer as checkpoints name it, and our leaves that it is made of, whose outputs
    stand side by side. `transposed` where the checkpoint stores the matrix the other way round."""

    module: str
    leaves: tuple[str, ...]
    transposed: bool = False


def places(family: Family, model: Transformer) -> dict[str, Place]:
    """Every linear layer that the family's checkpoints store as a matrix, by its module's name."""
    found = {}
    for pair in family.pairs(model.spec):
        place = _place(pair)
        if place and all(isinstance(model.get_submodule(x), nn.Linear) for x in place.leaves):
            found[place.module] = place
    return found


def linear(model: Transformer, name: str) -> nn.Linear:
    """The linear layer of that name."""
    leaf = model.get_submodule(name)
    assert isinstance(leaf, nn.Linear)
    return leaf


def _place(pair: Pair) -> Place | None:
    (theirs, *more), suffix = pair.theirs, ".weight"
    if more or not all(name.endswith(suffix) for name in (theirs, *pair.ours)):
        return None
    module = theirs.removesuffix(suffix)
    leaves = tuple(name.removesuffix(suffix) for name in pair.ours)
    match pair.operation:
        case Same():
            return Place(module, leaves)
        case Transposed() | Joined(axis=1, transposed=True):
            return Place(module, leaves, transposed=True)
        case Joined(axis=0, transposed=False):
            return Place(module, leaves)
    return None


def choose(targets: Targets, known: dict[str, Place]) -> list[Place]:
    """The layers that `targets` mean. BadOption names one that means none."""
    if targets is None or targets == "all-linear":
        return [place for place in known.values() if not place.leaves[0].startswith("heads.")]
    if isinstance(targets, str):
        found = [place for name, place in known.items() if re.fullmatch(targets, name)]
        idle = [] if found else [targets]
    else:
        found = [p for name, p in known.items() if any(_ends(name, t) for t in targets)]
        idle = [t for t in targets if not any(_ends(name, t) for name in known)]
    if idle:
        ends = {name.rpartition(".")[2] for name in known}
        raise BadOption.unknown("target module", idle[0], ends)
    return found


def _ends(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def shortest(modules: Iterable[str], known: Iterable[str]) -> list[str]:
    """The ends of the modules' names where these mean no other module, else the whole names."""
    modules = sorted(modules)
    ends = sorted({name.rpartition(".")[2] for name in modules})
    meant = sorted(name for name in known if any(_ends(name, end) for end in ends))
    return ends if meant == modules else modules


class Spelling:
    """How PEFT spells the modules of a checkpoint: as those of the class that it is opened with.

    A class without a head has no prefix before its modules, and some families' modules have other
    names than their stored tensors.
    """

    def __init__(self, family: Family, model: Transformer):
        self.family = family
        self.bare = all(isinstance(head, spec.EmbeddingHead) for _, head in model.spec.heads)
        stored = {name for pair in family.pairs(model.spec) for name in pair.theirs}
        self._stored = {self.give(name): name for name in stored}

    def give(self, stored: str) -> str:
        """The name in PEFT's files of a stored tensor (or, without its last part, module)."""
        short = stored.partition(".")[2]
        name = short if self.bare and self.family.canonical(short) == stored else stored
        for pattern, replacement in self.family.modules:
            name = re.sub(pattern, replacement, name)
        return name

    def take(self, name: str) -> str:
        """The stored tensor's name."""
        return self._stored.get(name) or self.family.canonical(name)
