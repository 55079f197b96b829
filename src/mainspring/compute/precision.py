"""Prepares a model for inference, from outside: narrow, packed and fused parts take the places of
the core's. What comes out answers the same calls and cannot be trained or saved.

    float32    the numbers of the core; fused projections and cheap steps
    bfloat16   weights and products in bfloat16; residual stream, norms and softmax in float32
    int8       what decoding reads at each step: weights in 8 bits with a scale per output; the rest
               as in bfloat16. Our kernels take activations to 15 bits with a scale per row; torch's
               operators take those of several rows to 8, smoothed before in decoder-only models
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal, cast

import torch
from torch import Tensor, nn

from mainspring import events, spec
from mainspring.compute import packed
from mainspring.compute.decoder import StepDecoder
from mainspring.compute.devices import choose_device
from mainspring.compute.encoder import GroupedEncoder, LaidOutBias
from mainspring.compute.graphed import GraphedDecoder
from mainspring.compute.hardware import Hardware, detect
from mainspring.compute.lora import merge_adapters
from mainspring.compute.memory import give_back_freed_memory, keep_freed_memory
from mainspring.compute.native import library
from mainspring.compute.native.library import Kernels
from mainspring.compute.native.parts import (
    ACTIVE,
    NativeAttend,
    NativeGatedUp,
    NativeNorm,
    NativePreNorm,
    NativeProjection,
    NativeUp,
)
from mainspring.compute.norms import (
    FusedRMSNorm,
    NarrowLayerNorm,
    NarrowRMSNorm,
    WideEmbedding,
)
from mainspring.compute.projections import (
    BagRow,
    ByRow,
    Int8Projection,
    Int8Row,
    JoinedGatedUp,
    JoinedProjections,
    Make,
    PackedProjection,
    PlainProjection,
    ProjectedUp,
    ProjectedVocabularyHead,
    Projection,
)
from mainspring.compute.smoothing import smooth
from mainspring.compute.step_parts import fits
from mainspring.compute.swap import place, swap
from mainspring.core.attention import CrossAttention, KeyValue, QueryKeyValue, SelfAttention
from mainspring.core.feed_forward import FeedForward, GatedUp, Up
from mainspring.core.heads import VocabularyHead
from mainspring.core.layer import PostNorm, PreNorm
from mainspring.core.model import Transformer
from mainspring.core.positions import RelativePositionBias
from mainspring.core.stack import Stack
from mainspring.errors import BadOption

PRECISIONS = ("auto", "float32", "bfloat16", "int8")
Precision = Literal["float32", "bfloat16", "int8"]


@dataclass(frozen=True)
class Prepared:
    """A model for inference only. Bytes are those of all weights, before and after."""

    model: Transformer
    precision: Precision
    bytes_before: int
    bytes_after: int

    def describe(self) -> str:
        """One line for a person."""
        before, after = self.bytes_before / 1e6, self.bytes_after / 1e6
        return f"{self.precision} inference: weights take {after:,.0f} MB (before: {before:,.0f})"


def choose(precision: str, hardware: Hardware, device: torch.device) -> Precision:
    """The precision meant by a name of `PRECISIONS`. BadOption names the nearest of them.

    "auto" is bfloat16 where it is faster than float32, else float32. int8 is a choice of the user.
    """
    if precision not in PRECISIONS:
        raise BadOption.unknown("precision", precision, PRECISIONS)
    if precision == "int8" and device.type != "cpu":
        raise BadOption("int8 is for CPUs; on a GPU leave --precision out or say bfloat16")
    if precision != "auto":
        return cast(Precision, precision)
    fast = hardware.fast_bfloat16 if device.type == "cpu" else torch.cuda.is_bf16_supported()
    return "bfloat16" if fast else "float32"


def ready(model: Transformer, precision: str, device: str) -> Prepared:
    """Puts a loaded model where it is to work, and prepares it for a long run of inference: what
    a batch frees is kept for the next one, in the whole process."""
    prepared = prepare(model.to(choose_device(device)), precision)
    give_back_freed_memory()  # of the first weights
    keep_freed_memory()
    return prepared


@torch.no_grad()
def prepare(
    model: Transformer, precision: str = "auto", hardware: Hardware | None = None
) -> Prepared:
    """Changes `model`, in place, into one for inference. Adapters are merged into its weights.

    The original weights are let go one by one, so that memory never holds two models. `hardware`
    is what `hardware.detect` found unless given.
    """
    merge_adapters(model)
    device = next(model.parameters()).device
    hardware = hardware or detect()
    chosen = choose(precision, hardware, device)
    _warn_where_slow(chosen, hardware, device)
    before = sum(p.numel() * p.element_size() for p in model.parameters())
    model.eval()
    dtype = torch.float32 if chosen == "float32" else torch.bfloat16
    last = model.decoder or model.encoder
    assert last is not None
    # After norms that close each part, the hidden states stay float32, and so do heads' own layers.
    head_dtype = torch.float32 if any(type(m) is PostNorm for m in last.modules()) else dtype
    kernels = None
    if device.type == "cpu" and chosen != "float32" and "AVX512_CORE_AMX" in hardware.instructions:
        kernels = library.kernels()
    # By torch's operators, products over many rows at a time are bound by arithmetic, not by
    # reading weights: where the CPU is quick at bfloat16, taking activations to 8 bits there costs
    # more than it saves. Our own kernels do it on the way.
    wide = chosen == "int8" and kernels is None and hardware.fast_bfloat16
    fast: Precision = "bfloat16" if wide else chosen
    coarse = chosen == "int8" and device.type == "cpu" and kernels is None
    scale = smooth(model) if coarse else None
    for side, stack in (("encoder", model.encoder), ("decoder", model.decoder)):
        if isinstance(stack, Stack):
            _prepare_stack(stack, chosen, fast, kernels, decodes=side == "decoder")
    # Last, when the layers' first weights are gone: to pack the vocabulary takes the most room.
    for name, head in model.heads.items():
        if type(head) is VocabularyHead and chosen != "float32":
            table = model.table(model.spec.decoder or model.spec.encoder)
            make = _maker(chosen, device, kernels, by_row=model.decoder is not None)
            if kernels is not None:
                make = partial(make, result=torch.float32)
            made = ProjectedVocabularyHead(head, table, make, head_dtype, scale)
            place(model, f"heads.{name}", made)
        else:
            head.to(head_dtype)
    model.requires_grad_(False)
    model.tables.to(dtype)
    _replace_stacks(model, dtype, device, kernels)
    done = Prepared(model, chosen, before, sum(_sizes(model)))
    events.note(done.describe())
    return done


def _warn_where_slow(precision: Precision, hardware: Hardware, device: torch.device) -> None:
    fast = {"bfloat16": hardware.fast_bfloat16, "int8": hardware.fast_int8}
    if device.type == "cpu" and not fast.get(precision, True):
        events.warn(
            f"this CPU has no fast {precision} products: expect it to be slower than float32, "
            "which `auto` would have chosen"
        )


def _maker(
    precision: Precision, device: torch.device, kernels: Kernels | None, *, by_row: bool
) -> Make:
    """What builds the projections of a part. `by_row`: it will also run on single rows."""
    if precision == "float32":
        return PlainProjection
    if kernels is not None:
        dtype = torch.int8 if precision == "int8" else torch.bfloat16
        return partial(NativeProjection, kernels=kernels, weight_dtype=dtype)
    if precision == "int8" and device.type == "cpu":
        return _by_row(Int8Projection, Int8Row) if by_row else Int8Projection
    if device.type == "cpu" and packed.has_bfloat16():
        return _by_row(PackedProjection, BagRow) if by_row else PackedProjection
    return partial(PlainProjection, dtype=torch.bfloat16)


def _by_row(many: Make, row: Make) -> Make:
    """`many`, with `row` beside it for single rows where there is an operator for it."""
    if row is Int8Row and not packed.has_int8_row():
        return many
    return partial(ByRow, make_row=row, make_many=many)


def _prepare_stack(
    stack: Stack, precision: Precision, many: Precision, kernels: Kernels | None, *, decodes: bool
) -> None:
    """Puts the parts for inference into `stack`; `many` is the precision for many rows at a time:
    all of an encoder, and the memory's projections in a decoder."""
    device = next(stack.parameters()).device
    make = _maker(precision if decodes else many, device, kernels, by_row=decodes)
    make_memory = _maker(many, device, kernels, by_row=False)
    wide = make
    if precision == "int8" and kernels is None:
        wide = _maker("bfloat16", device, None, by_row=False)
        if decodes and device.type == "cpu":
            wide = _by_row(wide, Int8Row)
    # A norm before a part feeds projections only; one after it is the residual stream itself, and
    # so is that of the embeddings.
    narrow = precision != "float32" and not any(type(m) is PostNorm for m in stack.modules())
    sensitive = {
        f"{name}.down"
        for name, module in stack.named_modules()
        if isinstance(module, FeedForward) and isinstance(module.expand, GatedUp)
    }

    def leaf(name: str, old: nn.Module) -> nn.Module:
        norm_dtype = torch.bfloat16 if narrow and name != "embedding_norm" else torch.float32
        match old:
            case QueryKeyValue():
                return JoinedProjections(old, make)
            case KeyValue():
                return JoinedProjections(old, make_memory)
            case Up() if kernels is not None and old.activation in ACTIVE:
                up = make(old.up.weight, old.up.bias, None)
                return NativeUp(up, ACTIVE[old.activation], kernels)
            case Up():
                return ProjectedUp(old, make)
            case GatedUp() if kernels is not None and old.activation in ACTIVE:
                joined = JoinedGatedUp(old, make).joined
                return NativeGatedUp(joined, ACTIVE[old.activation], kernels)
            case GatedUp():
                return JoinedGatedUp(old, make)
            case nn.Linear():
                # The gated network's hidden values have outliers that 8 bits cannot hold.
                kind = wide if name in sensitive else make
                return kind(old.weight, old.bias, None)
            case nn.RMSNorm() | nn.LayerNorm() if kernels is not None:
                return NativeNorm(old, norm_dtype, kernels)
            case nn.RMSNorm() if device.type != "cpu":
                return FusedRMSNorm(old, norm_dtype)
            case nn.RMSNorm():
                return NarrowRMSNorm(old, norm_dtype)
            case nn.LayerNorm():
                return NarrowLayerNorm(old, norm_dtype)
        raise AssertionError(name)

    kinds = (QueryKeyValue, KeyValue, Up, GatedUp, nn.Linear, nn.RMSNorm, nn.LayerNorm)
    swap(stack, lambda name, module: type(module) in kinds, leaf, keep=False)
    if kernels is not None:
        _use_kernels(stack, kernels, decodes=decodes)
    place(stack, "embedding", WideEmbedding(stack.embedding))


def _use_kernels(stack: Stack, kernels: Kernels, *, decodes: bool) -> None:
    """Attention and residual sums by our own kernels, whatever the layers' projections are."""
    if isinstance(stack.position_bias, RelativePositionBias) and not decodes:
        place(stack, "position_bias", LaidOutBias(stack.position_bias))
    for name, module in list(stack.named_modules()):
        if isinstance(module, SelfAttention | CrossAttention):
            module.attend = NativeAttend(kernels, module.attend)
        elif type(module) is PreNorm:
            place(stack, name, NativePreNorm(module, kernels))


def _replace_stacks(
    model: Transformer, dtype: torch.dtype, device: torch.device, kernels: Kernels | None
) -> None:
    encoder, decoder = model.spec.encoder, model.spec.decoder
    reads_tokens = encoder is not None and isinstance(encoder.embedding, spec.TokenEmbedding)
    if reads_tokens and isinstance(model.encoder, Stack) and device.type == "cpu":
        place(model, "encoder", GroupedEncoder(model.encoder))
    if decoder is not None and fits(decoder) and isinstance(model.decoder, Stack):
        if device.type == "cuda":
            place(model, "decoder", GraphedDecoder(model.decoder, decoder, dtype))
        else:
            place(model, "decoder", StepDecoder(model.decoder, decoder, dtype, kernels))


def _sizes(model: nn.Module) -> Iterator[int]:
    """Bytes of each module's own weights, packed ones included; shared storages counted once."""
    seen: set[int] = set()
    for module in model.modules():
        if isinstance(module, Projection):
            yield module.bytes()
            continue
        for tensor in (*module._parameters.values(), *module._buffers.values()):
            if isinstance(tensor, Tensor) and id(tensor) not in seen:
                seen.add(id(tensor))
                yield tensor.numel() * tensor.element_size()
