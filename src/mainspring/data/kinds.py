"""Kinds of fields: what a value in the user's data must be, and the one form it is given."""

import json
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from mainspring.data.rows import flaw
from mainspring.errors import BadData
from mainspring.text import shorten

Kind = Literal[
    "text",
    "text?",
    "label",
    "labels",
    "words",
    "tags",
    "spans",
    "answers",
    "messages",
    "audio",
    "any",
]

CLASSES = ("label", "labels", "tags", "spans")  # kinds whose values are names of classes
# How answers begin that are more than a text that begins with a bracket.
NESTED = re.compile(r"""\s*(\{\s*['"](text|answer_start)['"]|\[\s*['"{])""")
# How a set or a tuple begins that Python wrote.
WRITTEN_SET = re.compile(r"\s*(\{|\(|(frozen)?set\()")
ROLES = {"human": "user", "prompter": "user"} | dict.fromkeys(
    ("gpt", "chatgpt", "bot", "model", "ai"), "assistant"
)


class Flaw(Exception):
    """Why a value cannot be used: a reason that is counted, and its detail."""

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(reason)
        self.reason, self.detail = reason, detail


@contextmanager
def as_promised() -> Iterator[None]:
    """Within the block a nested value of another kind than its columns promise is a Flaw."""
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        detail = f"not what its columns promise ({type(error).__name__}: {error})"
        raise Flaw("wrong type", detail) from None


def as_text(value: Any) -> str:
    """A text with something in it, blanks and all as they are."""
    if value is None:
        raise Flaw("missing field")
    if not isinstance(value, str):
        raise Flaw("wrong type", f" holds {type(value).__name__}, not text")
    if not value.strip():
        raise Flaw("empty text")
    reason = flaw(value)
    if reason:
        raise Flaw(reason)
    return value


def as_text_if_any(value: Any) -> str:
    """A text that may be empty."""
    return "" if value is None or value == "" else as_text(value)


def as_label(value: Any) -> str:
    """The name of a class; numbers are names too, `1.0` that of `1`: tables get it so where some
    of their labels are missing, and those are written as `nan`. Other numbers and dates are named
    as a CSV file has them."""
    if isinstance(value, bool):
        return str(value)  # as tables have it that pandas wrote
    if isinstance(value, Decimal):
        value = float(value)
    if isinstance(value, float) and math.isnan(value):
        raise Flaw("missing field", " holds nan, no label")
    if isinstance(value, float) and math.isfinite(value) and not value.is_integer():
        return repr(value)
    if isinstance(value, date):
        return str(value).removesuffix(" 00:00:00")
    if (number := whole(value)) is not None:
        return str(value).strip() if isinstance(value, str) and "." not in value else str(number)
    if isinstance(value, str) and not value.strip():
        raise Flaw("empty label")
    name = as_text(value).strip()
    if name.casefold() in ("nan", "<na>"):
        raise Flaw("missing field", f" holds {name}, no label")
    return name


def whole(value: Any) -> int | None:
    """A whole number, also one that was written as `3.0` or in a text; None for anything else."""
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(-?\d+)(\.0*)?\s*", value)
        return int(match[1]) if match else None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def as_list(value: Any, what: str) -> list[Any]:
    """A list; one that was written into a table's cell as JSON or as Python writes it is read."""
    if isinstance(value, str):
        value = _read_back(value, what)
    if value is None:
        raise Flaw("missing field")
    if not isinstance(value, list | tuple):
        raise Flaw("wrong type", f" holds {type(value).__name__}, not a list of {what}")
    return list(value)


def _read_back(text: str, what: str) -> Any:
    """A value that was written as JSON or as Python writes it, also with what is numpy's in it."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    import ast

    class Plain(ast.NodeTransformer):
        """`array([1, 2], dtype=int32)` as `[1, 2]`, `np.int64(3)` as `3`, `nan` as None; so too
        `frozenset({1, 2})`."""

        def visit_Call(self, node: ast.Call) -> ast.AST:
            numpys = re.fullmatch(r"array|frozenset|np\.\w+", ast.unparse(node.func))
            return self.visit(node.args[0]) if numpys and len(node.args) == 1 else node

        def visit_Name(self, node: ast.Name) -> ast.AST:
            return ast.Constant(None) if node.id == "nan" else node

    if _lacks_commas(text):
        raise Flaw("wrong type", f" holds {what} without commas between, as numpy prints them")
    try:
        return ast.literal_eval(Plain().visit(ast.parse(text.strip(), mode="eval")))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise Flaw("wrong type", f" holds text that is no list of {what}") from None


def _lacks_commas(text: str) -> bool:
    """Whether two strings follow each other with nothing between: Python would make them one."""
    import io
    import tokenize

    before = 0
    try:
        for token in tokenize.generate_tokens(io.StringIO(text.replace("\n", " ")).readline):
            if token.type == before == tokenize.STRING:
                return True
            before = token.type
    except (tokenize.TokenError, SyntaxError):
        pass
    return False


def as_labels(value: Any) -> list[str]:
    """Names of classes, each once, in order; a text may hold several between `|` or `;`, or a list,
    set or tuple written out."""
    if isinstance(value, str) and WRITTEN_SET.match(value):
        value = _set_in(value)
    if isinstance(value, str) and not value.lstrip().startswith("["):
        parts = value.replace(";", "|").split("|")
        return list(dict.fromkeys(as_label(part) for part in parts if part.strip()))
    if isinstance(value, int | float | Decimal | date):
        return [as_label(value)]
    return list(dict.fromkeys(as_label(label) for label in as_list(value, "labels")))


def _set_in(text: str) -> Any:
    """A set or tuple that was written into a table's cell, as a list; the text itself where it is
    a name that only begins like one."""
    try:
        value = _read_back(text, "labels")
    except Flaw:
        return text
    if isinstance(value, set):
        return sorted(value, key=str)  # a set has another order in each process
    return value if isinstance(value, tuple) else text


def as_words(value: Any) -> list[str]:
    """Words of a sentence, in order."""
    words = as_list(value, "words")
    if not words:
        raise Flaw("empty text")
    for word in words:
        if not isinstance(word, str):
            raise Flaw("wrong type", f" holds a {type(word).__name__} among the words")
        if reason := flaw(word):
            raise Flaw(reason)
    return words


def as_tags(value: Any) -> list[str]:
    """One label a word."""
    return [as_label(tag) for tag in as_list(value, "tags")]


def as_spans(value: Any) -> list[dict[str, Any]]:
    """Objects, such as `{"start": 0, "end": 5, "label": "PER"}`; `[0, 5, "PER"]` is read as one."""
    spans = []
    for span in as_list(value, "spans"):
        if isinstance(span, list | tuple) and len(span) == 3:
            span = dict(zip(("start", "end", "label"), span, strict=True))
        if not isinstance(span, dict):
            shown = shorten(repr(span), 60)
            raise Flaw(
                "wrong type", f" holds {shown} where [start, end, label] or an object is due"
            )
        spans.append(span)
    return spans


def as_answers(value: Any) -> list[dict[str, Any]]:
    """Answers as `{"text": …, "start": …}`, from SQuAD's two layouts or plain texts; `start` is
    None where none is given. An empty list says that there is no answer."""
    if isinstance(value, str) and not value.lstrip().startswith(("[", "{")):
        return [{"text": as_text(value), "start": None}]
    if isinstance(value, str):
        value = _answers_in(value)
    if isinstance(value, dict):
        starts = value.get("answer_start", value.get("start"))
        texts = value.get("text")
        if isinstance(texts, str):
            value = [{"text": texts, "start": starts}]
        else:
            texts = as_list(texts, "answers")
            starts = as_list(starts, "numbers") if starts is not None else [None] * len(texts)
            if len(starts) != len(texts):
                raise Flaw("wrong type", f" holds {len(texts)} answers and {len(starts)} starts")
            value = [{"text": t, "start": s} for t, s in zip(texts, starts, strict=True)]
    answers = []
    for answer in as_list(value, "answers"):
        if isinstance(answer, str):
            answer = {"text": answer}
        if not isinstance(answer, dict):
            raise Flaw("wrong type", f" holds a {type(answer).__name__} among the answers")
        given = answer.get("answer_start", answer.get("start"))
        start = whole(given)
        if start is None and given is not None:
            raise Flaw("wrong type", f" holds an answer whose start is no whole number: {given!r}")
        answers.append({"text": as_text(answer.get("text")), "start": start})
    return answers


def _answers_in(text: str) -> Any:
    """Answers that were written into a table's cell; the text itself where it is the answer, and
    only begins with a bracket."""
    try:
        value = _read_back(text, "answers")
    except Flaw:
        if NESTED.match(text):
            detail = " holds answers that cannot be read back; save them by json.dumps, or the "
            raise Flaw("wrong type", detail + "table as Parquet or JSONL") from None
        return [text]
    of_answers = isinstance(value, list) and all(isinstance(one, str | dict) for one in value)
    return value if of_answers or isinstance(value, dict) else [text]


def as_messages(value: Any) -> list[dict[str, str]]:
    """A conversation as `{"role": …, "content": …}`; ShareGPT's `from`/`value` are read too, and
    contents that come as a list of texts."""
    messages = []
    for number, message in enumerate(as_list(value, "messages"), 1):
        if not isinstance(message, dict):
            raise Flaw("wrong type", f" holds a {type(message).__name__} among the messages")
        role = message.get("role", message.get("from"))
        content = _said(message.get("content", message.get("value")))
        if not isinstance(role, str):
            raise Flaw("wrong type", f", message {number} tells no role")
        if content is None and message.get("tool_calls"):
            detail = f", message {number} of the {role} calls a tool, which is not read"
            raise Flaw("call of a tool", detail)
        if content is None:
            raise Flaw("wrong type", f", message {number} of the {role} has no text for a content")
        if reason := flaw(content):
            raise Flaw(reason)
        messages.append({"role": ROLES.get(role, role), "content": content})
    if not messages:
        raise Flaw("empty conversation")
    return messages


def _said(content: Any) -> str | None:
    """The text of a message, also where it comes in parts; None where there is other than text."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        return None
    parts = [part.get("text") if isinstance(part, dict) else part for part in content]
    texts = [part for part in parts if isinstance(part, str)]
    return "\n".join(texts) if len(texts) == len(parts) else None


def as_audio(value: Any, folder: Path = Path()) -> str:
    """The name of a sound file that is there, and whose header can be read. It is looked for in the
    `folder` of the table that names it, then from where we are."""
    if value is None:
        raise Flaw("missing field")
    if isinstance(value, dict) and value.get("bytes") is None:
        value = value.get("path")  # as the `datasets` library has it
    if not isinstance(value, str) or not value.strip():
        raise Flaw("wrong type", f" holds {type(value).__name__}, not the name of a sound file")
    from mainspring.data.audio import check_audio

    try:
        file = folder / value
        if not file.is_file() and Path(value).is_file():
            file = Path(value)
        check_audio(file)
    except BadData as error:
        raise Flaw("unreadable sound", f": {error}") from None
    except (OSError, ValueError):  # too long for a name, or with characters none can have
        raise Flaw("unreadable sound", " holds what cannot be the name of a file") from None
    return str(file)


KINDS: dict[str, Callable[[Any], Any]] = {
    "text": as_text,
    "text?": as_text_if_any,
    "label": as_label,
    "labels": as_labels,
    "words": as_words,
    "tags": as_tags,
    "spans": as_spans,
    "answers": as_answers,
    "messages": as_messages,
    "audio": as_audio,
    "any": lambda value: value,
}
