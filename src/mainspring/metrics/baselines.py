"""Predictions that need no model: what a model has to beat."""

from mainspring.text import sentences


def lead(text: str, count: int = 1) -> str:
    """The first `count` sentences of `text`, as one line."""
    ends = [end for _, end in sentences(text)[:count]]
    return " ".join(text[: ends[-1]].split()) if ends else ""
