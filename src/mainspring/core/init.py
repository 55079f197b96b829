"""The initial value of every weight, in one place.

    Linear weights        normal, deviation  fan_in ** -0.5
    a query projection    the same, times head_width ** -0.5 where the scores are not scaled (T5)
    token tables          normal 1 where the head scales its input, else width ** -0.5
    other tables          normal, width ** -0.5 (relative bias: width of the model)
    norms                 ones, biases zeros

Each tensor's numbers depend on the seed and its own name only, so that adding a layer changes no
other layer's start.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from mainspring import spec
from mainspring.core.attention import CrossAttention, SelfAttention
from mainspring.core.heads import VocabularyHead
from mainspring.core.model import Transformer
from mainspring.core.positions import RelativePositionBias


@torch.no_grad()
def initialise(model: Transformer, seed: int = 0, prefix: str = "") -> None:
    """Fills the weights of `model` whose names begin with `prefix`, in place; all without one."""
    deviations = _special_deviations(model)
    for name, module in model.named_modules():
        for kind, parameter in module.named_parameters(recurse=False):
            full = f"{name}.{kind}"
            if not full.startswith(prefix):
                continue
            if kind == "bias":
                parameter.zero_()
            elif isinstance(module, nn.LayerNorm | nn.RMSNorm):
                parameter.fill_(1.0)
            else:
                fan_in = parameter[0].numel()
                # The CPU's generator looks at 32 bits of its seed.
                own_seed = zlib.crc32(f"{seed} {full}".encode())
                generator = torch.Generator().manual_seed(own_seed)
                values = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(values * deviations.get(full, fan_in**-0.5))


def _special_deviations(model: Transformer) -> dict[str, float]:
    deviations: dict[str, float] = {}
    last = model.spec.decoder or model.spec.encoder
    assert last is not None
    scaled = any(isinstance(h, VocabularyHead) and h.scale != 1.0 for h in model.heads.values())
    for name in model.tables:
        deviations[f"tables.{name}.weight"] = 1.0 if scaled else last.width**-0.5
    for name, module in model.named_modules():
        if isinstance(module, RelativePositionBias):
            deviations[f"{name}.table.weight"] = last.width**-0.5
        elif isinstance(module, SelfAttention | CrossAttention) and module.scale == 1.0:
            inside = "qkv.q" if isinstance(module, SelfAttention) else "q"
            width = last.width
            deviations[f"{name}.{inside}.weight"] = (width * module.head_width) ** -0.5
    return deviations


class _NoNormalValues(TorchFunctionMode):
    """Leaves out the values that torch itself gives to tables: ours replace them, and on the meta
    device drawing them makes torch import its compiler, which takes seconds."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is nn.init.normal_:
            return kwargs["tensor"]
        return func(*args, **kwargs)


def build(model: spec.Model, seed: int | None = None) -> Transformer:
    """A new model in float32; with a `seed` its weights are drawn, without they are meta tensors.

    The meta device allocates nothing: use it to plan, or to load a checkpoint into.
    """
    with torch.device("meta"), _NoNormalValues():
        transformer = Transformer(model)
    if seed is None:
        return transformer
    transformer = transformer.to_empty(device="cpu")
    initialise(transformer, seed)
    return transformer
