"""Chunked cross-entropy against torch's."""

import pytest
import torch
import torch.nn.functional as F

from mainspring.formulations.token_loss import token_nats


@pytest.mark.parametrize("chunk", [1, 4, 1024])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_equals_cross_entropy(chunk, bias, scale):
    torch.manual_seed(0)
    hidden = torch.randn(3, 5, 8, requires_grad=True)
    weight = torch.randn(40_000 if chunk == 4 else 50, 8, requires_grad=True)
    bias_V = torch.randn(len(weight), requires_grad=True) if bias else None
    labels = torch.randint(0, len(weight), (3, 5))
    labels[0, 3:] = -100
    nats = token_nats(hidden, weight, labels, bias_V=bias_V, scale=scale, chunk=chunk)
    logits = scale * hidden @ weight.t() + (0 if bias_V is None else bias_V)
    expected = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    torch.testing.assert_close(nats, expected.view(3, 5), atol=1e-5, rtol=1e-5)
    wanted = [hidden, weight] if bias_V is None else [hidden, weight, bias_V]
    share = torch.rand(3, 5)
    ours = torch.autograd.grad((nats * share).sum(), wanted)
    theirs = torch.autograd.grad((expected * share.flatten()).sum(), wanted)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_bfloat16_products_give_float32_nats_near_the_exact_ones():
    torch.manual_seed(0)
    hidden, weight = torch.randn(6, 32), torch.randn(90, 32) * 0.2
    labels = torch.randint(0, 90, (1, 6))
    exact = token_nats(hidden[None], weight, labels)
    narrow = token_nats(hidden[None].bfloat16(), weight, labels)
    assert narrow.dtype == torch.float32
    torch.testing.assert_close(narrow, exact, atol=0.05, rtol=0)


def test_no_label_at_all_gives_zeros_and_zero_gradients():
    hidden, weight = torch.randn(2, 3, 4, requires_grad=True), torch.randn(7, 4, requires_grad=True)
    nats = token_nats(hidden, weight, torch.full((2, 3), -100))
    nats.sum().backward()
    assert not nats.any() and not hidden.grad.any() and not weight.grad.any()


def test_the_backward_pass_can_run_twice():
    hidden, weight = torch.randn(2, 3, 4, requires_grad=True), torch.randn(7, 4, requires_grad=True)
    nats = token_nats(hidden, weight, torch.randint(0, 7, (2, 3)))
    first = torch.autograd.grad(nats.sum(), hidden, retain_graph=True)[0]
    assert torch.equal(torch.autograd.grad(nats.sum(), hidden)[0], first)


def test_a_frozen_table_gets_no_gradient_and_changes_no_other():
    torch.manual_seed(0)
    hidden = torch.randn(2, 3, 4, requires_grad=True)
    weight, bias = torch.randn(7, 4, requires_grad=True), torch.randn(7)
    labels = torch.randint(0, 7, (2, 3))
    learning = token_nats(hidden, weight, labels, bias_V=bias).sum()
    (expected, _) = torch.autograd.grad(learning, [hidden, weight])
    frozen = token_nats(hidden, weight.detach(), labels, bias_V=bias).sum()
    assert torch.equal(torch.autograd.grad(frozen, hidden)[0], expected)
