"""Baselines that need no model."""

from mainspring.metrics.baselines import lead


def test_lead() -> None:
    text = "Dr. Smith left.  He ran\nto the hills. The end."
    assert lead(text) == "Dr. Smith left."
    assert lead(text, 2) == "Dr. Smith left. He ran to the hills."
    assert lead(text, 9) == "Dr. Smith left. He ran to the hills. The end."
    assert lead("我来了。你呢？") == "我来了。"
    assert lead(" ") == ""
    assert lead("") == ""
