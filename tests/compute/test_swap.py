from torch import nn

from mainspring.compute.swap import swap


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 2), nn.ModuleDict({"a": nn.Linear(2, 3), "b": nn.ReLU()}))


def test_swaps_by_type_and_puts_back() -> None:
    m = model()
    before = dict(m.named_modules())
    swapped = swap(m, nn.Linear, lambda name, old: nn.Identity())
    assert isinstance(m[0], nn.Identity) and isinstance(m[1]["a"], nn.Identity)
    assert isinstance(m[1]["b"], nn.ReLU)
    assert sorted(swapped.originals) == ["0", "1.a"]
    swapped.undo()
    after = dict(m.named_modules())
    assert after.keys() == before.keys()
    assert all(after[name] is before[name] for name in before)


def test_swaps_by_name_and_keeps_the_mode() -> None:
    m = model().eval()
    swap(m, lambda name, module: name.endswith("a"), lambda name, old: nn.Dropout())
    assert isinstance(m[1]["a"], nn.Dropout) and not m[1]["a"].training
    assert isinstance(m[0], nn.Linear)


def test_lets_the_originals_go() -> None:
    assert swap(model(), nn.Linear, lambda name, old: nn.Identity(), keep=False).originals == {}


def test_what_matched_is_not_looked_into() -> None:
    m = model()
    swap(m, lambda name, module: isinstance(module, nn.ModuleDict | nn.Linear), _wrapped)
    assert isinstance(m[1], nn.Sequential) and isinstance(m[1][0]["a"], nn.Linear)


def _wrapped(name: str, old: nn.Module) -> nn.Module:
    return nn.Sequential(old)
