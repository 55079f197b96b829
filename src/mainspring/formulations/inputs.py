"""What formulations share in making batches: rows within a limit, padding to round lengths,
inputs of like length together, rows taken a few hundred at a time."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import takewhile
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from mainspring.data.batches import rounded

T = TypeVar("T")


def padded(
    rows: Sequence[Sequence[int]], value: int, multiple: int, *, left: bool = False
) -> Tensor:
    """Rows of ids as one int64 matrix, filled with `value` to a round length (`data.batches`), on
    the right or on the left."""
    longest = np.array(max(1, max(map(len, rows))))
    width = int(rounded(longest, multiple))
    matrix = torch.full((len(rows), width), value, dtype=torch.int64)
    for i, row in enumerate(rows):
        place = slice(width - len(row), width) if left else slice(0, len(row))
        matrix[i, place] = torch.as_tensor(row, dtype=torch.int64)
    return matrix


def kept(rows: Sequence[Sequence[int]], width: int, *, left: bool = False) -> Tensor | None:
    """True at real tokens of `padded` rows; None where nothing is padding."""
    lengths_B1 = torch.tensor([len(row) for row in rows])[:, None]
    if bool((lengths_B1 == width).all()):
        return None
    at_S = torch.arange(width)
    return at_S >= width - lengths_B1 if left else at_S < lengths_B1


def source_tensors(
    rows: Sequence[Sequence[int]], pad: int, device: torch.device, *, left: bool = False
) -> tuple[Tensor, Tensor | None]:
    """What a model reads for rows of ids, on its device: `padded` and `kept`."""
    ids_BS = padded(rows, pad, 1, left=left)
    keep_BS = kept(rows, ids_BS.shape[1], left=left)
    return ids_BS.to(device), None if keep_BS is None else keep_BS.to(device)


def too_long(tokens: int, limit: int) -> str:
    """Why an input is refused."""
    return f"the text has {tokens} tokens and the model reads {limit}"


def common_end(*rows: Sequence[int]) -> int:
    """How many tokens all rows end with."""
    columns = zip(*map(reversed, rows), strict=False)
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))


def cut_before_end(ids: list[int], limit: int, behind: int) -> tuple[list[int], int]:
    """`ids` within `limit`, the last `behind` of them kept (the end token, the cue to answer), and
    how many that lost."""
    lost = max(0, len(ids) - limit)
    if not lost:
        return ids, 0
    behind = min(behind, limit - 1)
    return [*ids[: limit - behind], *ids[len(ids) - behind :]], lost


def in_chunks(
    items: Iterable[T],
    size: int,
    *,
    length: Callable[[T], int] = lambda item: 0,
    total: float = math.inf,
) -> Iterator[list[T]]:
    """Lists of `size` items; of fewer where their lengths would come to more than `total` (but
    of one at least), and at the end."""
    chunk: list[T] = []
    held = 0
    for item in items:
        more = length(item)
        if chunk and held + more > total:
            yield chunk
            chunk, held = [], 0
        chunk.append(item)
        held += more
        if len(chunk) == size:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk


def in_batches(items: Sequence[T], length: Callable[[T], int], tokens: int) -> Iterator[list[T]]:
    """Items of like length together, the longest first: at most `tokens` with padding, or one
    item."""
    batch: list[T] = []
    for item in sorted(items, key=lambda item: -length(item)):
        longest = length(batch[0]) if batch else 0
        if batch and (len(batch) + 1) * longest > tokens:
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch
