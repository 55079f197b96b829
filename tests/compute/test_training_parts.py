"""Each part of a training step against the core's own, forward and gradient."""

import pytest
import torch
from torch import nn

from mainspring import spec
from mainspring.compute import copies
from mainspring.compute.copies import ComputeCopy
from mainspring.compute.feed_forward import (
    ReluFeedForward,
    SmoothFeedForward,
    expanding_leaves,
    is_smooth,
)
from mainspring.compute.linear import CopiedLinear, FusedProjections
from mainspring.compute.native import library
from mainspring.compute.native.panels import Panels
from mainspring.compute.products import PlainProducts
from mainspring.compute.residual import ResidualStep, rms_norm
from mainspring.core.attention import QueryKeyValue
from mainspring.core.feed_forward import FeedForward
from mainspring.core.layer import PreNorm

pytestmark = pytest.mark.usefixtures("way")  # with our kernels and without


def compare(ours: nn.Module, core: nn.Module, x, call, tolerance: float) -> None:
    """Outputs and all gradients of both, by the relative size of their difference."""
    results = []
    for module in (ours, core):
        mine = x.detach().clone().requires_grad_()
        y = call(module, mine).float()
        torch.manual_seed(4)
        wanted = [mine, *module.parameters()]
        results.append([y, *torch.autograd.grad(y, wanted, torch.randn_like(y))])
    for a, b in zip(*results, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        assert (a - b).norm() <= tolerance * b.norm()


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(7, 5), (2, 3, 5)])
def test_linear(bias, shape):
    torch.manual_seed(0)
    leaf = nn.Linear(5, 6, bias=bias)
    x = torch.randn(shape)
    exact = CopiedLinear(leaf, ComputeCopy([leaf], torch.float32))
    compare(exact, leaf, x, lambda m, x: m(x), 1e-6)
    narrow = CopiedLinear(leaf, ComputeCopy([leaf], torch.bfloat16))
    compare(narrow, leaf, x, lambda m, x: m(x), 0.01)


@pytest.mark.parametrize("long", [1, 1024])
@pytest.mark.parametrize("wide", [(7, 300), (300, 7)])
def test_weight_gradient(long, wide, monkeypatch):
    monkeypatch.setattr(copies, "LONG", long)
    torch.manual_seed(0)
    dy, x = torch.randn(520, wide[0]), torch.randn(520, wide[1])
    torch.testing.assert_close(copies.weight_gradient(dy, x), dy.t() @ x)


@pytest.mark.parametrize("biases", ["", "qkv", "qv"])
def test_fused_projections(biases):
    torch.manual_seed(0)
    core = QueryKeyValue(spec.Attention(4, 2, 3, biases), 10)
    copy = ComputeCopy([core.q, core.k, core.v], torch.float32)
    fused = FusedProjections(core, copy)
    assert list(fused.state_dict()) == list(core.state_dict())
    compare(fused, core, torch.randn(2, 5, 10), lambda m, x: torch.cat(m(x), -1), 1e-6)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype,tolerance", [(torch.float32, 1e-6), (torch.bfloat16, 0.02)])
def test_relu_feed_forward(bias, dtype, tolerance):
    torch.manual_seed(0)
    core = FeedForward(spec.FeedForward(24, "relu", bias=bias), 10)
    parts = ComputeCopy([core.expand.up], dtype), ComputeCopy([core.down], dtype)
    fast = ReluFeedForward(core, *parts)
    assert list(fast.state_dict()) == list(core.state_dict())
    compare(fast, core, torch.randn(2, 5, 10), lambda m, x: m(x), tolerance)


def test_relu_feed_forward_drops_where_the_formula_with_its_mask_does():
    torch.manual_seed(0)
    core = FeedForward(spec.FeedForward(400, "relu", bias=True, dropout=0.25), 10)
    copies = ComputeCopy([core.expand.up], torch.float32), ComputeCopy([core.down], torch.float32)
    fast = ReluFeedForward(core, *copies)
    x = torch.randn(8, 10)
    kept = []

    def fast_call(module, x):
        y = module(x)
        kept.append(y.grad_fn.saved_tensors[1] != 0)
        return y

    def core_call(module, x):
        hidden = module.expand(x)
        zero = ((hidden > 0) & ~kept[0]).float().mean() / (hidden > 0).float().mean()
        assert 0.2 < zero < 0.3
        return module.down(hidden * kept[0] / 0.75)

    results = []
    for call in (fast_call, core_call):
        y = call(fast if call is fast_call else core, x)
        results.append([y, *torch.autograd.grad(y.square().sum(), list(core.parameters()))])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("rows", [1, 700])
def test_rms_norm(rows):
    torch.manual_seed(0)
    norm = nn.RMSNorm(12, eps=1e-6)
    nn.init.normal_(norm.weight)
    x = torch.randn(rows, 12, requires_grad=True)
    y, same = rms_norm(x, norm, torch.float32)
    torch.testing.assert_close(y, norm(x))
    assert torch.equal(same, x)
    dy, dskip = torch.randn_like(y), torch.randn_like(y)
    ours = torch.autograd.grad([y, same], [x, norm.weight], [dy, dskip])
    core = torch.autograd.grad([norm(x), x * 1], [x, norm.weight], [dy, dskip])
    for a, b in zip(ours, core, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", [spec.RMSNorm(), spec.LayerNorm()])
@pytest.mark.parametrize("dtype,tolerance", [(torch.float32, 1e-6), (torch.bfloat16, 0.01)])
def test_residual_step(kind, dtype, tolerance):
    torch.manual_seed(0)
    core = PreNorm(kind, 12, 0.0)
    step = ResidualStep(core, dtype)
    assert list(step.state_dict()) == list(core.state_dict())
    x = torch.randn(2, 300, 12)
    compare(step, core, x, lambda m, x: m(x, lambda y: y * y), tolerance)


def test_residual_step_drops_and_scales_the_part_only():
    torch.manual_seed(0)
    step = ResidualStep(PreNorm(spec.RMSNorm(), 64, 0.25), torch.bfloat16)
    x = torch.zeros(300, 64, requires_grad=True)
    part = torch.ones(300, 64, dtype=torch.bfloat16, requires_grad=True)
    y = step(x, lambda _: part)
    assert y.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert abs((y == 0).float().mean().item() - 0.25) < 0.02
    y.sum().backward()
    assert torch.equal(part.grad != 0, y != 0)
    assert torch.equal(x.grad, torch.ones_like(x))


def test_a_copy_follows_its_weights():
    leaf = nn.Linear(3, 2)
    copy = ComputeCopy([leaf], torch.bfloat16)
    every = torch.eye(3, dtype=torch.bfloat16)

    def seen() -> torch.Tensor:
        return copy.multiply(every)[0] - copy.multiply(torch.zeros_like(every))[0]

    before = seen()
    with torch.no_grad():
        leaf.weight.add_(1.0)
        leaf.bias.zero_()
    assert not torch.equal(seen(), before)
    assert torch.equal(seen(), leaf.weight.bfloat16().t())
    leaf.weight.data.mul_(2.0)  # unseen by torch's version counter
    copy.refresh()
    assert torch.equal(seen(), leaf.weight.bfloat16().t())


@pytest.mark.parametrize("rows", [1, 3, 40, 300])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("heights", [(32, 64, 7), (20,), (96,), (160, 1)])
def test_panels_multiply_as_torch_does(heights, biased, rows):
    """Both ways, onto what is there, and after a change; any sizes, whatever fills panels up."""
    kernels = library.kernels()
    if kernels is None:
        pytest.skip("this machine has no kernels")
    torch.manual_seed(0)
    weights = [torch.randn(height, 45) for height in heights]
    bias = torch.randn(sum(heights)) if biased else None
    assert Panels.fit(weights)
    fast, plain = Panels(kernels), PlainProducts(torch.bfloat16)
    for _ in range(2):
        for one in (fast, plain):
            one.pack(weights, bias)
        x, dy = (torch.randn(2, rows, n).bfloat16() for n in (45, sum(heights)))
        for way, given in (("forth", x), ("back", dy)):
            expected = getattr(plain, way)(given)
            close = {"rtol": 2e-2, "atol": 6e-2}
            torch.testing.assert_close(getattr(fast, way)(given), expected, **close)
            there = torch.randn_like(expected)
            onto = there.clone()
            assert getattr(fast, way)(given, onto=onto) is onto
            torch.testing.assert_close(onto, there + expected, rtol=2e-2, atol=0.12)
        weights[0].mul_(3.0)
    assert not Panels.fit([torch.randn(20, 4), torch.randn(32, 4)])


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("activation", ["silu", "gelu", "gelu_tanh"])
@pytest.mark.parametrize("dtype,tolerance", [(torch.float32, 1e-6), (torch.bfloat16, 0.02)])
def test_smooth_feed_forward(gated, activation, dtype, tolerance):
    torch.manual_seed(0)
    core = FeedForward(spec.FeedForward(24, activation, gated, bias=not gated), 10)
    assert is_smooth(core)
    wide = ComputeCopy(expanding_leaves(core), dtype)
    fast = SmoothFeedForward(core, wide, ComputeCopy([core.down], dtype))
    assert list(fast.state_dict()) == list(core.state_dict())
    compare(fast, core, torch.randn(3, 200, 10), lambda m, x: m(x), tolerance)


def test_feed_forwards_that_stay_with_the_core():
    assert not is_smooth(FeedForward(spec.FeedForward(24, "relu"), 10))
    assert not is_smooth(FeedForward(spec.FeedForward(24, "silu", dropout=0.1), 10))
