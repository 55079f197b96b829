"""Token tables in training: looking tokens up changes few rows of a table's gradient.

A table that a head reads too has a dense gradient from there. Left to itself autograd adds to it
the rows of each lookup out of place: a copy of a whole table's size for the encoder's and one for
the decoder's. A backward pass comes to the lookups after the head, so they can add their rows to
the head's gradient where it lies.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def _current_pass() -> int:
    """The number of the backward pass that is running, or -1."""
    return int(torch._C._current_graph_task_id())


class TableGradient:
    """Where the dense gradient of a table lies while the backward pass that made it is running."""

    def __init__(self, weight_VD: Tensor):
        self.weight_VD = weight_VD
        self._dense_VD: Tensor | None = None
        self._made_in = -1  # the backward pass

    def begin(self, dense_VD: Tensor) -> None:
        """To be told by the head: this is what it gives to autograd. Told twice in one pass, as
        where two losses are added, autograd adds the two up in a place of its own."""
        now = _current_pass()
        again = now >= 0 and self._made_in == now
        self._dense_VD, self._made_in = None if again else dense_VD.detach(), now

    def add_rows(self, rows_VD: Tensor) -> bool:
        """Adds a sparse gradient where there is a dense one of this pass; whether there was."""
        if self._dense_VD is None or self._made_in < 0 or self._made_in != _current_pass():
            return False
        self._dense_VD.add_(rows_VD)
        return True

    def end(self) -> None:
        self._dense_VD = None


class _LookUp(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, weight_VD: Tensor, ids: Tensor, found: Tensor, gradient: TableGradient
    ) -> Tensor:
        """What was `found` for the ids already; only its gradient goes another way."""
        ctx.save_for_backward(ids)
        ctx.gradient = gradient
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx, dy: Tensor):  # type: ignore[no-untyped-def]
        (ids,) = ctx.saved_tensors
        gradient: TableGradient = ctx.gradient
        shape = gradient.weight_VD.shape
        rows_VD = torch.sparse_coo_tensor(
            ids.reshape(1, -1), dy.reshape(-1, shape[1]), shape, check_invariants=False
        )
        return None if gradient.add_rows(rows_VD) else rows_VD, None, None, None


def join_gradients(table: nn.Embedding) -> tuple[TableGradient, Callable[[], None]]:
    """Lets the lookups of a table add their rows to the head's gradient, once the head's backward
    pass says where it is; and what ends it. The table stays the module that it is.

    A table that no head reads in a backward pass is left with rows alone; they are made dense.
    """
    gradient = TableGradient(table.weight)

    def look_up(module: nn.Module, ids: tuple[Tensor], found: Tensor) -> Tensor:
        assert isinstance(module, nn.Embedding)
        if not found.requires_grad:
            return found
        return _LookUp.apply(module.weight, *ids, found.detach(), gradient)

    def finish(parameter: Tensor) -> None:
        gradient.end()
        if parameter.grad is not None and parameter.grad.is_sparse:
            parameter.grad = parameter.grad.to_dense()

    hooks = (
        table.register_forward_hook(look_up),
        table.weight.register_post_accumulate_grad_hook(finish),
    )

    def end() -> None:
        for hook in hooks:
            hook.remove()

    return gradient, end
