"""Predictions that need no model: what a model has to beat."""

from mainspring.text import sentences, words


def lead(text: str, count: int = 1) -> str:
    """The first `count` sentences of `text`, as one line."""
    ends = [end for _, end in sentences(text)[:count]]
    return " ".join(text[: ends[-1]].split()) if ends else ""


def likeliest_sentence(question: str, text: str) -> str:
    """The sentence of `text` that shares most words with the question, the first of equals."""
    asked = set(words(question))
    found = [text[start:end].strip() for start, end in sentences(text)]
    return max(found, key=lambda sentence: len(asked & set(words(sentence))), default="")
