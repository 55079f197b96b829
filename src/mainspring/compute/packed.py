"""The operators of PyTorch that are not public and that inference on a CPU is fast by.

Each is tried once, on a small product whose result is known; where it is missing or wrong, the
callers take the plain path. Nothing else in the package names these operators.

    bfloat16   mkldnn::_reorder_linear_weight, _linear_pointwise   weights laid out for the CPU
    int8       onednn::qlinear_prepack, qlinear_pointwise          8-bit weights and activations
    one row    aten::_weight_int8pack_mm                           8-bit weights, bfloat16 row
"""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

Check = Callable[[], bool]


def _works(check: Check) -> bool:
    """Whether `check` runs to the end and finds the right numbers."""
    try:
        with torch.no_grad():
            return check()
    except (AttributeError, RuntimeError, NotImplementedError, TypeError):
        return False


@cache
def has_bfloat16() -> bool:
    def check() -> bool:
        weight = torch.arange(64, dtype=torch.bfloat16).reshape(4, 16) - 32
        row = torch.ones(1, 16, dtype=torch.bfloat16)
        product = linear_bfloat16(row, pack_bfloat16(weight), None)
        return bool((product - row @ weight.T).abs().max() <= 2)

    return _works(check)


@cache
def has_int8() -> bool:
    def check() -> bool:
        weight = (torch.arange(64).reshape(4, 16) - 32).to(torch.int8)
        row = torch.ones(2, 16, dtype=torch.int8)
        scale = torch.tensor([1.0, 2.0, 0.5, 1.0])
        none = torch.zeros(4, dtype=torch.int32)
        product = linear_int8(row, pack_int8(weight), scale, none, None)
        return bool((product - row.float() @ weight.float().T * scale).abs().max() <= 4)

    return _works(check)


@cache
def has_int8_row() -> bool:
    def check() -> bool:
        weight = (torch.arange(2048).reshape(32, 64) % 17 - 8).to(torch.int8)
        row = torch.ones(1, 64, dtype=torch.bfloat16)
        product = row_int8(row, weight, torch.ones(32, dtype=torch.bfloat16))
        return bool((product - row @ weight.T.to(torch.bfloat16)).abs().max() <= 1)

    return _works(check)


def pack_bfloat16(weight_OI: Tensor) -> Tensor:
    """The weight in the layout of this CPU's matrix unit; only `linear_bfloat16` can read it."""
    return torch.ops.mkldnn._reorder_linear_weight(weight_OI, None)


def linear_bfloat16(x: Tensor, packed: Tensor, bias: Tensor | None, after: str = "none") -> Tensor:
    """x weightᵀ + bias, then `after`: "none" or "relu"."""
    return torch.ops.mkldnn._linear_pointwise.default(x, packed, bias, after, [], "")


def pack_int8(weight_OI: Tensor) -> Tensor:
    """As `pack_bfloat16`, for `linear_int8`."""
    return torch.ops.onednn.qlinear_prepack(weight_OI, None)


def linear_int8(
    x_NI: Tensor,
    packed: Tensor,
    scale_O: Tensor,
    zeros_O: Tensor,
    bias: Tensor | None,
    after: str = "none",
) -> Tensor:
    """x weightᵀ scale + bias in bfloat16, for int8 x and weight: the products are summed exactly.

    `scale_O` is float32; `zeros_O` are the weight's zero points, int32 and all 0.
    """
    return torch.ops.onednn.qlinear_pointwise.default(
        x_NI, 1.0, 0, packed, scale_O, zeros_O, bias, 1.0, 0, torch.bfloat16, after, [], ""
    )


def row_int8(x_NI: Tensor, weight_OI: Tensor, scale_O: Tensor) -> Tensor:
    """x weightᵀ scale for bfloat16 x and scale and int8 weight: the fastest for a single row."""
    return torch.ops.aten._weight_int8pack_mm.default(x_NI, weight_OI, scale_O)
