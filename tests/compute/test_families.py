"""Every family's small models, prepared for inference, compute what they did before."""

import pytest
import torch

from mainspring import registry
from mainspring.compute.precision import prepare
from mainspring.testing import tiny, tiny_inputs

EXAMPLES = [
    (name, number)
    for name in registry.names("families")
    for number in range(len(registry.find("families", name).examples))
]


@pytest.mark.parametrize(("precision", "share"), [("float32", 1e-5), ("bfloat16", 0.06)])
@pytest.mark.parametrize(("name", "number"), EXAMPLES)
def test_outputs_stay_close(name, number, precision, share):
    model = tiny(name, number)
    inputs = tiny_inputs(model, rows=3)
    with torch.no_grad():
        before = model(**inputs)
        prepare(model, precision)
        after = model(**inputs)
    for kind, reading in before.readings.items():
        error = (after.readings[kind].float() - reading).abs().max()
        assert error <= share * reading.abs().max(), (kind, error)
