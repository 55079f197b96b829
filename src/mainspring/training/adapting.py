"""Fine-tuning by LoRA: what a run attaches to its model, and what it must find again to resume."""

import zlib
from pathlib import Path

import torch
from torch import nn

from mainspring.checkpoints.adapters import AdapterConfig, is_adapter
from mainspring.checkpoints.bundle import Bundle
from mainspring.compute.lora import Lora, attach
from mainspring.errors import Mismatch


def attach_adapter(
    bundle: Bundle, model: str, rank: int, alpha: float | None, head: str | None, seed: int
) -> Lora:
    """A fresh adapter on all linear layers of the bundle's stacks; a named `head` is trained whole.

    `model` is where the bundle came from: the adapter will say that it belongs to it. Mismatch
    where that is an adapter itself.
    """
    here = Path(model).expanduser()
    if is_adapter(here):
        raise Mismatch(
            f"{model} is an adapter, and another cannot belong to it; merge it first:\n"
            f"  python -c \"import mainspring; mainspring.load('{model}').save('merged')\""
        )
    base = str(here.resolve()) if here.exists() else model
    config = AdapterConfig(rank, alpha, base=base)
    heads = () if head is None else (head,)
    return attach(bundle.model, bundle.family, config, heads=heads, seed=seed)


def describe(lora: Lora) -> str:
    """One line for a person."""
    sizes = [(p.numel() / 1e6, p.requires_grad) for p in lora.model.parameters()]
    learned, whole = sum(size for size, learns in sizes if learns), sum(size for size, _ in sizes)
    head = f", and the head `{lora.heads[0]}` whole" if lora.heads else ""
    return (
        f"LoRA of rank {lora.config.rank} on {len(lora.parts)} layers{head}: "
        f"{learned:,.1f} of {whole:,.1f} million weights learn"
    )


def frozen_hash(model: nn.Module) -> str:
    """A checksum of the weights that do not learn, which no state of a run holds."""
    total = 0
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            numbers = parameter.detach().cpu().contiguous().view(torch.uint8).numpy()
            total = zlib.crc32(numbers.data, zlib.crc32(name.encode(), total))
    return f"{total:08x}"
