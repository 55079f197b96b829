"""Documents in passages that extractors read, at sentence ends, with their places kept exactly."""

from collections.abc import Sequence

from mainspring.data.windows import Span, text_windows

PARAGRAPHS = 20_000  # characters that are looked at together


def passages(text: str, limit: int) -> list[Span]:
    """Spans of `text`, each of at most `limit` characters, without the blanks around them.

    Between two spans there is nothing but blanks. A passage ends at a sentence end where one comes
    in time; see `text_windows`.
    """
    spans: list[Span] = []
    for start, end in _parts(text):
        for first, last in text_windows(text[start:end], _lengths, limit):
            piece = text[start + first : start + last]
            left = len(piece) - len(piece.lstrip())
            if piece.strip():
                begin = start + first + left
                spans.append((begin, begin + len(piece.strip())))
    return spans


def _lengths(texts: Sequence[str]) -> list[int]:
    return [len(text) for text in texts]


def _parts(text: str) -> list[Span]:
    """Long texts in parts that end where a paragraph does, for finding sentences takes time that
    grows faster than the text."""
    parts, start = [], 0
    while len(text) - start > PARAGRAPHS:
        window = text[start : start + PARAGRAPHS]
        ends = (
            window.rfind(mark) + len(mark) for mark in ("\n\n", "\n\r\n", "\n", ". ", "。", " ")
        )
        cut = next((end for end in ends if end > PARAGRAPHS // 2), PARAGRAPHS)
        parts.append((start, start + cut))
        start += cut
    return [*parts, (start, len(text))]
