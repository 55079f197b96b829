"""Long texts in windows that a model can read, with nothing lost between them."""

import itertools
import re
from collections.abc import Callable, Sequence

from mainspring.errors import BadOption
from mainspring.text import sentences

Span = tuple[int, int]

# Texts are cut in halves until the parts fit. To count the tokens of each part of a long one would
# read it a dozen times over: what has more characters than this per token of the limit is halved
# unread. (Parts that turn out small share a window with their neighbours.)
UNREAD = 32
NEAR = 1000  # characters around the middle of a span where a blank is looked for


def text_windows(
    text: str,
    count_tokens: Callable[[Sequence[str]], Sequence[int]],
    limit: int,
    *,
    language: str | None = None,
) -> list[Span]:
    """Spans of `text` in characters, each of at most `limit` tokens, of about equal size.

    `count_tokens` gives the number of tokens of each text it is handed (special tokens included,
    where `limit` includes them). Windows end at sentence ends; a sentence that alone is too long is
    cut at a blank, and a word that alone is too long anywhere. The spans tile the text: each
    starts where the one before ends. Empty text has no window. Raises BadOption where `limit`
    cannot hold a single character.
    """
    if not text:
        return []
    if count_tokens([text])[0] <= limit:
        return [(0, len(text))]
    pieces = _fitting(text, sentences(text, language), count_tokens, limit)
    sizes = count_tokens([text[start:end] for start, end in pieces])
    windows: list[Span] = []
    for first, last in pack(sizes, limit):
        windows += _checked(text, pieces[first:last], count_tokens, limit)
    return windows


def token_windows(count: int, limit: int, ends: Sequence[int] = ()) -> list[Span]:
    """Spans that tile `count` tokens, each of at most `limit`, ending at `ends` where possible.

    `ends` are rising positions where a cut is welcome (after a sentence, say).
    """
    if limit < 1:
        raise BadOption(f"a window needs at least one token, not {limit}")
    cuts = sorted({0, count, *(end for end in ends if 0 < end < count)})
    pieces = [
        (start, min(start + limit, end))
        for begin, end in itertools.pairwise(cuts)
        for start in range(begin, end, limit)
    ]
    spans = pack([end - start for start, end in pieces], limit)
    return [(pieces[first][0], pieces[last - 1][1]) for first, last in spans]


def pack(sizes: Sequence[int], limit: int) -> list[Span]:
    """Consecutive groups `(first, last + 1)` of pieces, each group of at most `limit` in size.

    As few groups as in-order packing needs, and then as even as it can be, so that no window is
    left with a crumb. A piece above the limit stands alone.
    """
    groups = _filled(sizes, limit)
    low, high = -(-sum(sizes) // max(1, len(groups))), limit
    while low < high:  # the smallest limit that does with as few groups
        middle = (low + high) // 2
        if len(_filled(sizes, middle)) > len(groups):
            low = middle + 1
        else:
            high = middle
    return _filled(sizes, high) if groups else []


def _filled(sizes: Sequence[int], limit: int) -> list[Span]:
    groups: list[Span] = []
    start = held = 0
    for index, size in enumerate(sizes):
        if index > start and held + size > limit:
            groups.append((start, index))
            start, held = index, 0
        held += size
    return [*groups, (start, len(sizes))] if sizes else []


def _fitting(
    text: str,
    spans: Sequence[Span],
    count_tokens: Callable[[Sequence[str]], Sequence[int]],
    limit: int,
) -> list[Span]:
    """`spans` with those above the limit cut in halves, at a blank where there is one."""
    waiting, fitting = list(reversed(spans)), []
    sizes = dict(zip(spans, count_tokens([text[a:b] for a, b in spans]), strict=True))
    while waiting:
        start, end = span = waiting.pop()
        size = sizes.get(span)
        if size is None and end - start <= UNREAD * limit:
            size = count_tokens([text[start:end]])[0]
        if size is not None and size <= limit:
            fitting.append(span)
        elif end - start == 1:
            raise BadOption(f"a window of {limit} tokens cannot hold the character {text[start]!r}")
        else:
            middle = _middle(text, start, end)
            waiting += [(middle, end), (start, middle)]
    return fitting


def _middle(text: str, start: int, end: int) -> int:
    """Where to halve a span: after the blank nearest to its middle, or right in the middle."""
    middle = (start + end) // 2
    first, last = max(start, middle - NEAR), min(end, middle + NEAR)
    blanks = [first + match.end() for match in re.finditer(r"\s+", text[first:last])]
    inside = [at for at in blanks if start < at < end]
    return min(inside, key=lambda at: abs(at - middle), default=middle)


def _checked(
    text: str,
    pieces: Sequence[Span],
    count_tokens: Callable[[Sequence[str]], Sequence[int]],
    limit: int,
) -> list[Span]:
    """One window of `pieces`; or several where together they have more tokens than apart."""
    span = (pieces[0][0], pieces[-1][1])
    if len(pieces) == 1 or count_tokens([text[slice(*span)]])[0] <= limit:
        return [span]
    half = len(pieces) // 2
    return [
        *_checked(text, pieces[:half], count_tokens, limit),
        *_checked(text, pieces[half:], count_tokens, limit),
    ]
