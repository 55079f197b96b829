"""The public contract, over everything registered."""

import pytest

from mainspring import registry
from mainspring.testing import check_family, tiny, tiny_inputs


@pytest.mark.parametrize("name", registry.names("families"))
def test_every_family_keeps_the_contract(name):
    check_family(name)


def test_a_family_that_breaks_it_is_told_how(monkeypatch):
    from dataclasses import replace

    from mainspring.families.gpt2 import FAMILY

    broken = replace(FAMILY, pairs=lambda model: list(FAMILY.pairs(model)) * 2)
    monkeypatch.setattr(registry, "find", lambda kind, name: broken)
    with pytest.raises(AssertionError, match="twice"):
        check_family("broken")


def test_model_types_belong_to_one_family_each():
    families = [registry.find("families", name) for name in registry.names("families")]
    types = [kind for family in families for kind in family.model_types]
    assert len(types) == len(set(types))
    assert [family.name for family in families] == registry.names("families")


def test_tiny_models_are_ready_to_be_called():
    model = tiny("whisper")
    assert model(**tiny_inputs(model)).logits.shape == (2, 9, 40)
