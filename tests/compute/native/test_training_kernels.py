"""What the kernels compute backwards, against torch's automatic differentiation in float32."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mainspring import spec
from mainspring.compute import loss
from mainspring.compute.copies import weight_gradient
from mainspring.compute.dropout import drop
from mainspring.compute.loss import token_nats_by_kernels
from mainspring.compute.native import library
from mainspring.compute.native.library import Dropped
from mainspring.compute.native.panels import Panels
from mainspring.compute.native.parts import ACTIVE
from mainspring.compute.native.training import attend_by_tiles, attend_joined, knows
from mainspring.compute.residual import add_dropped, rms_norm
from mainspring.core.attention import attend_reference
from mainspring.core.feed_forward import ACTIVATIONS
from mainspring.core.masks import AttentionMask
from mainspring.core.positions import rotate

KERNELS = library.kernels()
pytestmark = pytest.mark.skipif(KERNELS is None, reason=f"no kernels: {library.why_not()}")
EXAMPLES = settings(max_examples=60, deadline=None, derandomize=True)


def numbers(*shape: int, seed: int) -> Tensor:
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return x.bfloat16().float()


def near(found: Tensor, expected: Tensor, share: float = 0.02) -> bool:
    largest = float(expected.abs().max()) + 1e-3
    return float((found.float() - expected).abs().max()) <= share * largest


@EXAMPLES
@given(
    batch=st.integers(1, 3),
    kinds=st.integers(1, 3),
    group=st.sampled_from([1, 1, 2, 3]),
    queries=st.sampled_from([1, 5, 16, 17, 32, 40, 70]),
    keys=st.sampled_from([1, 3, 16, 31, 33, 64, 90]),
    width=st.sampled_from([8, 16, 24, 64, 80]),
    causal=st.booleans(),
    padded=st.booleans(),
    bias=st.booleans(),
    narrow_bias=st.booleans(),
)
def test_attention_and_its_gradients(
    batch: int,
    kinds: int,
    group: int,
    queries: int,
    keys: int,
    width: int,
    causal: bool,
    padded: bool,
    bias: bool,
    narrow_bias: bool,
) -> None:
    assert KERNELS is not None
    keys = queries if causal else keys
    heads = kinds * group
    leaves = [
        numbers(batch, n, heads if i == 0 else kinds, width, seed=i)
        for i, n in enumerate((queries, keys, keys))
    ]
    added = numbers(1, heads, queries, keys, seed=5) if bias else None
    keep = None
    if padded:
        keep = torch.rand(batch, keys, generator=torch.Generator().manual_seed(9)) > 0.3
        keep[0] = False  # sees nothing at all
    kind = spec.CausalMask() if causal else spec.FullMask()
    mask = AttentionMask(kind, queries, keys, torch.device("cpu"), keep_BS=keep)
    assert knows(mask, torch.bfloat16)
    dy = numbers(batch, heads, queries, width, seed=7)
    scale = width**-0.5
    made = []
    for ours in (True, False):
        dtype = torch.bfloat16 if ours else torch.float32
        inputs = [leaf.clone().to(dtype).requires_grad_() for leaf in leaves]
        bias_dtype = dtype if narrow_bias else torch.float32
        learnt = None if added is None else added.to(bias_dtype).requires_grad_()
        q, k, v = (x.transpose(1, 2) for x in inputs)
        if ours:
            y = attend_by_tiles(KERNELS, q, k, v, mask, learnt, scale, 0.0)
        else:
            y = attend_reference(q, k, v, mask, learnt, scale)
        y.backward(dy.to(dtype))
        grads = [x.grad for x in inputs] + ([] if learnt is None else [learnt.grad])
        made.append([y.detach(), *grads])
    for found, expected in zip(*made, strict=True):
        assert found is not None and expected is not None and found.shape == expected.shape
        assert near(found, expected)


@EXAMPLES
@given(
    kinds=st.integers(1, 3),
    group=st.sampled_from([1, 2, 3]),
    length=st.sampled_from([1, 5, 17, 32, 40]),
    width=st.sampled_from([8, 16, 64]),
    causal=st.booleans(),
    padded=st.booleans(),
    turned=st.booleans(),
    bias=st.booleans(),
    dropout=st.sampled_from([0.0, 0.3]),
)
def test_attention_of_joined_projections(
    kinds: int,
    group: int,
    length: int,
    width: int,
    causal: bool,
    padded: bool,
    turned: bool,
    bias: bool,
    dropout: float,
) -> None:
    """The same numbers as with queries, keys and values apart, and the same gradients."""
    assert KERNELS is not None
    batch, heads = 2, kinds * group
    counts = heads, kinds
    joined = numbers(batch, length, (heads + 2 * kinds) * width, seed=1).bfloat16()
    added = numbers(1, heads, length, length, seed=5) if bias else None
    keep = torch.rand(batch, length, generator=torch.Generator().manual_seed(9)) > 0.3
    kind = spec.CausalMask() if causal else spec.FullMask()
    mask = AttentionMask(
        kind, length, length, torch.device("cpu"), keep_BS=keep if padded else None
    )
    angle = numbers(length, width // 2, seed=6)
    turn = (angle.cos().bfloat16(), angle.sin().bfloat16()) if turned else None
    dy = numbers(batch, length, heads * width, seed=7).bfloat16()
    made = []
    for side_by_side in (True, False):
        x = joined.clone().requires_grad_()
        learnt = None if added is None else added.clone().requires_grad_()
        torch.manual_seed(4)
        if side_by_side:
            y = attend_joined(KERNELS, x, counts, turn, mask, learnt, width**-0.5, dropout)
        else:
            q, k, v = (
                part.unflatten(-1, (-1, width)).transpose(1, 2)
                for part in x.split([heads * width, kinds * width, kinds * width], -1)
            )
            if turn is not None:
                full = torch.cat([turn[0]] * 2, -1).float(), torch.cat([turn[1]] * 2, -1).float()
                q, k = (rotate(part.float(), full).bfloat16() for part in (q, k))
            y = attend_by_tiles(KERNELS, q, k, v, mask, learnt, width**-0.5, dropout)
            y = y.transpose(1, 2).flatten(2)
        y.backward(dy)
        made.append([y.detach(), x.grad] + ([] if learnt is None else [learnt.grad]))
    for found, expected in zip(*made, strict=True):
        assert found is not None and expected is not None
        assert near(found, expected.float()) if turned else torch.equal(found, expected)


def test_norms_of_many_tensors_and_their_scaling() -> None:
    assert KERNELS is not None
    tensors = [
        numbers(*shape, seed=i) for i, shape in enumerate([(3,), (70_000,), (130, 700), (1,)])
    ]
    before = [x.clone() for x in tensors]
    expected = float(torch.cat([x.double().flatten() for x in tensors]).norm())
    assert abs(KERNELS.norm(tensors) - expected) < 1e-5 * expected
    KERNELS.multiply(tensors, 0.25)
    assert all(torch.equal(x, 0.25 * y) for x, y in zip(tensors, before, strict=True))
    assert KERNELS.norm([]) == 0.0


@pytest.mark.parametrize("causal", [False, True])
def test_dropout_takes_the_same_weights_both_ways(causal: bool) -> None:
    """With the identity for values the output is the weights themselves: the mask is seen."""
    assert KERNELS is not None
    batch, heads, length, share = 2, 3, 48, 0.25
    q, k = (numbers(batch, heads, length, length, seed=i).bfloat16() for i in range(2))
    v = torch.eye(length).expand(batch, heads, length, length).contiguous().bfloat16()
    kind = spec.CausalMask() if causal else spec.FullMask()
    mask = AttentionMask(kind, length, length, torch.device("cpu"))
    plain = attend_by_tiles(KERNELS, q, k, v, mask, None, 0.05, 0.0).float()
    torch.manual_seed(3)
    v.requires_grad_()
    q.requires_grad_()
    found = attend_by_tiles(KERNELS, q, k, v, mask, None, 0.05, share)
    torch.manual_seed(3)
    again = attend_by_tiles(KERNELS, q, k, v, mask, None, 0.05, share)
    assert torch.equal(found, again)
    seen = plain > 0
    stays = (found.float() > 0) & seen
    assert abs(float(stays.sum() / seen.sum()) - (1 - share)) < 0.03
    assert near(found.detach().float(), plain * stays / (1 - share))
    # dv = weightsᵀ dy with the same weights; dq by the formula with the same mask.
    dy = numbers(batch, heads, length, length, seed=8)
    found.backward(dy.bfloat16())
    weights = plain * stays / (1 - share)
    assert v.grad is not None and q.grad is not None
    assert near(v.grad, weights.transpose(2, 3) @ dy)
    dscores = weights * dy
    dscores = dscores - plain * dscores.sum(-1, keepdim=True)
    assert near(q.grad, 0.05 * dscores @ k.float(), 0.03)


@EXAMPLES
@given(
    rows=st.sampled_from([1, 2, 7, 130]),
    width=st.sampled_from([1, 15, 16, 40, 576]),
    skips=st.booleans(),
    learns=st.booleans(),
    narrow=st.booleans(),
)
def test_norms(rows: int, width: int, skips: bool, learns: bool, narrow: bool) -> None:
    norm = torch.nn.RMSNorm(width, eps=1e-6)
    norm.weight.data = 1 + 0.3 * numbers(width, seed=1)
    norm.weight.requires_grad_(learns)
    made = []
    for ours in (True, False):
        x = (3 * numbers(2, rows, width, seed=2)).requires_grad_()
        norm.weight.grad = None
        if ours:
            y, on = rms_norm(x, norm, torch.bfloat16)
            assert y.dtype is torch.bfloat16
        else:
            y, on = norm(x), x
        back = (y.float() * numbers(2, rows, width, seed=3)).sum()
        if skips:
            back = back + (on * numbers(2, rows, width, seed=4)).sum()
        (back if narrow else back.double()).backward()
        made.append([y.detach(), x.grad, *([norm.weight.grad] if learns else [])])
    for found, expected in zip(*made, strict=True):
        assert found is not None and expected is not None
        assert near(found, expected)


@EXAMPLES
@given(
    rows=st.sampled_from([0, 1, 2, 31, 32, 33, 500, 512, 513, 1100]),
    out=st.sampled_from([16, 32, 48, 160]),
    width=st.sampled_from([16, 32, 48, 160]),
)
def test_gradients_of_weights(rows: int, out: int, width: int) -> None:
    assert KERNELS is not None
    dy, x = numbers(rows, out, seed=1), numbers(rows, width, seed=2)
    found = KERNELS.weight_gradient(dy.bfloat16(), x.bfloat16())
    assert found.dtype is torch.float32
    torch.testing.assert_close(found, (dy.double().T @ x.double()).float(), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(weight_gradient(dy.bfloat16(), x.bfloat16()), found)
    assert weight_gradient(dy[:, :7].bfloat16(), x.bfloat16()).shape == (7, width)


@pytest.mark.parametrize("share", [0.0, 0.25])
@pytest.mark.parametrize("count", [(3, 5, 7), (4, 64, 520)])
def test_sums_with_dropout(share: float, count: tuple[int, ...]) -> None:
    x = numbers(*count, seed=1).requires_grad_()
    y = (numbers(*count, seed=2).abs() + 0.1).bfloat16().requires_grad_()
    torch.manual_seed(5)
    total = add_dropped(x, y, share)
    stays = (total - x).detach() > 0.05
    if share == 0.0:
        assert stays.all()
    elif x.numel() > 1000:
        assert abs(float(stays.float().mean()) - (1 - share)) < 0.01
        columns, rows = stays.float().mean((0, 1)), stays.float().mean((1, 2))
        assert columns.std() < 0.04 and rows.std() < 0.01  # no pattern
    assert near(total.detach(), (x + y.float() * stays / (1 - share)).detach(), 1e-4)
    dtotal = numbers(*count, seed=3)
    total.backward(dtotal)
    assert x.grad is not None and y.grad is not None
    assert torch.equal(x.grad, dtotal)
    assert near(y.grad, dtotal * stays / (1 - share), 0.005)
    torch.manual_seed(5)
    assert torch.equal(add_dropped(x, y, share), total)


@pytest.mark.parametrize("activation", ["silu", "gelu_tanh"])
@pytest.mark.parametrize("width", [1, 16, 50, 300])
def test_gates(activation: str, width: int) -> None:
    assert KERNELS is not None
    function = ACTIVATIONS[activation]
    x = (4 * numbers(130, 2 * width, seed=1)).requires_grad_()
    dy = numbers(130, width, seed=2)
    gate, up = x.chunk(2, 1)
    expected = function(gate) * up
    expected.backward(dy)
    again = torch.empty(130, width, dtype=torch.bfloat16)
    narrow = x.detach().bfloat16()
    found = KERNELS.gate_back(narrow, dy.bfloat16(), ACTIVE[function], again)
    assert x.grad is not None
    assert near(found, x.grad, 0.01) and near(again, expected.detach(), 0.01)
    assert torch.equal(KERNELS.gate_back(narrow, dy.bfloat16(), ACTIVE[function], None), found)
    both = torch.empty_like(again)
    KERNELS.gate(narrow, ACTIVE[function], both)
    assert torch.equal(again, both)


@pytest.mark.parametrize("scale", [1.0, 0.125])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("rows", "width", "vocabulary"), [(1, 8, 3), (40, 16, 100), (9, 64, 1003)])
def test_the_loss(scale: float, bias: bool, rows: int, width: int, vocabulary: int) -> None:
    labels = torch.randint(0, vocabulary, (1, rows), generator=torch.Generator().manual_seed(4))
    labels[0, rows // 2] = vocabulary - 1
    if rows > 2:
        labels[0, 1] = -100  # costs nothing
    added = numbers(vocabulary, seed=3) if bias else None
    made = []
    for ours in (True, False):
        dtype = torch.bfloat16 if ours else torch.float32
        x = (3 * numbers(1, rows, width, seed=1)).to(dtype).requires_grad_()
        weight = numbers(vocabulary, width, seed=2).requires_grad_()
        if ours:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(loss, "CHUNK", 16)  # several of them
                nats = token_nats_by_kernels(x, weight, labels, bias_V=added, scale=scale)
        else:
            logits = scale * x @ weight.T + (0 if added is None else added)
            nats = torch.nn.functional.cross_entropy(logits[0], labels[0], reduction="none")[None]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loss, "CHUNK", 16)
            (nats * numbers(1, rows, seed=5)).sum().backward()
        made.append([nats.detach(), x.grad, weight.grad])
    for found, expected in zip(*made, strict=True):
        assert found is not None and expected is not None
        assert near(found, expected, 0.03)


def test_relu_with_dropout() -> None:
    assert KERNELS is not None
    x, dy = (numbers(50, 333, seed=seed).bfloat16() for seed in (1, 2))
    x[0, :3] = torch.tensor([0.0, -0.0, float("inf")])
    assert torch.equal(KERNELS.relu_drop(x.clone(), None), x.relu())
    torch.manual_seed(1)
    dropped = Dropped.drawn(0.4)
    assert dropped is not None
    found = KERNELS.relu_drop(x.clone(), dropped)
    stays, positive = found > 0, x > 0
    nothing = x.new_zeros(())
    assert torch.equal(found, torch.where(stays, (x.float() * dropped.kept).bfloat16(), nothing))
    assert not (stays & ~positive).any()
    assert abs(float(stays.sum() / positive.sum()) - 0.6) < 0.02
    back = dy.clone()
    KERNELS.relu_back(found, back, dropped)
    assert torch.equal(back, torch.where(stays, (dy.float() * dropped.kept).bfloat16(), nothing))


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.3])
@pytest.mark.parametrize(
    ("rows", "inputs", "outputs"), [(1, 32, 48), (3, 40, 50), (37, 64, 96), (600, 96, 130)]
)
def test_relu_in_the_product(
    rows: int, inputs: int, outputs: int, share: float, biased: bool
) -> None:
    assert KERNELS is not None
    weight, bias = numbers(outputs, inputs, seed=1).bfloat16(), numbers(outputs, seed=2)
    x, after = numbers(rows, inputs, seed=3).bfloat16(), numbers(70, outputs, seed=4).bfloat16()
    dropped = Dropped.drawn(share)
    up, down = Panels(KERNELS), Panels(KERNELS)
    up.pack([weight], bias if biased else None)
    down.pack([after])
    wide = torch.nn.functional.linear(x.float(), weight.float(), bias if biased else None)
    hidden, expected = up.relu(x, dropped), wide.relu()
    if dropped is not None:
        # The same numbers go as by the pass after the product.
        ones = KERNELS.relu_drop(torch.ones_like(hidden), dropped)
        expected = expected * ones.bool() * dropped.kept
    assert near(hidden, expected, 0.01)
    assert torch.equal(hidden == 0, expected.bfloat16() == 0)
    dy = numbers(rows, 70, seed=5).bfloat16()
    expected = dy.float() @ after.float() * (hidden != 0) * (dropped.kept if dropped else 1.0)
    found = down.back_through_relu(dy, hidden, dropped)
    assert near(found, expected, 0.02) and not found[hidden == 0].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_anywhere(dtype: torch.dtype) -> None:
    x = (numbers(70, 1_000, seed=1) + 10).to(dtype).requires_grad_()
    torch.manual_seed(3)
    y = drop(x, 0.25)
    y.sum().backward()
    assert x.grad is not None and torch.equal(x.grad == 0, y == 0)
    assert abs(float((y == 0).double().mean()) - 0.25) < 0.01
    assert near(y.detach(), x.detach().float() * (y != 0) / 0.75, 0.01)
    torch.manual_seed(3)
    assert torch.equal(drop(x, 0.25), y) and not torch.equal(drop(x, 0.25), y)


@pytest.mark.parametrize("rows_differ", [False, True])
@pytest.mark.parametrize("width", [2, 32, 64, 80])
def test_turned_heads(width: int, rows_differ: bool) -> None:
    assert KERNELS is not None
    batch, places, heads = 3, 5, 4
    angle = numbers(*((batch,) if rows_differ else ()), places, width // 2, seed=1)
    turn = angle.cos().bfloat16(), angle.sin().bfloat16()
    every = numbers(batch, places, heads + 2, width, seed=2).bfloat16()
    x, out = every[:, :, :heads], torch.empty(batch, heads, places, width).bfloat16()
    KERNELS.turn_heads(x, turn, out.transpose(1, 2), back=False)
    cos, sin = (torch.cat([part, part], -1).float() for part in turn)
    if rows_differ:
        cos, sin = cos[:, None], sin[:, None]
    assert near(out, rotate(x.float().transpose(1, 2), (cos, sin)), 0.01)
    again = torch.empty_like(x)
    KERNELS.turn_heads(out.transpose(1, 2), turn, again, back=True)
    assert near(again, x.float(), 0.02)


def test_a_share_is_kept_to_the_number() -> None:
    assert Dropped.drawn(0.0) is None
    torch.manual_seed(0)
    first, second = Dropped.drawn(0.1), Dropped.drawn(0.1)
    assert first is not None and second is not None and first.seed != second.seed
    assert first.kept == pytest.approx(1 / 0.9)
    torch.manual_seed(0)
    assert Dropped.drawn(0.1) == first
