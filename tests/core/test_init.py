"""Building and initialising."""

import torch

from mainspring import spec
from mainspring.core.init import build, initialise


def small(depth: int = 2, tied: bool = True) -> spec.Model:
    attention = spec.Attention(4, 4, 16, scale=1.0)
    layer = spec.Layer(attention, spec.FeedForward(128, "relu"), spec.RMSNorm())
    crossing = spec.Layer(
        attention, spec.FeedForward(128, "relu"), spec.RMSNorm(), attention, mask=spec.CausalMask()
    )
    stacks = [
        spec.Stack(
            64, spec.TokenEmbedding(500), (kind,) * depth, spec.RelativeBias(), spec.RMSNorm()
        )
        for kind in (layer, crossing)
    ]
    head = spec.VocabularyHead(500, tied, 64**-0.5 if tied else 1.0)
    return spec.Model(*stacks, (("vocabulary", head),))


def test_the_same_seed_gives_the_same_bits_and_another_seed_others() -> None:
    first, second, other = (build(small(), seed).state_dict() for seed in (7, 7, 8))
    assert all(torch.equal(first[name], second[name]) for name in first)
    differing = [name for name in first if not torch.equal(first[name], other[name])]
    assert differing == [name for name in first if "norm" not in name]


def test_weights_depend_on_their_own_name_only() -> None:
    shallow, deep = build(small(1), 3).state_dict(), build(small(3), 3).state_dict()
    assert shallow.keys() < deep.keys()
    assert all(torch.equal(shallow[name], deep[name]) for name in shallow)


def test_building_touches_no_random_state() -> None:
    torch.manual_seed(5)
    wanted = torch.rand(1)
    torch.manual_seed(5)
    build(small(), 1)
    assert torch.equal(torch.rand(1), wanted)


def test_without_a_seed_nothing_is_allocated() -> None:
    model = build(small())
    assert {p.device.type for p in model.parameters()} == {"meta"}
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_initialise_fills_every_weight() -> None:
    model = build(small()).to_empty(device="cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(torch.nan)
    initialise(model, 0)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_fresh_models_start_near_the_uniform_guess() -> None:
    """Logits of the order of one: the first loss is near the logarithm of the vocabulary."""
    for tied in (True, False):
        model = build(small(tied=tied), 0).eval()
        ids = torch.randint(0, 500, (4, 16), generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            logits = model(ids, decoder_input_ids=ids).logits
        assert 0.3 < logits.std() < 3


def test_tied_weights_are_owned_once() -> None:
    names = [name for name, _ in build(small()).named_parameters(remove_duplicate=False)]
    assert names.count("tables.tokens.weight") == 1
    assert not [name for name in names if name.startswith("heads.")]
    assert "heads.vocabulary.out.weight" in build(small(tied=False)).state_dict()
