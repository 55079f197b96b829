"""LoRA adapters (Hu et al., 2022) in the file format of PEFT.

    adapter_config.json           rank, alpha, which layers, the base model
    adapter_model.safetensors     base_model.model.MODULE.lora_A.weight  (r, in)
                                  base_model.model.MODULE.lora_B.weight  (out, r)

A module is named as `transformers` names it. Where that is several of our layers (GPT-2 projects
queries, keys and values by one matrix) they share A, and each has its rows of B. What a file asks
for and is not supported (DoRA, biases, embeddings ...) is an error that names the key.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mainspring import spec
from mainspring.checkpoints.adapter_places import Spelling, Targets, linear, places, shortest
from mainspring.checkpoints.config import json_text, read_json
from mainspring.core.model import Transformer
from mainspring.errors import BadOption, BadWeights, Mismatch, Missing, Refused
from mainspring.families import Family
from mainspring.families.keys import words
from mainspring.weights.files import TensorFiles, write_tensors, write_text

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
# Of PEFT's keys: those that change nothing here (where the adapter came from, how it started, how
# it was trained, which modules it is on: the tensors say that). Any other key must be empty.
HARMLESS = words(
    """
    auto_mapping base_model_name_or_path corda_config ensure_weight_tying eva_config
    exclude_modules fan_in_fan_out inference_mode init_lora_weights layers_pattern
    layers_to_transform loftq_config lora_ga_config megatron_core modules_to_save parent_library
    peft_type peft_version qalora_group_size revision runtime_config target_modules task_type
    velora_config
    """
)
READ = words("r lora_alpha lora_dropout use_rslora rank_pattern alpha_pattern bias")
# Starts that change the base model's weights too: the adapter alone is not the whole change.
CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


@dataclass(frozen=True)
class AdapterConfig:
    """What an adapter is. What it adds is `scale` * B A x.

    `alpha` None is twice the rank. `dropout` (a share in 0..1) falls on the input of A in training.
    `rslora` divides by the root of the rank (Kalajdzievski, 2023). `targets` are PEFT's
    `target_modules`: module names or their ends, or one regular expression; None is every linear
    layer of the stacks. `ranks` and `alphas` are patterns of module names with values of their own.
    `base` is the folder or hub name of the model that the adapter belongs to.
    """

    rank: int = 16
    alpha: float | None = None
    dropout: float = 0.0
    rslora: bool = False
    targets: Targets = None
    base: str = ""
    ranks: Mapping[str, int] = field(default_factory=dict)
    alphas: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if min((self.rank, *self.ranks.values())) < 1:
            raise BadOption(f"the rank of an adapter must be at least 1, not {self.rank}")
        if not 0.0 <= self.dropout < 1.0:
            raise BadOption(f"the dropout of an adapter must be in 0..1, not {self.dropout}")
        for pattern in (*self.ranks, *self.alphas):
            re.compile(pattern)

    def rank_of(self, module: str) -> int:
        """The rank at the module that `transformers` names so."""
        return _by_pattern(self.ranks, module, self.rank)

    def scale(self, module: str) -> float:
        rank = self.rank_of(module)
        alpha = _by_pattern(self.alphas, module, 2 * rank if self.alpha is None else self.alpha)
        return alpha / math.sqrt(rank) if self.rslora else alpha / rank


def _by_pattern(patterns: Mapping[str, Any], module: str, otherwise: Any) -> Any:
    """The value of the first pattern that the module's name ends in, as PEFT looks it up."""
    found = (value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", module))
    return next(found, otherwise)


class Factors(NamedTuple):
    """`scale` * b a is added to a weight: a is (r, in), b (out, r)."""

    a: Tensor
    b: Tensor
    scale: float


@dataclass(frozen=True)
class Adapter:
    """An adapter's weights: the factors of each module, and `whole` tensors that replace the base's
    (PEFT's `modules_to_save`), both by their names in checkpoints of the family."""

    config: AdapterConfig
    factors: Mapping[str, Factors]
    whole: Mapping[str, Tensor] = field(default_factory=dict)


# -- files -----------------------------------------------------------------------------------------


def is_adapter(folder: Path) -> bool:
    """Whether the folder holds an adapter and no model of its own."""
    stands_alone = any(folder.glob("model*.safetensors"))
    return (folder / CONFIG).is_file() and not stands_alone


def read_config(folder: Path) -> AdapterConfig:
    """`adapter_config.json`. BadOption names every key that is not supported."""
    file = folder / CONFIG
    data = read_json(file)
    kind = str(data.get("peft_type", "LORA")).upper()
    if kind != "LORA":
        raise BadOption(f"{file}: `peft_type` {kind}: of PEFT's methods only LORA is supported")
    unsupported = [key for key, value in data.items() if value and key not in HARMLESS | READ]
    if data.get("bias", "none") != "none":
        unsupported.append("bias")
    start = str(data.get("init_lora_weights", True)).lower()
    if start.startswith(CHANGES_BASE):
        unsupported.append("init_lora_weights")
    if unsupported:
        named = ", ".join(f"`{key}` {data[key]!r}" for key in unsupported)
        raise BadOption(
            f"{file}: not supported: {named}. Merge the adapter with PEFT "
            "(`model.merge_and_unload()`), and use the model that comes out"
        )
    targets = data.get("target_modules")
    try:
        return AdapterConfig(
            rank=int(data.get("r", 8)),
            alpha=float(data.get("lora_alpha", 8)),
            dropout=float(data.get("lora_dropout", 0.0)),
            rslora=bool(data.get("use_rslora", False)),
            targets=tuple(targets) if isinstance(targets, list) else targets,
            base=str(data.get("base_model_name_or_path") or ""),
            ranks=dict(data.get("rank_pattern") or {}),
            alphas=dict(data.get("alpha_pattern") or {}),
        )
    except (TypeError, ValueError, re.error) as error:
        raise BadWeights(f"{file}: not a readable adapter config ({error})") from None


def read_adapter(folder: Path, spelling: Spelling) -> Adapter:
    """The adapter in a folder, its names those of the checkpoints of its base model.

    Missing, Refused, BadOption or BadWeights say what is wrong with it.
    """
    config = read_config(folder)
    file = folder / WEIGHTS
    if not file.is_file():
        pickles = [found.name for found in folder.glob("adapter_model.bin")]
        if pickles:
            raise Refused(
                f"{folder}: the adapter is in {pickles[0]}, a pickle, which can run code when it "
                f"is opened; save it with PEFT as {WEIGHTS}, where you trust it"
            )
        raise Missing(f"{folder}: {CONFIG}, but no {WEIGHTS} beside it")
    halves: dict[str, dict[str, Tensor]] = {}
    whole = {}
    with TensorFiles([file]) as tensors:
        for key in tensors:
            name = key.removeprefix(PREFIX)
            match = re.fullmatch(r"(.+)\.lora_([AB])(?:\.default)?\.weight", name)
            if match:
                halves.setdefault(match[1], {})[match[2]] = tensors[key]
            elif ".lora_" in name:
                raise BadOption(
                    f"{file}: `{key}`: only low-rank factors of linear layers are supported"
                )
            else:  # of a head that has factors too PEFT stores the head itself
                plain = name.replace(".base_layer.", ".")
                whole[spelling.take(plain)] = tensors[key]
    factors = {}
    for module, found in halves.items():
        if len(found) < 2:
            raise BadWeights(f"{file}: `{module}` has but one of lora_A and lora_B")
        rank, stated = len(found["A"]), config.rank_of(module)
        if rank != stated:
            raise BadWeights(
                f"{file}: the factors at `{module}` are of rank {rank}, and {CONFIG} says "
                f"{stated}; one of the two files belongs to another adapter"
            )
        stored = spelling.take(f"{module}.weight").removesuffix(".weight")
        factors[stored] = Factors(found["A"], found["B"], config.scale(module))
    return Adapter(config, factors, whole)


def write_adapter(folder: Path, adapter: Adapter, spelling: Spelling, model: Transformer) -> None:
    """Writes both files into a folder that is there."""
    known = places(spelling.family, model)
    given = {name: spelling.give(f"{name}.weight").removesuffix(".weight") for name in known}
    tensors = {}
    for name, (a, b, _) in adapter.factors.items():
        tensors[f"{PREFIX}{given[name]}.lora_A.weight"] = a
        tensors[f"{PREFIX}{given[name]}.lora_B.weight"] = b
    for name, tensor in adapter.whole.items():
        tensors[PREFIX + spelling.give(name)] = tensor
    config = adapter.config
    heads = sorted({spelling.give(name).rpartition(".")[0] for name in adapter.whole})
    data = {
        "peft_type": "LORA",
        "task_type": _task_type(model.spec, with_head=bool(adapter.whole)),
        "base_model_name_or_path": config.base,
        "r": config.rank,
        "lora_alpha": _short(2 * config.rank if config.alpha is None else config.alpha),
        "lora_dropout": config.dropout,
        "use_rslora": config.rslora,
        "rank_pattern": dict(config.ranks),
        "alpha_pattern": {name: _short(alpha) for name, alpha in config.alphas.items()},
        "bias": "none",
        "fan_in_fan_out": any(known[name].transposed for name in adapter.factors),
        "target_modules": shortest((given[name] for name in adapter.factors), given.values()),
        "modules_to_save": heads or None,
        "init_lora_weights": True,
        "inference_mode": True,
    }
    write_tensors(tensors, folder / WEIGHTS)
    write_text(json_text(data), folder / CONFIG)


def _short(value: float) -> float | int:
    return int(value) if float(value).is_integer() else value


def _task_type(model: spec.Model, *, with_head: bool) -> str | None:
    """PEFT's word for what a model of text is for. For one that classifies it expects to find the
    head among the tensors."""
    first = model.encoder or model.decoder
    assert first is not None
    if not isinstance(first.embedding, spec.TokenEmbedding):
        return None
    if model.vocabulary_head is not None and model.decoder is not None:
        return "CAUSAL_LM" if model.encoder is None else "SEQ_2_SEQ_LM"
    kinds = {"classes": "SEQ_CLS", "token_classes": "TOKEN_CLS"} if with_head else {}
    return next((kinds[name] for name, _ in model.heads if name in kinds), None)


# -- into the weights ------------------------------------------------------------------------------


def leaf_factors(
    adapter: Adapter, family: Family, model: Transformer
) -> Iterator[tuple[str, Factors]]:
    """Our leaves that the adapter changes, each with A and its rows of B. Mismatch where the
    adapter is not one for this model."""
    known, base = places(family, model), adapter.config.base
    for module, (a, b, scale) in adapter.factors.items():
        if module not in known:
            raise Mismatch(
                f"the adapter changes `{module}`, which is no linear layer of this {family.name} "
                f"model; is `{base}` the model it was made for?"
            )
        leaves = [linear(model, name) for name in known[module].leaves]
        sizes = [leaf.out_features for leaf in leaves]
        rank, width = len(a), leaves[0].in_features
        if a.shape != (rank, width) or b.shape != (sum(sizes), rank):
            raise Mismatch(
                f"the adapter's factors at `{module}` are {tuple(a.shape)} and {tuple(b.shape)}, "
                f"and do not fit the model; is `{base}` the one it was made for?"
            )
        for leaf, rows in zip(known[module].leaves, b.split(sizes), strict=True):
            yield leaf, Factors(a, rows, scale)


@torch.no_grad()
def merge(adapter: Adapter, family: Family, model: Transformer) -> None:
    """Adds the adapter to the model's weights, in place; sums in float32."""
    put_whole(adapter, family, model)
    for name, (a, b, scale) in leaf_factors(adapter, family, model):
        weight = linear(model, name).weight
        weight.copy_(torch.addmm(weight.float(), b.float(), a.float(), alpha=scale))


@torch.no_grad()
def put_whole(adapter: Adapter, family: Family, model: Transformer) -> list[str]:
    """Puts the adapter's whole tensors in the places of the model's; returns our names of them.

    Mismatch where one does not fit, and where a head that reads the table of tokens would keep the
    old one, as PEFT leaves it: a head and a table of their own are not what the base model stores.
    """
    ours, left, filled = model.state_dict(), dict(adapter.whole), []
    repeated = [
        name
        for name, original in family.aliases.items()
        if name in left and original in left and torch.equal(left[name], left[original])
    ]
    for name in repeated:
        del left[name]
    pairs, head = list(family.pairs(model.spec)), model.spec.vocabulary_head
    tables = [name for p in pairs if p.ours[0].startswith("tables.") for name in p.theirs]
    if head is not None and head.tied and not repeated and not left.keys().isdisjoint(tables):
        raise Mismatch(
            "the adapter brings the table of tokens whole, and PEFT leaves the head, which shares "
            "it, on the old one. Train it with `ensure_weight_tying`, or merge it with PEFT "
            "(`model.merge_and_unload()`), and use the model that comes out"
        )
    for pair in pairs:
        if not all(name in left for name in pair.theirs):
            continue
        taken = pair.operation.take(*(left.pop(name) for name in pair.theirs))
        for name, tensor in zip(pair.ours, taken, strict=True):
            if tensor.shape != ours[name].shape:
                raise Mismatch(
                    f"the adapter's `{', '.join(pair.theirs)}` is {tuple(tensor.shape)}, and the "
                    f"model's {tuple(ours[name].shape)}; is `{adapter.config.base}` the model it "
                    "was made for?"
                )
            ours[name].copy_(tensor)
            filled.append(name)
    if left:
        raise Mismatch(
            f"the adapter brings `{min(left)}` whole (PEFT's `modules_to_save`), which this "
            f"{family.name} model does not store"
        )
    return filled
