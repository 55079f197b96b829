"""A model prepared for training: the same loss and gradients as the core, and a clean way back."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mainspring.compute.training import prepare_for_training
from mainspring.core.init import build
from mainspring.core.model import Transformer
from mainspring.families.t5 import FAMILY
from mainspring.formulations.token_loss import token_nats

pytestmark = pytest.mark.usefixtures("way")  # with our kernels and without


def tiny(dropout: float = 0.0, **changes: object) -> Transformer:
    config = {
        **FAMILY.sizes["t5-tiny"],
        "d_model": 64,
        "d_kv": 16,
        "d_ff": 96,
        "num_layers": 2,
        "num_decoder_layers": 2,
        "vocab_size": 90,
        "dropout_rate": dropout,
        **changes,
    }
    names = () if config["tie_word_embeddings"] else ("lm_head.weight",)
    return build(FAMILY.spec(config, names), seed=1).train()


def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Source ids with padding in the second row, where they are real, and labels."""
    generator = torch.Generator().manual_seed(3)
    source_BS = torch.randint(3, 90, (2, 17), generator=generator)
    keep_BS = torch.arange(17) < torch.tensor([[17], [9]])
    labels_BT = torch.randint(3, 90, (2, 6), generator=generator)
    labels_BT[1, 4:] = -100
    return source_BS, keep_BS, labels_BT


def hidden_states(model: Transformer) -> Tensor:
    source_BS, keep_BS, labels_BT = batch()
    decoder_BT = F.pad(labels_BT[:, :-1], (1, 0)).clamp(min=0)
    return model.decode(decoder_BT, model.encode(source_BS, keep_BS), keep_BS)


def core_loss(model: Transformer) -> Tensor:
    logits = model.read("vocabulary", hidden_states(model)).float()
    return F.cross_entropy(logits.flatten(0, 1), batch()[2].flatten())


def fast_loss(model: Transformer) -> Tensor:
    head, labels_BT = model.heads["vocabulary"], batch()[2]
    weight = model.tables["tokens"].weight if head.out is None else head.out.weight
    nats = token_nats(hidden_states(model), weight, labels_BT, scale=head.scale)
    return nats.sum() / (labels_BT != -100).sum()


def gradients(model: Transformer, loss: Tensor) -> dict[str, Tensor]:
    loss.backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    for parameter in model.parameters():
        parameter.grad = None
    return found


def far(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


KINDS = [{}, {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}]


@pytest.mark.parametrize("changes", KINDS)
@pytest.mark.parametrize("checkpoint_layers", [False, True])
def test_bfloat16_is_near_float32_with_the_same_names(changes: dict, checkpoint_layers: bool):
    model = tiny(**changes)
    names, kinds = list(model.state_dict()), [type(m) for m in model.modules()]
    expected_loss = core_loss(model).detach()
    expected = gradients(model, core_loss(model))
    prepared = prepare_for_training(model, "bfloat16", checkpoint_layers=checkpoint_layers)
    assert list(model.state_dict()) == names
    loss = fast_loss(model)
    torch.testing.assert_close(loss.detach(), expected_loss, atol=0.02, rtol=0)
    found = gradients(model, loss)
    assert found.keys() == expected.keys()
    for name in names:
        assert found[name].dtype == torch.float32 and not found[name].is_sparse
        assert far(found[name], expected[name]) < 0.12, name
    prepared.restore()
    assert [type(m) for m in model.modules()] == kinds
    assert torch.equal(core_loss(model).detach(), expected_loss)


def test_float32_is_the_core_bit_for_bit():
    model = tiny()
    expected = gradients(model, core_loss(model))
    prepare_for_training(model, "float32")
    found = gradients(model, core_loss(model))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_dropout_follows_the_seed_and_checkpointing_repeats_it(precision: str):
    model = tiny(dropout=0.3)
    prepare_for_training(model, precision)
    checkpointed = tiny(dropout=0.3)
    prepare_for_training(checkpointed, precision, checkpoint_layers=True)
    drawn = []
    for this, seed in ((model, 1), (model, 1), (model, 2), (checkpointed, 1)):
        torch.manual_seed(seed)
        drawn.append(gradients(this, fast_loss(this))["encoder.layers.0.self_residual.norm.weight"])
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert torch.equal(drawn[0], drawn[3])


def test_an_optimizer_step_is_seen_at_once_and_after_refresh():
    model = tiny()
    prepared = prepare_for_training(model, "bfloat16")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True)
    losses = []
    for _ in range(8):
        loss = fast_loss(model)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 1.0
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.data.mul_(0.5)  # a change that torch's version counter does not see
    prepared.refresh()
    changed = fast_loss(model).item()
    prepared.restore()
    assert changed == pytest.approx(fast_loss(model).item(), abs=0.02)


def test_the_loss_curve_is_that_of_float32():
    curves = []
    for precision in ("float32", "bfloat16"):
        model = tiny()
        prepared = prepare_for_training(model, precision)
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, fused=True)
        losses = []
        for _ in range(30):
            loss = fast_loss(model)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            prepared.refresh()
            losses.append(loss.item())
        curves.append(torch.tensor(losses))
    assert curves[0][-1] < 0.5 * curves[0][0]
    torch.testing.assert_close(curves[1], curves[0], atol=0.05, rtol=0.02)


def test_frozen_weights_get_no_gradient():
    model = tiny()
    prepare_for_training(model, "bfloat16")
    for name, parameter in model.named_parameters():
        parameter.requires_grad = "decoder.layers.1.feed_forward" in name
    found = gradients(model, fast_loss(model))
    assert set(found) == {
        "decoder.layers.1.feed_forward.expand.up.weight",
        "decoder.layers.1.feed_forward.down.weight",
    }


def test_a_first_use_in_inference_mode_does_not_spoil_training():
    model = tiny()
    prepare_for_training(model, "bfloat16")
    with torch.inference_mode():
        fast_loss(model)
    assert gradients(model, fast_loss(model))


def test_heads_other_than_the_vocabulary_get_float32():
    model = tiny()
    prepare_for_training(model, "bfloat16")
    assert model.read("vocabulary", hidden_states(model)).dtype == torch.float32


def test_a_table_that_only_looks_tokens_up_gets_a_dense_gradient():
    model = tiny()
    prepare_for_training(model, "bfloat16")
    model.encode(batch()[0]).float().sum().backward()
    gradient = model.tables["tokens"].weight.grad
    assert gradient.layout == torch.strided
    assert gradient.abs().sum() > 0
