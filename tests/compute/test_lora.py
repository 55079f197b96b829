"""LoRA on a model: what it changes, what learns, and the fast training of it."""

import math

import pytest
import torch
from torch import nn

from mainspring import registry
from mainspring.checkpoints.adapters import AdapterConfig
from mainspring.compute.adapted import AdaptedCopy
from mainspring.compute.feed_forward import SmoothFeedForward
from mainspring.compute.linear import CopiedLinear
from mainspring.compute.lora import LoraLinear, LowRank, attach, merge_adapters, merged_copy
from mainspring.compute.precision import prepare
from mainspring.compute.training import prepare_for_training
from mainspring.core.model import Transformer
from mainspring.testing import tiny, tiny_inputs

FAMILIES = registry.names("families")


def family(name: str):
    return registry.find("families", name)


def shake(model: nn.Module) -> None:
    """Factors that do something, B included."""
    generator = torch.Generator().manual_seed(5)
    for name, parameter in model.named_parameters():
        if ".low_rank." in name:
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)


def adapted(name: str, number: int = 0, **options) -> Transformer:
    model = tiny(name, number)
    attach(model, family(name), AdapterConfig(**{"rank": 3, **options}))
    shake(model)
    return model


def loss(model: Transformer) -> torch.Tensor:
    """A number that depends on everything that is read."""
    output = model(**tiny_inputs(model, rows=3))
    parts = [*output.readings.values(), output.last_hidden_state]
    return sum(part.float().square().mean() for part in parts)


def gradients(model: Transformer) -> dict[str, torch.Tensor]:
    loss(model).backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    for parameter in model.parameters():
        parameter.grad = None
    return found


def test_a_fresh_adapter_changes_nothing_and_alone_learns():
    model = tiny("llama", 1)
    with torch.no_grad():
        before = loss(model)
    lora = attach(model, family("llama"), AdapterConfig(rank=4))
    with torch.no_grad():
        assert torch.equal(loss(model), before)
    learning = [name for name, p in model.named_parameters() if p.requires_grad]
    assert len(lora.parts) == 2 * 7 and len(learning) == 2 * len(lora.parts)
    assert all(".low_rank." in name for name in learning)
    a = model.decoder.layers[0].self_attention.qkv.q.part.a.detach()
    width = a.shape[1]
    assert a.abs().max() <= width**-0.5 and a.std() == pytest.approx((3 * width) ** -0.5, rel=0.2)


def test_the_start_follows_the_seed():
    draws = []
    for seed in (1, 1, 2):
        model = tiny("llama", 1)
        attach(model, family("llama"), AdapterConfig(rank=2), seed=seed)
        draws.append(model.decoder.layers[1].feed_forward.down.part.a)
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


@pytest.mark.parametrize("name", FAMILIES)
def test_merging_keeps_the_outputs_and_detaching_takes_them_back(name):
    model = tiny(name)
    names, kinds = list(model.state_dict()), [type(m) for m in model.modules()]
    learned = [p.requires_grad for p in model.parameters()]
    with torch.no_grad():
        plain = loss(model)
        lora = attach(model, family(name), AdapterConfig(rank=3))
        shake(model)
        changed = loss(model)
        assert not torch.isclose(changed, plain, rtol=1e-3)
        lora.detach()
        assert torch.equal(loss(model), plain)
        lora = attach(model, family(name), AdapterConfig(rank=3))
        shake(model)
        lora.merge()
        torch.testing.assert_close(loss(model), changed, rtol=1e-4, atol=1e-5)
    assert list(model.state_dict()) == names and [type(m) for m in model.modules()] == kinds
    assert [p.requires_grad for p in model.parameters()] == learned


def test_scales():
    assert AdapterConfig(rank=8).scale("x") == 2.0
    assert AdapterConfig(rank=16, alpha=8).scale("x") == 0.5
    assert AdapterConfig(rank=16, alpha=8, rslora=True).scale("x") == 2.0
    patterned = AdapterConfig(rank=16, alpha=8, ranks={"k_proj": 4}, alphas={r".*\.k_proj": 16})
    assert patterned.rank_of("layers.0.k_proj") == 4 and patterned.scale("layers.0.k_proj") == 4.0
    assert patterned.scale("layers.0.q_proj") == 0.5


# -- fast training ---------------------------------------------------------------------------------


def leaves(kind: str, bias: bool) -> list[nn.Linear]:
    """Three linear leaves: each with an adapter, two of them with one, or all with one between
    them."""
    torch.manual_seed(0)
    made = [nn.Linear(7, out, bias=bias and out != 6) for out in (5, 6, 5)]
    for leaf in made:
        leaf.requires_grad_(False)

    def part(out: int, scale: float = 1.5) -> LowRank:
        return LowRank(torch.randn(2, 7), torch.randn(out, 2), scale, 0.0)

    match kind:
        case "each":
            return [
                LoraLinear(leaf, part(leaf.out_features, s), slice(0, leaf.out_features), owns=True)
                for s, leaf in enumerate(made, 1)
            ]
        case "some":
            made[0] = LoraLinear(made[0], part(5), slice(0, 5), owns=True)
            made[2] = LoraLinear(made[2], part(5), slice(0, 5), owns=True)
            return made
    shared = part(16)
    rows = (slice(0, 5), slice(5, 11), slice(11, 16))
    return [
        LoraLinear(leaf, shared, r, owns=i == 0)
        for i, (leaf, r) in enumerate(zip(made, rows, strict=True))
    ]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", ["each", "some", "shared"])
def test_the_copy_equals_the_layers(kind, bias):
    group = leaves(kind, bias)
    copy = AdaptedCopy(group, torch.float32)
    parameters = copy.parameters
    x = torch.randn(2, 3, 7, requires_grad=True)
    y, kept = copy.multiply(x.detach())
    expected = torch.cat([leaf(x) for leaf in group], -1)
    torch.testing.assert_close(y, expected)
    dy = torch.randn_like(expected)
    theirs = torch.autograd.grad(expected, [x, *parameters], dy)
    low = copy.low_gradient(dy)
    ours = [
        copy.input_gradient(dy, low, kept),
        *copy.gradients(dy, low, x.detach(), kept, [True] * len(parameters)),
    ]
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_the_copy_follows_its_parameters():
    group = leaves("each", False)
    copy = AdaptedCopy(group, torch.float32)
    x = torch.randn(3, 7)
    copy.multiply(x)
    with torch.no_grad():
        group[1].part.b.add_(1.0)
        group[0].weight.mul_(2.0)
        torch.testing.assert_close(copy.multiply(x)[0], torch.cat([leaf(x) for leaf in group], -1))
        group[2].part.a.data.mul_(3.0)  # unseen by torch's version counter
        copy.refresh()
        torch.testing.assert_close(copy.multiply(x)[0], torch.cat([leaf(x) for leaf in group], -1))


def test_dropout_falls_on_the_low_rank_part_alike_in_both_directions():
    (leaf, *_) = leaves("each", True)
    leaf.part.dropout.p = 0.5
    layer = CopiedLinear(leaf, AdaptedCopy([leaf], torch.float32))
    plain = nn.functional.linear
    x = torch.randn(400, 7, requires_grad=True)

    def run(x):
        torch.manual_seed(3)
        return layer(x)

    # With the same mask the layer is affine: its gradient is that of its differences.
    v, dy = torch.randn_like(x), torch.randn(400, 5)
    y = run(x)
    (dx,) = torch.autograd.grad(y, x, dy)
    with torch.no_grad():
        moved = run(x + v) - run(x)
    torch.testing.assert_close((dx * v).sum(), (dy * moved).sum(), rtol=1e-3, atol=1e-2)
    low = (y - plain(x, leaf.weight, leaf.bias)).detach()
    leaf.part.dropout.p = 0.0
    whole = leaf.part(x, leaf.rows).detach()
    share = (low * whole).sum() / whole.square().sum()
    assert share == pytest.approx(1.0, abs=0.15)
    assert not torch.allclose(low, whole, atol=0.1)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("number", [0, 1])
def test_bfloat16_training_is_near_float32(name, number):
    model = adapted(name, number)
    model.train()
    for module in model.modules():  # random numbers are drawn another way
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if hasattr(module, "attend"):
            module.dropout = 0.0
    expected_loss, expected = loss(model).detach(), gradients(model)
    names = list(model.state_dict())
    prepared = prepare_for_training(model, "bfloat16")
    assert list(model.state_dict()) == names
    torch.testing.assert_close(loss(model).detach(), expected_loss, rtol=0.05, atol=0)
    found = gradients(model)
    assert found.keys() == expected.keys() and all(".low_rank." in key for key in found)
    ours, theirs = (torch.cat([g[k].flatten() for k in expected]) for g in (found, expected))
    assert found[next(iter(found))].dtype == torch.float32
    assert (ours - theirs).norm() < 0.2 * theirs.norm()  # bfloat16 itself: tiny, random models
    prepared.restore()
    assert torch.equal(loss(model).detach(), expected_loss)


def test_the_fast_parts_are_there():
    model = adapted("llama", 1)
    prepare_for_training(model, "bfloat16")
    kinds = {type(module).__name__ for module in model.decoder.modules()}
    assert {"FusedSelfAttention", "SmoothFeedForward", "FusedProjections"} <= kinds
    assert isinstance(model.decoder.layers[0].feed_forward, SmoothFeedForward)


@pytest.mark.parametrize("name", ["llama", "gpt2", "t5"])
def test_an_optimizer_learns_by_the_adapter_alone(name):
    model = adapted(name)
    model.train()
    prepared = prepare_for_training(model, "bfloat16")
    frozen = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.02)
    losses = []
    for _ in range(8):
        now = loss(model)
        now.backward()
        optimizer.step()
        optimizer.zero_grad()
        prepared.refresh()
        losses.append(now.item())
    assert losses[-1] < 0.8 * losses[0] and all(map(math.isfinite, losses))
    for key, parameter in model.named_parameters():
        if not parameter.requires_grad:
            assert torch.equal(parameter, frozen[key]), key
    prepared.restore()
    model.eval()
    with torch.no_grad():
        learned = loss(model)
        merge_adapters(model)
        torch.testing.assert_close(loss(model), learned, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert"])
def test_a_model_prepared_for_inference_keeps_what_the_adapter_does(name):
    model = adapted(name)
    with torch.no_grad():
        before = model(**tiny_inputs(model)).last_hidden_state
        prepare(model, "float32")
        after = model(**tiny_inputs(model)).last_hidden_state
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_copy_for_inference_leaves_training_alone(name, precision):
    """Taken in the midst of training, it computes the same, and the training does not feel it."""
    model = tiny(name)
    lora = attach(model, family(name), AdapterConfig(rank=3))
    shake(model)
    prepare_for_training(model.train(), precision)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    learning = [p.requires_grad for p in model.parameters()]
    with torch.no_grad():
        expected = model.eval()(**tiny_inputs(model)).last_hidden_state
        copy = merged_copy(model.train(), lora)
        found = copy(**tiny_inputs(copy)).last_hidden_state
        prepare(copy, "bfloat16")
        narrow = copy(**tiny_inputs(copy)).last_hidden_state
    if precision == "float32":
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert (expected.float() - found).norm() < 0.05 * found.norm()
    assert (narrow.float() - found).norm() < 0.05 * found.norm()
    assert model.training and learning == [p.requires_grad for p in model.parameters()]
    after = model.state_dict()
    assert all(torch.equal(after[key], tensor) for key, tensor in before.items())
    assert gradients(model)


def test_checkpointed_layers_give_the_same_gradients():
    plain, checkpointed = adapted("llama", 1), adapted("llama", 1)
    for model, checkpoint in ((plain, False), (checkpointed, True)):
        model.train()
        prepare_for_training(model, "bfloat16", checkpoint_layers=checkpoint)
    ours, theirs = gradients(checkpointed), gradients(plain)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("name", ["llama", "gemma", "gpt2"])
def test_a_model_in_training_decodes_through_its_cache(name):
    model = adapted(name)
    ids = tiny_inputs(model)["input_ids"]
    prepare_for_training(model, "bfloat16")
    with torch.inference_mode():
        full = model.decode(ids)
        cache = model.new_cache(4)
        parts = [model.decode(part, cache=cache) for part in ids.split([4, 1, 4], 1)]
    stepwise = torch.cat(parts, 1)
    assert (stepwise - full).norm() < 0.03 * full.norm()
