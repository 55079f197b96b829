"""The cross-entropy over a vocabulary by our own kernels: one pass over the logits each way."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mainspring.compute.copies import weight_gradient
from mainspring.compute.native import library
from mainspring.compute.native.library import Kernels
from mainspring.compute.native.panels import Panels
from mainspring.compute.tables import TableGradient
from mainspring.formulations import IGNORED
from mainspring.formulations.token_loss import CHUNK, token_nats


class HeadPanels:
    """A head's weights as panels, packed anew when torch's version counter says that they have
    changed, or after `refresh`."""

    def __init__(self) -> None:
        self._panels: Panels | None = None
        self._packed: tuple[int, int] | None = None

    def refresh(self) -> None:
        """To be called after a change that torch does not count (through `.data`)."""
        self._packed = None

    def of(self, kernels: Kernels, weight_VD: Tensor) -> Panels:
        current = id(weight_VD), weight_VD._version
        if self._panels is None or self._packed != current:
            with torch.inference_mode(False), torch.no_grad():
                self._panels = self._panels or Panels(kernels)
                self._panels.pack([weight_VD])
            self._packed = current
        return self._panels


class _TokenNats(torch.autograd.Function):
    """One number per row of `x_ND`, as in `formulations.token_loss`; the bias does not learn."""

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx,
        kernels: Kernels,
        x_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        labels_N: Tensor,
        scale: float,
        table: TableGradient | None,
        panels: Panels,
    ) -> Tensor:
        nats, logs, logits_CV = [], [], None
        for x_CD, labels_C in zip(x_ND.split(CHUNK), labels_N.split(CHUNK), strict=True):
            logits_CV = panels.forth(x_CD)
            nats_C, logs_C = kernels.token_nats(logits_CV, bias_V, scale, labels_C)
            nats.append(nats_C)
            logs.append(logs_C)
        # Not a saved tensor: the way back makes the gradient in its place.
        ctx.kept_NV = logits_CV if len(x_ND) <= CHUNK else None
        ctx.save_for_backward(x_ND, weight_VD, bias_V, labels_N, torch.cat(logs))
        ctx.kernels, ctx.panels, ctx.scale, ctx.table = kernels, panels, scale, table
        return torch.cat(nats)

    @staticmethod
    @once_differentiable
    def backward(ctx, dnats_N: Tensor):  # type: ignore[no-untyped-def]
        x_ND, weight_VD, bias_V, labels_N, logs_N = ctx.saved_tensors
        kept_NV, ctx.kept_NV = ctx.kept_NV, None
        dx_ND, dnats_N = torch.empty_like(x_ND), dnats_N.contiguous()
        dweight_VD = None
        for at in range(0, len(x_ND), CHUNK):
            rows = slice(at, at + CHUNK)
            logits_CV = ctx.panels.forth(x_ND[rows]) if kept_NV is None else kept_NV
            dlogits_CV = ctx.kernels.token_nats_back_(
                logits_CV, bias_V, ctx.scale, labels_N[rows], logs_N[rows], dnats_N[rows]
            )
            dx_ND[rows] = ctx.panels.back(dlogits_CV)
            if ctx.needs_input_grad[2]:
                part_VD = weight_gradient(dlogits_CV, x_ND[rows])
                dweight_VD = (
                    part_VD.to(weight_VD.dtype) if dweight_VD is None else dweight_VD.add_(part_VD)
                )
        if ctx.table is not None and dweight_VD is not None:
            ctx.table.begin(dweight_VD)
        return None, dx_ND, dweight_VD, None, None, None, None, None


def token_nats_by_kernels(
    hidden_BTD: Tensor,
    weight_VD: Tensor,
    labels_BT: Tensor,
    *,
    bias_V: Tensor | None = None,
    scale: float = 1.0,
    tables: Sequence[TableGradient] = (),
    panels: HeadPanels | None = None,
) -> Tensor:
    """As `formulations.token_loss.token_nats`, which serves what the kernels do not. Where the
    weight is that of one of `tables`, its lookups are told of the gradient. `panels` keeps the
    packed weights from one call to the next."""
    kernels, real_BT = library.kernels(), labels_BT != IGNORED
    plain = bias_V is None or (bias_V.dtype is torch.float32 and not bias_V.requires_grad)
    narrow = hidden_BTD.dtype is torch.bfloat16
    if kernels is None or not plain or not narrow or not bool(real_BT.any()):
        return token_nats(hidden_BTD, weight_VD, labels_BT, bias_V=bias_V, scale=scale)
    x_ND, labels_N = hidden_BTD[real_BT], labels_BT[real_BT]
    low, high = (int(end) for end in labels_N.aminmax())
    if low < 0 or high >= len(weight_VD):
        raise IndexError(f"labels from {low} to {high}, and the vocabulary has {len(weight_VD)}")
    table = next((table for table in tables if table.weight_VD is weight_VD), None)
    packed = (panels or HeadPanels()).of(kernels, weight_VD)
    nats_N = _TokenNats.apply(kernels, x_ND, weight_VD, bias_V, labels_N, scale, table, packed)
    return nats_N.new_zeros(labels_BT.shape).masked_scatter(real_BT, nats_N)
