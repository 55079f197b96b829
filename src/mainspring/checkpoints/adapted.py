"""Opening an adapter: its base model, with the adapter merged into it."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mainspring.checkpoints import adapters
from mainspring.checkpoints.adapter_places import Spelling
from mainspring.checkpoints.bundle import Bundle, load
from mainspring.checkpoints.config import CONFIG, read_config, read_generation
from mainspring.checkpoints.settle import CARRIED, settle
from mainspring.checkpoints.tokenizer import Tokenizer
from mainspring.core.init import build
from mainspring.errors import BadWeights, Missing
from mainspring.weights.maps import to_ours, to_theirs


def load_adapted(folder: Path, base: str | Path | None, dtype: torch.dtype | None) -> Bundle:
    """The base model with the adapter in `folder` merged into it, and what else lies there."""
    settle(folder)
    bundle, adapter = open_adapter(folder, base, dtype)
    adapters.merge(adapter, bundle.family, bundle.model)
    return bundle


def open_adapter(
    folder: Path, base: str | Path | None = None, dtype: torch.dtype | None = None
) -> tuple[Bundle, adapters.Adapter]:
    """The base model as the adapter in `folder` wants it, and the adapter itself, apart."""
    place = base_of(folder, base)
    try:
        bundle = load(place, dtype=dtype)
    except Missing as error:
        raise Missing(
            f"{folder}: an adapter for `{place}`, which is needed too: {error}\n"
            "Where it lies elsewhere: load(…, base=…)"
        ) from None
    config = read_config(folder) if (folder / CONFIG).is_file() else bundle.config
    adapter = adapters.read_adapter(folder, Spelling(bundle.family, bundle.model))
    if config is not bundle.config:
        bundle = _with_heads(bundle, config, adapter.whole)
    bundle.tokenizer = Tokenizer.open(folder) or bundle.tokenizer
    bundle.generation = read_generation(folder, {}) or bundle.generation
    carried = {name: folder / name for name in CARRIED if (folder / name).is_file()}
    bundle.extra_files |= {name: file.read_bytes() for name, file in carried.items()}
    return bundle, adapter


def base_of(folder: Path, base: str | Path | None = None) -> str | Path:
    """The name or folder of the model that the adapter in `folder` belongs to: `base` where it is
    given, else the one it names, which may lie beside it."""
    named = base or adapters.read_config(folder).base
    if not named:
        raise Missing(f"{folder}: an adapter that names no base model; say which: load(…, base=…)")
    beside = folder / named
    place = beside if not Path(named).exists() and beside.is_dir() else named
    if Path(place).is_dir() and Path(place).samefile(folder):
        raise BadWeights(f"{folder}: an adapter that names itself as its base model")
    return place


def _with_heads(bundle: Bundle, config: dict[str, Any], added: Mapping[str, Tensor]) -> Bundle:
    """The bundle's model with the heads that `config` and the `added` tensors describe."""
    family = bundle.family
    theirs = {**to_theirs(family.pairs(bundle.spec), bundle.model.state_dict()), **added}
    model = build(family.spec(config, theirs.keys()))
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    pairs = list(family.pairs(model.spec))
    read = {name for pair in pairs for name in pair.theirs}
    stored = {name: tensor for name, tensor in theirs.items() if name in read}
    ours = to_ours(pairs, stored, expected)
    model.load_state_dict({name: tensor.clone() for name, tensor in ours.items()}, assign=True)
    return dataclasses.replace(bundle, model=model.eval(), config=config)
