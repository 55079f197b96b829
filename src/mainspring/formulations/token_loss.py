"""Cross-entropy over a vocabulary that never holds the logits of all tokens at once."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mainspring.formulations import IGNORED

CHUNK, GPU_CHUNK = 1024, 4096  # tokens whose logits are held at a time
BLOCK = 2**19  # logits that a CPU works on in float32 at a time: they stay in a core's cache


class _TokenNats(torch.autograd.Function):
    """One number per row of `x_ND`. The logits of a single chunk are kept for the backward pass,
    those of several are computed again."""

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx,
        x_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        labels_N: Tensor,
        scale: float,
        chunk: int,
    ) -> Tensor:
        narrow_VD = weight_VD.to(x_ND.dtype)
        nats_N = x_ND.new_empty(len(x_ND), dtype=torch.float32)
        logits_CV = None
        for at in range(0, len(x_ND), chunk):
            logits_CV = x_ND[at : at + chunk] @ narrow_VD.t()
            for rows, logits_RV, scratch in _blocks(logits_CV, at):
                wide_RV = _wide(logits_RV, bias_V, scale, scratch[0])
                torch.log_softmax(wide_RV, -1, out=scratch[1])
                nats_N[rows] = -scratch[1].gather(1, labels_N[rows, None])[:, 0]
        kept_NV = logits_CV if len(x_ND) <= chunk else None
        ctx.save_for_backward(x_ND, weight_VD, narrow_VD, bias_V, labels_N, kept_NV)
        ctx.scale, ctx.chunk = scale, chunk
        return nats_N

    @staticmethod
    @once_differentiable
    def backward(ctx, dnats_N: Tensor):  # type: ignore[no-untyped-def]
        x_ND, weight_VD, narrow_VD, bias_V, labels_N, kept_NV = ctx.saved_tensors
        dx_ND = torch.empty_like(x_ND)
        _, wants_weight, wants_bias, *_ = ctx.needs_input_grad
        dweight_VD = None
        dbias_V = torch.zeros_like(bias_V, dtype=torch.float32) if wants_bias else None
        for at in range(0, len(x_ND), ctx.chunk):
            x_CD = x_ND[at : at + ctx.chunk]
            logits_CV = x_CD @ narrow_VD.t() if kept_NV is None else kept_NV
            dlogits_CV = torch.empty_like(logits_CV)
            for rows, logits_RV, scratch in _blocks(logits_CV, at):
                wide_RV = _wide(logits_RV, bias_V, ctx.scale, scratch[0])
                d_RV = torch.softmax(wide_RV, -1, out=scratch[1])
                d_RV.scatter_add_(1, labels_N[rows, None], d_RV.new_full((len(d_RV), 1), -1.0))
                d_RV.mul_(dnats_N[rows, None])
                if dbias_V is not None:
                    dbias_V += d_RV.sum(0)
                if ctx.scale != 1.0:
                    d_RV.mul_(ctx.scale)
                dlogits_CV[rows.start - at : rows.stop - at] = d_RV
            dx_ND[at : at + ctx.chunk] = dlogits_CV @ narrow_VD
            if wants_weight:
                part_VD = dlogits_CV.t() @ x_CD
                dweight_VD = (
                    part_VD.to(weight_VD.dtype) if dweight_VD is None else dweight_VD.add_(part_VD)
                )
        if wants_weight and dweight_VD is None:
            dweight_VD = torch.zeros_like(weight_VD)
        if dbias_V is not None and bias_V is not None:
            dbias_V = dbias_V.to(bias_V.dtype)
        return dx_ND, dweight_VD, dbias_V, None, None, None


def _blocks(logits_CV: Tensor, start: int) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """A few rows of logits at a time, their places among all rows, and room to work on them."""
    rows = len(logits_CV)
    if logits_CV.device.type == "cpu":
        rows = max(1, BLOCK // logits_CV.shape[1])
    scratch = logits_CV.new_empty(2, rows, logits_CV.shape[1], dtype=torch.float32)
    for at in range(0, len(logits_CV), rows):
        part = logits_CV[at : at + rows]
        yield slice(start + at, start + at + len(part)), part, scratch[:, : len(part)]


def _wide(logits_RV: Tensor, bias_V: Tensor | None, scale: float, into: Tensor) -> Tensor:
    into.copy_(logits_RV)
    if scale != 1.0:
        into.mul_(scale)
    return into if bias_V is None else into.add_(bias_V)


def token_nats(
    hidden_BTD: Tensor,
    weight_VD: Tensor,
    labels_BT: Tensor,
    *,
    bias_V: Tensor | None = None,
    scale: float = 1.0,
    chunk: int | None = None,
) -> Tensor:
    """The cross-entropy BT of each label, in nats, float32; 0 where the label is -100.

    Logits are `scale * hidden weightᵀ + bias`: the product in the type of `hidden_BTD`, the rest in
    float32. At most `chunk` tokens' logits are held at a time (None: as many as suit the device),
    and ignored labels cost nothing.
    """
    if chunk is None:
        chunk = CHUNK if hidden_BTD.device.type == "cpu" else GPU_CHUNK
    real_BT = labels_BT != IGNORED
    x_ND, labels_N = hidden_BTD[real_BT], labels_BT[real_BT]
    nats_N = _TokenNats.apply(x_ND, weight_VD, bias_V, labels_N, scale, chunk)
    nats_BT = nats_N.new_zeros(labels_BT.shape)
    return nats_BT.masked_scatter(real_BT, nats_N)
