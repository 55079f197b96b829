"""Gradients of a token table: the head's and the lookups' in one tensor, nothing of them lost."""

import pytest
import torch
from tests.compute.test_training import batch, core_loss, gradients, hidden_states, tiny
from torch import Tensor, nn

from mainspring.compute.native import library
from mainspring.compute.tables import TableGradient
from mainspring.compute.training import prepare_for_training
from mainspring.core.model import Transformer
from mainspring.formulations.sequence_to_sequence import vocabulary_nats

pytestmark = pytest.mark.skipif(
    library.kernels() is None, reason=f"no kernels: {library.why_not()}"
)
TABLE = "tables.tokens.weight"


def loss(model: Transformer) -> Tensor:
    labels_BT = batch()[2]
    return vocabulary_nats(model, hidden_states(model), labels_BT).sum() / (labels_BT != -100).sum()


def prepared(**changes: object) -> Transformer:
    model = tiny(vocab_size=96, **changes)  # a multiple of 16, as the kernels want it
    prepare_for_training(model, "bfloat16")
    return model


def test_lookups_add_to_the_gradient_of_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    added: list[bool] = []
    model = prepared()
    add_rows = TableGradient.add_rows
    monkeypatch.setattr(
        TableGradient,
        "add_rows",
        lambda self, rows: added.append(add_rows(self, rows)) or added[-1],
    )
    joined = gradients(model, loss(model))[TABLE]
    assert added == [True, True]  # the decoder's and the encoder's
    monkeypatch.setattr(TableGradient, "add_rows", lambda *_: False)
    model = prepared()
    apart = gradients(model, loss(model))[TABLE]
    torch.testing.assert_close(joined, apart)
    model = tiny(vocab_size=96)
    expected = gradients(model, core_loss(model))[TABLE]
    assert float((joined - expected).norm() / expected.norm()) < 0.05


def test_micro_batches_add_up() -> None:
    model = prepared()
    once = gradients(model, loss(model))[TABLE]
    (loss(model) / 2).backward()
    (loss(model) / 2).backward()
    torch.testing.assert_close(model.tables["tokens"].weight.grad, once)


def test_several_losses_may_share_a_backward_pass() -> None:
    model = prepared()
    once = gradients(model, loss(model))[TABLE]
    model.zero_grad()
    (loss(model) / 4 + loss(model) / 4 + loss(model) / 2).backward()
    found = model.tables["tokens"].weight.grad
    assert float((found - once).norm() / once.norm()) < 0.01


def test_a_table_that_no_head_reads_has_its_rows_made_dense() -> None:
    model = prepared(feed_forward_proj="gated-gelu", tie_word_embeddings=False)
    found = gradients(model, loss(model))[TABLE]
    assert not found.is_sparse
    source_BS, keep_BS, labels_BT = batch()
    seen = torch.cat([source_BS[keep_BS], labels_BT[labels_BT >= 0]]).unique()
    rows = found.abs().sum(1).nonzero()[:, 0]
    assert set(rows.tolist()) <= {0, *seen.tolist()} and len(rows) > 10


def test_a_pass_through_the_head_alone_leaves_nothing_for_the_next() -> None:
    """The head's gradient of one pass is not what the lookups of another add to."""
    model = prepared()
    hidden = hidden_states(model).detach().requires_grad_()
    torch.autograd.grad(vocabulary_nats(model, hidden, batch()[2]).sum(), hidden)
    table = model.tables["tokens"]
    assert isinstance(table, nn.Embedding)
    ids = torch.tensor([[5, 7, 7]])
    table(ids).sum().backward()
    assert table.weight.grad is not None and not table.weight.grad.is_sparse
    expected = torch.zeros_like(table.weight)
    expected[5], expected[7] = 1.0, 2.0
    torch.testing.assert_close(table.weight.grad, expected)
