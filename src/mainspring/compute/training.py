"""Prepares a model for training, from outside: faster parts take the places of the core's.

    prepared = prepare_for_training(model)
    for step in ...:
        for batch in micro_batches:
            (losses(model, batch).sum() / target_tokens).backward()
        clip; optimizer.step(); optimizer.zero_grad()
        prepared.refresh()
    prepared.restore()

The parameters are the same objects, float32, and under the same names all along: an optimizer may
be built before or after, and `state_dict` may be taken at any time.

    float32    the core's own arithmetic; only the random numbers of dropout come cheaper
    bfloat16   matrix products in bfloat16 by copies of the weights that are cast once per optimizer
               step; the residual stream, norms, softmax and loss in float32

What a GPU does well by torch's own kernels (dropout, norms, attention, what is between the products
of a feed-forward network) is left to them there.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mainspring.compute.adapted import AdaptedCopy
from mainspring.compute.attention import training_attend
from mainspring.compute.copies import ComputeCopy
from mainspring.compute.dropout import Dropout
from mainspring.compute.feed_forward import (
    ReluFeedForward,
    SmoothFeedForward,
    expanding_leaves,
    is_smooth,
)
from mainspring.compute.hardware import detect
from mainspring.compute.linear import CopiedLinear, FusedProjections
from mainspring.compute.lora import LoraLinear
from mainspring.compute.loss import HeadPanels, token_nats_by_kernels
from mainspring.compute.residual import NarrowRMSNorm, ResidualStep
from mainspring.compute.self_attention import FusedSelfAttention
from mainspring.compute.swap import swap
from mainspring.compute.tables import TableGradient, join_gradients
from mainspring.core.attention import (
    CrossAttention,
    KeyValue,
    QueryKeyValue,
    SelfAttention,
    attend,
)
from mainspring.core.feed_forward import FeedForward, Up
from mainspring.core.heads import VocabularyHead
from mainspring.core.layer import Layer, PreNorm
from mainspring.core.masks import AttentionMask
from mainspring.core.model import Transformer

TrainingPrecision = Literal["auto", "float32", "bfloat16"]


class CheckpointedLayer(Layer):
    """In the place of a `Layer`: its activations are computed again in the backward pass, not kept
    (Chen et al., 2016). Dropout draws the same numbers again."""

    def __init__(self, old: Layer):
        nn.Module.__init__(self)
        self.__dict__.update(old.__dict__)

    def forward(
        self,
        x_BTD: Tensor,
        mask: AttentionMask,
        bias_1HTS: Tensor | None = None,
        *rest: Any,
    ) -> Tensor:
        if not (self.training and torch.is_grad_enabled()):
            return super().forward(x_BTD, mask, bias_1HTS, *rest)
        if self.self_attention.attend is attend:
            # Mask and bias are made into one tensor for all layers: outside of what is repeated.
            mask.additive(bias_1HTS, x_BTD.dtype)
        return checkpoint(super().forward, x_BTD, mask, bias_1HTS, *rest, use_reentrant=False)


class TrainingModel:
    """A model that is prepared for training, and what to call between its steps."""

    def __init__(self, model: Transformer, precision: Literal["float32", "bfloat16"]):
        self.model, self.precision = model, precision
        self.copies: list[ComputeCopy | HeadPanels] = []
        self.undo: list[Callable[[], None]] = []

    def refresh(self) -> None:
        """Casts the weights anew; to be called after each change of them."""
        for copy in self.copies:
            copy.refresh()

    def restore(self) -> None:
        """Puts the core's own parts back."""
        while self.undo:
            self.undo.pop()()
        self.copies.clear()
        self.model.train(self.model.training)

    def copy(self, *leaves: nn.Linear) -> ComputeCopy:
        """A bfloat16 copy of the leaves' weights, to be refreshed with the others."""
        adapted = any(isinstance(leaf, LoraLinear) for leaf in leaves)
        made = (AdaptedCopy if adapted else ComputeCopy)(leaves, torch.bfloat16)
        self.copies.append(made)
        return made


def prepare_for_training(
    model: Transformer,
    precision: TrainingPrecision = "auto",
    checkpoint_layers: bool = False,
) -> TrainingModel:
    """Swaps faster parts into `model`, in place, and returns the handle that takes them out again.

    "auto" is bfloat16 where the hardware multiplies it fast, else float32.
    """
    if precision == "auto":
        precision = "bfloat16" if multiplies_bfloat16_fast(model) else "float32"
    prepared = TrainingModel(model, precision)
    if precision == "bfloat16":
        for stack in (model.encoder, model.decoder):
            if stack is not None:
                _narrow(stack, prepared)
        tables = _lookups(model, prepared) if on_cpu(model) else []
        _widen_heads(model, prepared, tables)
    if on_cpu(model):
        swapped = swap(model, _is_dropout, _cheap_dropout)
        prepared.undo.append(swapped.undo)
    if checkpoint_layers:
        swapped = swap(model, Layer, _checkpointed)
        prepared.undo.append(swapped.undo)
    return prepared


def on_cpu(model: nn.Module) -> bool:
    return next(model.parameters()).device.type == "cpu"


def multiplies_bfloat16_fast(model: nn.Module) -> bool:
    """Whether bfloat16 products beat float32 ones where the model is."""
    device = next(model.parameters()).device
    if device.type == "cpu":
        return detect().fast_bfloat16
    return device.type == "cuda" and torch.cuda.is_bf16_supported()


def _is_dropout(name: str, module: nn.Module) -> bool:
    return type(module) is nn.Dropout


def _cheap_dropout(name: str, old: nn.Module) -> nn.Module:
    assert isinstance(old, nn.Dropout)
    return Dropout(old.p)


def _checkpointed(name: str, old: nn.Module) -> nn.Module:
    assert isinstance(old, Layer)
    return CheckpointedLayer(old)


def _narrow(stack: nn.Module, prepared: TrainingModel) -> None:
    """bfloat16 parts in the places of the core's."""
    cpu = on_cpu(stack)

    def plain(*leaves: nn.Module) -> bool:
        """Bare linear leaves, or such with adapters: any other instrument's are left alone."""
        return all(type(leaf) in (nn.Linear, LoraLinear) for leaf in leaves)

    def make(name: str, old: nn.Module) -> nn.Module | None:
        """What takes the place of `old`; None where it stays and its insides are looked at."""
        match old:
            case QueryKeyValue() if plain(old.q, old.k, old.v):
                return FusedProjections(old, prepared.copy(old.q, old.k, old.v))
            case KeyValue() if plain(old.k, old.v):
                return FusedProjections(old, prepared.copy(old.k, old.v))
            case FeedForward() if not cpu:
                return None
            case FeedForward(expand=Up(activation=F.relu, up=up), down=down) if plain(up, down):
                return ReluFeedForward(old, prepared.copy(up), prepared.copy(down))
            case FeedForward() if is_smooth(old) and plain(*expanding_leaves(old), old.down):
                wide = prepared.copy(*expanding_leaves(old))
                return SmoothFeedForward(old, wide, prepared.copy(old.down))
            case nn.Linear() if plain(old):
                return CopiedLinear(old, prepared.copy(old))
            case nn.RMSNorm():
                return NarrowRMSNorm(old, torch.bfloat16)
            case PreNorm() if type(old) is PreNorm:
                return ResidualStep(old, torch.bfloat16)
        return None

    made: dict[str, nn.Module] = {}

    def matches(name: str, module: nn.Module) -> bool:
        new = make(name, module)
        if new is not None:
            made[name] = new
        return new is not None

    prepared.undo.append(swap(stack, matches, lambda name, _: made[name]).undo)
    if cpu:
        prepared.undo.append(swap(stack, _has_fused_projections, _fused).undo)
    for module in stack.modules():
        if isinstance(module, SelfAttention | CrossAttention) and module.attend is attend:
            module.attend = training_attend
            prepared.undo.append(partial(setattr, module, "attend", attend))


def _has_fused_projections(name: str, module: nn.Module) -> bool:
    return type(module) is SelfAttention and isinstance(module.qkv, FusedProjections)


def _fused(name: str, old: nn.Module) -> nn.Module:
    assert isinstance(old, SelfAttention) and isinstance(old.qkv, FusedProjections)
    queries, keys, _ = old.qkv.copy.rows
    return FusedSelfAttention(old, (queries // old.head_width, keys // old.head_width))


def _widen_heads(
    model: Transformer, prepared: TrainingModel, tables: Sequence[TableGradient]
) -> None:
    """Heads are the core's own, in float32: what they are given is cast to it. The loss over a
    vocabulary does not call its head: it has our own kernels."""
    for head in model.heads.values():
        if isinstance(head, VocabularyHead) and on_cpu(model):
            panels = HeadPanels()
            prepared.copies.append(panels)
            head.nats = partial(token_nats_by_kernels, tables=tables, panels=panels)
            prepared.undo.append(partial(setattr, head, "nats", None))
        hook = head.register_forward_pre_hook(lambda _, args: (args[0].float(), *args[1:]))
        prepared.undo.append(hook.remove)


def _lookups(model: Transformer, prepared: TrainingModel) -> list[TableGradient]:
    """Tables whose lookups add their rows to the head's gradient."""
    found = []
    for table in model.tables.values():
        assert isinstance(table, nn.Embedding)
        if table.weight.requires_grad:
            gradient, end = join_gradients(table)
            prepared.undo.append(end)
            found.append(gradient)
    return found
