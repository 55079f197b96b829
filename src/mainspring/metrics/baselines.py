"""Predictions that need no model: what a model has to beat."""

from mainspring.text import sentence_texts


def lead(text: str, count: int = 1) -> str:
    """The first `count` sentences of `text`, as one line."""
    found = sentence_texts(text)[:count]
    joiner = "" if found and not found[0].isascii() and " " not in "".join(found) else " "
    return joiner.join(found)
