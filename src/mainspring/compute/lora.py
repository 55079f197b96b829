"""LoRA (Hu et al., 2022): linear layers learn a low-rank change while their weights stay.

y = W x + b + scale * B A dropout(x)        A starts random, B at zero: nothing changes at first

lora = attach(bundle, AdapterConfig(rank=16))     only the adapter's parameters learn now
... train ...
lora.adapter()                                    the factors, for `checkpoints.adapters`
lora.merge()                                      the change goes into the weights
"""

import math
import zlib
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mainspring.checkpoints.adapter_places import Place, Spelling, choose, linear, places
from mainspring.checkpoints.adapters import (
    Adapter,
    AdapterConfig,
    Factors,
    write_adapter,
)
from mainspring.checkpoints.bundle import Bundle
from mainspring.checkpoints.card import Card, card_text
from mainspring.checkpoints.config import CONFIG, json_text
from mainspring.compute.swap import place
from mainspring.core.init import build
from mainspring.core.model import Transformer
from mainspring.errors import Refused
from mainspring.families import Family
from mainspring.weights.files import write_text
from mainspring.weights.maps import to_theirs


class LowRank(nn.Module):
    """scale * B A dropout(x). One module of the checkpoint: several of our leaves may share it,
    each with its rows of B."""

    def __init__(self, a: Tensor, b: Tensor, scale: float, dropout: float):
        super().__init__()
        self.a, self.b = nn.Parameter(a), nn.Parameter(b)
        self.scale, self.dropout = scale, nn.Dropout(dropout)

    def forward(self, x: Tensor, rows: slice) -> Tensor:
        return F.linear(F.linear(self.dropout(x), self.a), self.b[rows]) * self.scale

    def add_to(self, weight: Tensor, rows: slice) -> None:
        """weight += scale * B A, in place."""
        weight.addmm_(self.b[rows].to(weight), self.a.to(weight), alpha=self.scale)


class LoraLinear(nn.Linear):
    """In the place of an `nn.Linear`, with the same parameters, frozen, and a `LowRank` part.

    Where leaves share one, the first owns it and the others borrow it.
    """

    def __init__(self, old: nn.Linear, part: LowRank, rows: slice, *, owns: bool):
        nn.Module.__init__(self)
        self.in_features, self.out_features = old.in_features, old.out_features
        self.weight, self.bias = old.weight, old.bias
        self.low_rank = part if owns else None
        self._part, self.rows = (part,), rows

    @property
    def part(self) -> LowRank:
        return self._part[0]

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias) + self.part(x, self.rows)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """A plain layer on the same parameters, the change added to the weight."""
        self.part.add_to(self.weight, self.rows)
        return _plain(self)


def _plain(leaf: nn.Linear) -> nn.Linear:
    with torch.device("meta"):
        plain = nn.Linear(leaf.in_features, leaf.out_features, leaf.bias is not None)
    plain.weight, plain.bias = leaf.weight, leaf.bias
    return plain.train(leaf.training)


class Lora:
    """An adapter on a model: the handle that saves it, merges it, or takes it off."""

    def __init__(
        self, model: Transformer, family: Family, config: AdapterConfig, heads: tuple[str, ...]
    ):
        self.model, self.family, self.config, self.heads = model, family, config, heads
        self.parts: dict[Place, LowRank] = {}
        self._learned = {p: p.requires_grad for p in model.parameters()}

    def put(self, at: Place, factors: Factors) -> None:
        a, b, scale = factors
        leaves = [linear(self.model, name) for name in at.leaves]
        like = leaves[0].weight
        part = LowRank(
            a.to(like.device, torch.float32),
            b.to(like.device, torch.float32),
            scale,
            self.config.dropout,
        )
        first = 0
        for name, old in zip(at.leaves, leaves, strict=True):
            rows = slice(first, first + old.out_features)
            new = LoraLinear(old, part, rows, owns=first == 0)
            place(self.model, name, new.train(old.training))
            first = rows.stop
        self.parts[at] = part

    def adapter(self) -> Adapter:
        """The weights as they are now, under the names of the family's checkpoints. They are the
        parameters themselves, not copies."""
        factors = {}
        for at, part in self.parts.items():
            factors[at.module] = Factors(part.a.detach(), part.b.detach(), part.scale)
        ours = self.model.state_dict()
        kept = [
            pair
            for pair in self.family.pairs(self.model.spec)
            if any(name.startswith(tuple(f"heads.{h}." for h in self.heads)) for name in pair.ours)
        ]
        return Adapter(self.config, factors, to_theirs(kept, ours) if self.heads else {})

    def save(self, folder: str | Path, bundle: Bundle, card: str | None = None) -> None:
        """Writes the adapter into `folder`, whole or not at all, with the bundle's tokenizer and
        small files. `card` is the text of README.md."""
        if card is None:
            learned = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
            name, base = Path(folder).name, self.config.base
            card = card_text(Card(name, base_model=base, parameters=learned, adapter=True))

        def weights(draft: Path) -> None:
            spelling = Spelling(self.family, self.model)
            write_adapter(draft, self.adapter(), spelling, self.model)
            if self.heads:  # the base model's own config may know another head, or none
                config = self.family.saved_config(bundle.config, self.model.spec)
                write_text(json_text(config), draft / CONFIG)

        bundle.save_with(folder, weights, card)

    def merge(self) -> None:
        """Adds the change to the weights and takes the adapter off."""
        merge_adapters(self.model)
        self._forget()

    def detach(self) -> None:
        """Takes the adapter off: the model is as it was before, but for heads that learned."""
        for name, leaf in _lora_leaves(self.model):
            place(self.model, name, _plain(leaf))
        self._forget()

    def _forget(self) -> None:
        self.parts.clear()
        for parameter, learned in self._learned.items():
            parameter.requires_grad_(learned)


def _lora_leaves(model: nn.Module) -> Iterator[tuple[str, LoraLinear]]:
    yield from [(n, m) for n, m in model.named_modules() if isinstance(m, LoraLinear)]


def merge_adapters(model: nn.Module) -> None:
    """Merges every adapter that is attached to the model, in place; plain layers remain."""
    for name, leaf in _lora_leaves(model):
        place(model, name, leaf.merged())


@torch.no_grad()
def merged_copy(model: Transformer, lora: Lora | None = None) -> Transformer:
    """The core's own model with these weights, `lora` merged, whatever has been swapped in.

    Only weights with an adapter are copied; the others are read where they are. So it may be
    prepared for inference, which leaves the storages of the old weights alone, and not trained.
    """
    weights = model.state_dict()
    for at, part in lora.parts.items() if lora else ():
        first = 0
        for name in at.leaves:
            weight = weights[f"{name}.weight"].clone()
            part.add_to(weight, slice(first, first + len(weight)))
            weights[f"{name}.weight"] = weight
            first += len(weight)
    copy = build(model.spec)
    wanted = copy.state_dict().keys()
    copy.load_state_dict({name: weights[name] for name in wanted}, assign=True)
    return copy.eval()


def attach(
    model: Transformer,
    family: Family,
    config: AdapterConfig,
    *,
    heads: tuple[str, ...] = (),
    seed: int = 0,
) -> Lora:
    """Puts a fresh adapter on the layers that `config.targets` mean, and freezes all else but the
    named `heads`, which are trained whole.

    A is uniform within ±in ** -0.5 (as PEFT draws it), from the seed and the layer's name; B is 0.
    BadOption where a target is no linear layer, Refused for the vocabulary head.
    """
    lora = Lora(model, family, config, heads)
    model.requires_grad_(False)
    for at in choose(config.targets, places(family, model)):
        _refuse_vocabulary(at)
        leaves = [linear(model, name) for name in at.leaves]
        rank = config.rank_of(at.module)
        generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {at.module}".encode()))
        width, out = leaves[0].in_features, sum(leaf.out_features for leaf in leaves)
        a = torch.rand(rank, width, generator=generator).mul_(2).sub_(1).div_(math.sqrt(width))
        lora.put(at, Factors(a, torch.zeros(out, rank), config.scale(at.module)))
    for name in heads:
        model.heads[name].requires_grad_(True)
    return lora


def _refuse_vocabulary(at: Place) -> None:
    if at.leaves[0] == "heads.vocabulary.out":
        raise Refused(
            f"an adapter on `{at.module}`: the vocabulary head is read in chunks and cannot be "
            "trained by low rank; leave it out of the target modules"
        )
